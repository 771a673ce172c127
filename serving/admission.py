"""Admission: a question that would wait for too long is refused at once, while a refusal is still of use.

Questions are answered one batch after another and wait in a queue. Three measurements say how long a new one
would wait: the age of the oldest question that has no answer yet, which grows while something else is done;
the length of the queue over the rate at which questions were answered lately; and how late the event loop is,
which reads requests and sends answers. Above the limit, new questions are refused; whoever has waited for
longer when their turn comes is refused, too. So the wait of every question that is answered has a bound, and
so has the queue, whatever the rate at which they come.

`Turns` gives the same bound to work that grows with the catalogue and that nobody does in batches: it is done
one at a time, so that lists have the thread that answers in between.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

RETRY_AFTER = {"Retry-After": "1"}
"""The header of a refusal: after so many seconds it is worth asking again."""

_SEVERAL = 8
"""A late loop has a backlog if so many questions wait; else it was held up, and is through with it."""

GATHER_S = 0.001
"""When questions come so soon after the last answers, others are given so long to join them: most of what a
batch costs, it costs for one question, too. At 1,000 questions a second this halves the 99th percentile.
"""

_SMOOTHING = 0.2
"""The weight of the newest batch, or work, in the mean time of each."""


class Overloaded(Exception):
    """More is asked than can be answered in time."""


class Waiting(NamedTuple, Generic[Q, A]):
    """A question in the queue."""

    question: Q
    answer: "asyncio.Future[A]"
    since: float


class AnswerQueue(Generic[Q, A]):
    """Questions that wait for their answers; used on the event loop."""

    def __init__(
        self,
        max_wait_s: float,
        late_s: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """late_s: how late the event loop is."""
        self._max_wait_s = max_wait_s
        self._late_s = late_s
        self._clock = clock
        self._waiting: deque[Waiting[Q, A]] = deque()
        self._batch: Sequence[Waiting[Q, A]] = ()
        self._batch_began = 0.0
        self._some = asyncio.Event()
        self._per_question_s = 0.0
        self._answered_at = -math.inf

    def expected_wait_s(self) -> float:
        """How long a question that comes now would wait until its answer is begun."""
        oldest = self._batch[0] if self._batch else self._waiting[0] if self._waiting else None
        age = self._clock() - oldest.since if oldest else 0.0
        ahead = len(self._waiting) + len(self._batch)
        return max(age, ahead * self._per_question_s, self._late_s() if ahead >= _SEVERAL else 0.0)

    def expected_s(self, questions: int) -> float:
        """How long so many questions would take to be answered, together and at once."""
        return questions * self._per_question_s

    def is_full(self) -> bool:
        """Whether a question that comes now would be refused."""
        return self.expected_wait_s() > self._max_wait_s

    async def ask(self, question: Q) -> A:
        """The answer to a question. Errors: Overloaded when it would come too late; whatever failed."""
        if self.is_full():
            raise Overloaded("more is asked here than can be answered in time")
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(question, answer, self._clock()))
        self._some.set()
        return await answer

    async def next_batch(self, at_most: int) -> Sequence[Waiting[Q, A]]:
        """Wait for questions, and take the oldest; `done` must follow. Those whose callers have gone, or that
        have waited for too long, are left out.
        """
        while True:
            await self._some.wait()
            if self._clock() - self._answered_at < GATHER_S:
                await asyncio.sleep(GATHER_S)
            now, batch = self._clock(), list[Waiting[Q, A]]()
            while self._waiting and len(batch) < at_most:
                waiting = self._waiting.popleft()
                if waiting.answer.done():
                    continue
                if now - waiting.since > self._max_wait_s:
                    waiting.answer.set_exception(Overloaded("the question waited for too long"))
                    continue
                batch.append(waiting)
            if not self._waiting:
                self._some.clear()
            if batch:
                self._batch, self._batch_began = batch, now
                return batch

    def done(self) -> None:
        """The batch is answered."""
        if self._batch:
            per_question = (self._clock() - self._batch_began) / len(self._batch)
            self._per_question_s += _SMOOTHING * (per_question - self._per_question_s)
        self._batch = ()
        self._answered_at = self._clock()

    def cancel(self) -> None:
        """Cancel all questions that wait."""
        while self._waiting:
            self._waiting.popleft().answer.cancel()


class Turns:
    """Work that is done one at a time, or refused if its turn would come too late."""

    def __init__(self, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_wait_s, self._clock = max_wait_s, clock
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._each_s = 0.0

    async def take(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work gives. Errors: Overloaded when its turn would come too late; whatever failed."""
        if self._waiting * self._each_s > self._max_wait_s:
            raise Overloaded("more is asked here than can be answered in time")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise Overloaded("the question waited for too long") from None
        finally:
            self._waiting -= 1
        began = self._clock()
        try:
            return await work()
        finally:
            self._each_s += _SMOOTHING * (self._clock() - began - self._each_s)
            self._turn.release()
