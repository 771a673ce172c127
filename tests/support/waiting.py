"""Waiting for a condition that must come true."""

from __future__ import annotations

from collections.abc import Callable

from eddy.stream.kafka.waiting import wait_until


def eventually(
    condition: Callable[[], object], within_s: float = 30.0, what: str = "", every_s: float = 0.05
) -> None:
    """Returns as soon as the condition holds, which is looked at every `every_s` seconds: a test that waits
    any other way would be slow or flaky. Errors: AssertionError, which names `what` was awaited, after
    `within_s`.
    """
    assert wait_until(condition, within_s, every_s), f"not within {within_s:g} s: {what or condition}"
