"""Waiting for a condition that must come true."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(
    condition: Callable[[], object], within_s: float = 30.0, what: str = "", every_s: float = 0.05
) -> None:
    """Returns as soon as the condition holds, which is looked at every `every_s` seconds: a test that waits
    any other way would be slow or flaky. Errors: AssertionError, which names `what` was awaited, after
    `within_s`.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what or condition}"
        time.sleep(every_s)
