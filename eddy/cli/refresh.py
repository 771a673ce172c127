"""The work of `eddy refresh`: progress, one line per step, and how the command ends."""

import re
import time
from pathlib import Path

import typer

from eddy.cli.terminal import progress_bar
from eddy.models.errors import EddyError
from eddy.refresh.metrics import write_metrics
from eddy.refresh.options import RefreshOptions
from eddy.refresh.refresh import NOT_LIVE, NotYet, Outcome, refresh
from eddy.refresh.schedule import repeat
from eddy.stream.records.settings import Settings

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def run_refresh(settings: Settings, options: RefreshOptions, every: str | None, metrics: Path | None) -> int:
    """Refresh once and return the exit code, or again and again without an end.

    every: the time from one refresh to the next, such as 6h. metrics: a file for Prometheus.

    Errors: EddyError when a lone refresh fails, or `every` is no duration.
    """

    def once() -> Outcome:
        began = time.monotonic()
        with progress_bar() as show:
            outcome = refresh(settings, options, show, _say)
        _say_outcome(outcome, time.monotonic() - began)
        if metrics is not None:
            write_metrics(metrics, outcome)
        return outcome

    if every is not None:
        repeat(once, seconds_of(every), _say)
    try:
        return 0 if once().is_live else NOT_LIVE
    except NotYet as reason:
        _say(f"nothing to do yet: {reason}")
        return NOT_LIVE


def seconds_of(duration: str) -> float:
    """The seconds of a duration such as 90s, 15m, 6h or 2d. Errors: EddyError."""
    match = _DURATION.fullmatch(duration)
    if not match or not float(match[1]):
        raise EddyError(f"{duration!r} is no duration; write 90s, 15m, 6h or 2d")
    return float(match[1]) * _SECONDS[match[2]]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _say_outcome(outcome: Outcome, seconds: float) -> None:
    decision = outcome.decision
    name = decision.version or "the candidate"
    verb = {"went live": "", "refused": "was ", "overtaken": "was "}.get(decision.kind, "")
    steps = ", ".join(f"{step} {took:.1f} s" for step, took in outcome.seconds.items())
    _say(f"{name} {verb}{decision.kind} after {seconds:.0f} s ({steps}): {decision.reason}")
