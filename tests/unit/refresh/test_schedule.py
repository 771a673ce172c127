"""Refreshes one after another."""

import errno
from collections.abc import Callable

import pytest
from kafka.errors import KafkaTimeoutError

from eddy.cli.error_lines import line_for_user
from eddy.models.errors import EddyError, WrongOption
from eddy.refresh.endings import Outcome
from eddy.refresh.schedule import RETRY_S, repeat
from eddy.refresh.windows import NotYet

pytestmark = pytest.mark.unit


class Ended(BaseException):
    """As Ctrl-C."""


def waits(*turns: Exception | float, period_s: float) -> tuple[list[float], list[str]]:
    """How long is waited after each turn (a failure, or the seconds that it took), and what is said."""
    now, left = [0.0], list(turns)
    slept: list[float] = []
    said: list[str] = []

    def once() -> Outcome:
        if not left:
            raise Ended
        turn = left.pop(0)
        if isinstance(turn, Exception):
            raise turn
        now[0] += turn
        return None  # type: ignore[return-value]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    with pytest.raises(Ended):
        repeat(once, period_s, said.append, line_for_user, sleep, clock)
    return slept, said


def test_refreshes_begin_at_a_fixed_pace_however_long_each_takes() -> None:
    assert waits(10.0, 50.0, 130.0, 0.0, period_s=100)[0] == [90.0, 50.0, 0.0, 100.0]


def test_what_fails_is_tried_again_sooner_and_said() -> None:
    slept, said = waits(EddyError("the disk is full"), 10.0, period_s=21_600)
    assert slept == [RETRY_S, 21_590.0]
    assert "the disk is full" in said[0]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (KafkaTimeoutError("no broker"), "the Kafka cluster did not answer in time"),
        (OSError(errno.ENOSPC, "No space left on device"), "make room"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_cluster_a_disk_or_a_machine_that_fails_for_a_while_does_not_end_the_schedule(
    failure: Exception, reason: str
) -> None:
    slept, said = waits(failure, 10.0, period_s=21_600)
    assert slept == [RETRY_S, 21_590.0]
    assert reason in said[0]


def test_a_fault_of_the_program_ends_the_schedule() -> None:
    with pytest.raises(ZeroDivisionError):
        waits(ZeroDivisionError(), period_s=100)


def test_a_choice_that_cannot_be_ends_the_schedule() -> None:
    with pytest.raises(WrongOption):
        waits(WrongOption("--set hiden=3: unknown setting"), period_s=100)


def test_too_little_that_is_new_waits_for_the_next_turn() -> None:
    slept, said = waits(NotYet("3 events"), period_s=100)
    assert slept == [100.0]
    assert "3 events" in said[0]
