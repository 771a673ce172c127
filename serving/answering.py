"""Answers questions: those that come while others are answered are scored together, and those that would be
answered too late are refused.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from eddy.serving.admission import AnswerQueue
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.loop_lag import LoopLag
from eddy.serving.metrics import ServerMetrics
from eddy.serving.recommend import answer
from eddy.serving.score_updates import ScoreUpdates
from eddy.serving.view import MaterialisedView, ScoresUpdate
from eddy.serving.view_owner import ViewOwner

MAX_TOGETHER = 64
"""The most questions that are scored in one call."""


class Answering:
    """See the module. It is used from the event loop."""

    def __init__(
        self,
        view: MaterialisedView,
        owner: ViewOwner,
        metrics: ServerMetrics,
        max_wait_s: float,
        on_failure: Callable[[Exception], None],
    ) -> None:
        """max_wait_s: questions that would wait for longer are refused. on_failure: is told when scores
        cannot be brought up to date.
        """
        self._view, self._owner, self._metrics = view, owner, metrics
        self._lag = LoopLag()
        self._updates = ScoreUpdates(view, owner, on_failure)
        self._questions = AnswerQueue[Question, Answer](max_wait_s, self._lag.seconds)

    def is_overloaded(self) -> bool:
        """Whether a question that comes now would be refused."""
        return self._questions.is_full()

    async def ask(self, question: Question) -> Answer:
        """The answer to a question as of now. Errors: Overloaded when it would come too late."""
        return await self._questions.ask(question)

    async def run(self) -> None:
        """Answer, for ever."""
        while True:
            batch = await self._questions.next_batch(MAX_TOGETHER)
            questions = [waiting.question for waiting in batch]
            self._metrics.batch.observe(len(batch))
            try:
                # An explanation reads the window once for each event: some ten times what a list takes.
                explained = any(question.explain for question in questions)
                expected_s = math.inf if explained else self._questions.expected_s(len(batch))
                outcomes, updates = await self._owner.do_soon(partial(self._answer, questions), expected_s)
            except Exception as error:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            finally:
                self._questions.done()
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(outcome, Exception):
                    waiting.answer.set_exception(outcome)
                else:
                    waiting.answer.set_result(outcome)
            self._updates.run(updates)

    def _answer(
        self, questions: Sequence[Question]
    ) -> tuple[list[Answer | Exception], Sequence[ScoresUpdate]]:
        """The outcomes, and what is to be done afterwards so that later answers need not wait for it."""
        return _outcomes(self._view, questions), self._updates.begin()

    def close(self) -> None:
        """Cancel the questions that wait, and give up what is under way."""
        self._questions.cancel()
        self._lag.stop()
        self._updates.close()


def _outcomes(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer | Exception]:
    """An answer to each question, or why there is none. A question that fails takes no other one with it."""
    try:
        return [*answer(view, questions)]
    except Exception as error:
        if len(questions) == 1:
            return [error]
    return [outcome for question in questions for outcome in _outcomes(view, [question])]
