"""Refreshes one after another, at a fixed pace. What fails is tried again: only the user ends it, or a choice
of the user's that cannot be.
"""

import time
from collections.abc import Callable

from eddy.models.errors import WrongOption
from eddy.refresh.endings import Outcome
from eddy.refresh.job import Say
from eddy.refresh.windows import NotYet

RETRY_S = 300.0
"""A refresh that failed is tried again so soon, or at the next turn if that is sooner."""


def repeat(
    refresh_once: Callable[[], Outcome], period_s: float, say: Say,
    line_for_user: Callable[[Exception], str | None],
    sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Call `refresh_once` every `period_s` seconds, for ever. One that takes longer than that is followed by
    the next at once.

    line_for_user: the line that tells of an error; None for a fault of the program, which ends it.

    Errors: WrongOption.
    """
    while True:
        began, wait_s = clock(), period_s
        try:
            refresh_once()
        except NotYet as reason:
            say(f"nothing to do yet: {reason}")
        except WrongOption:
            raise
        except Exception as error:
            if (line := line_for_user(error)) is None:
                raise
            wait_s = min(period_s, RETRY_S)
            say(f"failed, and tried again in {wait_s:.0f} s: {line}")
        sleep(max(0.0, began + wait_s - clock()))
