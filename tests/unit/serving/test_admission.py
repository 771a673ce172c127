"""A question is answered within the bound, or refused at once."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from eddy.serving.admission import AnswerQueue, Overloaded, Turns

MAX_WAIT_S = 0.1


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def asked(queue: AnswerQueue[int, str], *questions: int) -> list[asyncio.Task[str]]:
    """The questions, each by a task that has begun to wait."""
    tasks = [asyncio.create_task(queue.ask(question)) for question in questions]
    await asyncio.sleep(0)
    return tasks


async def answer_next(queue: AnswerQueue[int, str], clock: Clock, takes_s: float, at_most: int = 64) -> int:
    """Answer a batch as a thread would that needs so long; returns how many questions it had."""
    batch = await queue.next_batch(at_most)
    clock.now += takes_s
    for waiting in batch:
        waiting.answer.set_result(f"answer {waiting.question}")
    queue.done()
    await asyncio.sleep(0)
    return len(batch)


def test_questions_that_come_together_are_answered_together_and_in_their_order() -> None:
    async def run() -> None:
        clock = Clock()
        queue = AnswerQueue[int, str](MAX_WAIT_S, clock=clock)
        tasks = await asked(queue, 1, 2, 3)
        assert await answer_next(queue, clock, 0.01, at_most=2) == 2
        assert await answer_next(queue, clock, 0.01) == 1
        assert await asyncio.gather(*tasks) == ["answer 1", "answer 2", "answer 3"]

    asyncio.run(run())


def test_while_the_thread_is_kept_busy_for_longer_than_the_bound_questions_are_refused() -> None:
    async def run() -> None:
        clock = Clock()
        queue = AnswerQueue[int, str](MAX_WAIT_S, clock=clock)
        (first,) = await asked(queue, 1)
        batch = await queue.next_batch(64)
        clock.now += MAX_WAIT_S / 2
        (second,) = await asked(queue, 2)
        clock.now += MAX_WAIT_S
        with pytest.raises(Overloaded):
            await queue.ask(3)
        batch[0].answer.set_result("late")
        queue.done()
        assert await first == "late"
        (fourth,) = await asked(queue, 4)
        assert not fourth.done() or isinstance(fourth.exception(), Overloaded)
        fourth.cancel()
        second.cancel()

    asyncio.run(run())


def test_whoever_has_waited_for_too_long_is_refused_when_the_thread_is_free_again() -> None:
    async def run() -> None:
        clock = Clock()
        queue = AnswerQueue[int, str](MAX_WAIT_S, clock=clock)
        (late,) = await asked(queue, 1)
        clock.now += MAX_WAIT_S * 1.5
        taking = asyncio.create_task(queue.next_batch(64))
        with pytest.raises(Overloaded):
            await late
        (timely,) = await asked(queue, 2)
        batch = await taking
        assert [waiting.question for waiting in batch] == [2]
        timely.cancel()

    asyncio.run(run())


def test_at_twice_the_rate_that_can_be_answered_the_queue_and_the_wait_stay_bounded() -> None:
    """A thread that answers 1,000 questions in a second is asked 2,000."""

    async def run() -> None:
        clock = Clock()
        queue = AnswerQueue[int, str](MAX_WAIT_S, clock=clock)
        tasks: list[tuple[float, asyncio.Task[str]]] = []
        waits: list[float] = []
        longest_queue = refused = 0
        for tick in range(300):  # of 10 ms: 20 questions come, 10 are answered
            for task in await asked(queue, *range(20)):
                tasks.append((clock.now, task))
            longest_queue = max(longest_queue, sum(not task.done() for _, task in tasks))
            await answer_next(queue, clock, 0.01, at_most=10)
            for since, task in tasks:
                if task.done():
                    refused += task.exception() is not None
                    if task.exception() is None and tick > 20:
                        waits.append(clock.now - since)
            tasks = [(since, task) for since, task in tasks if not task.done()]
        assert 0.4 < refused / 6000 < 0.6
        assert longest_queue <= MAX_WAIT_S * 1000 + 40
        assert max(waits) <= MAX_WAIT_S + 0.03
        for _, task in tasks:
            task.cancel()

    asyncio.run(run())


def test_a_caller_that_has_gone_is_not_answered() -> None:
    async def run() -> None:
        queue = AnswerQueue[int, str](MAX_WAIT_S, Clock())
        gone, here = await asked(queue, 1, 2)
        gone.cancel()
        await asyncio.sleep(0)
        assert [waiting.question for waiting in await queue.next_batch(64)] == [2]
        here.cancel()

    asyncio.run(run())


def test_while_the_event_loop_is_late_by_more_than_the_bound_and_several_wait_questions_are_refused() -> None:
    async def run() -> None:
        queue = AnswerQueue[int, str](MAX_WAIT_S, lambda: 2 * MAX_WAIT_S, Clock())
        few = await asked(queue, *range(8))
        with pytest.raises(Overloaded):
            await queue.ask(8)
        assert await answer_next(queue, Clock(), 0.0) == 8
        assert await asyncio.gather(*few) == [f"answer {n}" for n in range(8)]
        (lone,) = await asked(queue, 9)
        assert await answer_next(queue, Clock(), 0.0) == 1
        assert await lone == "answer 9", "a loop that was held up refuses nobody who comes later"

    asyncio.run(run())


def test_a_question_that_comes_just_after_answers_waits_for_company_and_a_lone_one_does_not() -> None:
    async def run() -> None:
        clock = Clock()
        queue = AnswerQueue[int, str](MAX_WAIT_S, clock=clock)
        (first,) = await asked(queue, 1)
        assert await answer_next(queue, clock, 0.0) == 1
        (second,) = await asked(queue, 2)
        batch = asyncio.create_task(queue.next_batch(64))
        await asyncio.sleep(0)
        assert not batch.done()
        (third,) = await asked(queue, 3)
        assert [waiting.question for waiting in await batch] == [2, 3]
        queue.done()
        clock.now += 1
        (fourth,) = await asked(queue, 4)
        lone = asyncio.create_task(queue.next_batch(64))
        await asyncio.sleep(0)
        assert lone.done()
        for task in (first, second, third, fourth):
            task.cancel()

    asyncio.run(run())


async def until_it_waits() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_work_is_done_one_at_a_time_and_what_fails_takes_nothing_with_it() -> None:
    async def run() -> None:
        turns, under_way, most = Turns(60), 0, 0

        async def work(number: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return 1 // number

        taken = [turns.take(partial(work, number)) for number in (1, 0, 1)]
        first, fails, last = await asyncio.gather(*taken, return_exceptions=True)
        assert (first, last, most) == (1, 1, 1)
        assert isinstance(fails, ZeroDivisionError)

    asyncio.run(run())


def test_work_whose_turn_would_come_too_late_is_refused_at_once_or_when_it_has_waited_for_too_long() -> None:
    async def run() -> None:
        clock, ends = Clock(), asyncio.Event()
        turns = Turns(MAX_WAIT_S, clock)

        async def long() -> None:
            await ends.wait()
            clock.now += 20 * MAX_WAIT_S

        first = asyncio.create_task(turns.take(long))
        await until_it_waits()
        with pytest.raises(Overloaded, match="waited"):
            await turns.take(long)
        ends.set()
        await first
        ends.clear()
        begun, waits = (asyncio.create_task(turns.take(long)) for _ in range(2))
        await until_it_waits()
        with pytest.raises(Overloaded, match="more is asked"):
            await turns.take(long)
        ends.set()
        await asyncio.gather(begun, waits)
        await turns.take(long)

    asyncio.run(run())
