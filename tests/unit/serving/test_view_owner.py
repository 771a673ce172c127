"""The view has one owner at a time: the event loop for what is short, else a thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eddy.serving.loop_lag import LoopLag
from eddy.serving.view_owner import SHORT_S, ViewOwner


def thread() -> int:
    return threading.get_ident()


def test_short_work_is_done_at_once_and_long_work_beside_the_event_loop() -> None:
    async def run() -> None:
        owner = ViewOwner()
        assert await owner.do_soon(thread) == thread()
        assert await owner.do_soon(thread, expected_s=2 * SHORT_S) != thread()
        assert await owner.do(thread) != thread()
        owner.close()

    asyncio.run(run())


def test_short_work_waits_its_turn_while_the_thread_is_at_the_view() -> None:
    async def run() -> None:
        owner, begun, go_on, done = ViewOwner(), threading.Event(), threading.Event(), list[str]()

        def long() -> None:
            begun.set()
            go_on.wait()
            done.append("long")

        at_work = asyncio.create_task(owner.do(long))
        await asyncio.to_thread(begun.wait)
        soon = asyncio.create_task(owner.do_soon(lambda: done.append("short")))
        await asyncio.sleep(0)
        assert done == []
        go_on.set()
        await asyncio.gather(at_work, soon)
        assert done == ["long", "short"]
        owner.close()

    asyncio.run(run())


def test_a_caller_who_gives_up_leaves_the_view_to_the_work_under_way() -> None:
    async def run() -> None:
        owner, begun, go_on = ViewOwner(), threading.Event(), threading.Event()

        def long() -> None:
            begun.set()
            go_on.wait()

        given_up = asyncio.create_task(owner.do(long))
        await asyncio.to_thread(begun.wait)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        soon = asyncio.create_task(owner.do_soon(thread))
        await asyncio.sleep(0)
        assert not soon.done()
        go_on.set()
        assert await soon != thread()
        owner.close()

    asyncio.run(run())


def test_work_that_fails_gives_the_view_back() -> None:
    async def run() -> None:
        owner = ViewOwner()
        for attempt in (owner.do_soon, owner.do):
            with pytest.raises(ZeroDivisionError):
                await attempt(lambda: 1 // 0)
        assert await owner.do_soon(thread) == thread()
        owner.close()

    asyncio.run(run())


def test_a_loop_that_is_kept_busy_is_late_by_so_long() -> None:
    async def run() -> None:
        lag = LoopLag()
        busy = threading.Event()
        busy.wait(0.25)  # nothing else runs on this loop meanwhile
        assert lag.seconds() > 0.2
        await asyncio.sleep(0)
        lag.stop()

    asyncio.run(run())
