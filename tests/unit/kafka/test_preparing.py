"""Work on a thread that is left behind when the process is told to end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eddy.stream.kafka.preparing import ToldToEnd, unless_told_to_end


async def never() -> None:
    await asyncio.Event().wait()


def test_the_result_and_the_error_of_the_work_are_the_caller_s() -> None:
    def fail() -> None:
        raise OSError("no cluster")

    assert asyncio.run(unless_told_to_end(lambda: 5, never())) == 5
    with pytest.raises(OSError, match="no cluster"):
        asyncio.run(unless_told_to_end(fail, never()))


def test_nobody_waits_for_work_that_is_not_done_when_the_end_is_told() -> None:
    release = threading.Event()

    async def told() -> None:
        return

    with pytest.raises(ToldToEnd):
        asyncio.run(unless_told_to_end(release.wait, told()))
    release.set()  # its loop has ended meanwhile, which the thread passes over
