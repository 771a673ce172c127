"""The work of `eddy refresh`: progress, one line per step, and how the command ends."""

import time

import typer

from eddy.cli.terminal import progress_bar
from eddy.refresh.options import RefreshOptions
from eddy.refresh.refresh import NotYet, Outcome, refresh
from eddy.stream.records.settings import Settings

NOT_LIVE = 3
"""Exit code of a refresh after which nothing new is live: it was not better, or there was too little new."""


def refresh_once(settings: Settings, options: RefreshOptions) -> int:
    """Refresh, and return the exit code: 0 when a new version is live, NOT_LIVE when none is.

    Errors: EddyError.
    """
    began = time.monotonic()
    try:
        with progress_bar() as show:
            outcome = refresh(settings, options, show, _say)
    except NotYet as reason:
        _say(f"nothing to do yet: {reason}")
        return NOT_LIVE
    _say_outcome(outcome, time.monotonic() - began)
    return 0 if outcome.is_live else NOT_LIVE


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _say_outcome(outcome: Outcome, seconds: float) -> None:
    decision = outcome.decision
    name = decision.version or "the candidate"
    _say(f"{name} {decision.kind} after {seconds:.0f} s: {decision.reason}")
    for step, took in outcome.seconds.items():
        _say(f"  {step:8} {took:8.1f} s")
