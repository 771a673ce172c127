"""The work of `eddy refresh`: progress, one line per step, and how the command ends."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import typer

from eddy.cli.error_lines import line_for_user
from eddy.cli.quantities import read_duration
from eddy.cli.terminal import progress_bar, require_figures_file
from eddy.models.errors import EddyError
from eddy.models.training.distributed import started_by_torchrun
from eddy.refresh.endings import NOT_LIVE, Outcome
from eddy.refresh.metrics import write_metrics, write_no_decision
from eddy.refresh.options import RefreshOptions
from eddy.refresh.refresh import refresh
from eddy.refresh.schedule import repeat
from eddy.refresh.windows import NotYet
from eddy.stream.records.settings import Settings


def run_refresh(
    settings: Settings, options: RefreshOptions, every: str | None, on_drift: bool, metrics: Path | None
) -> int:
    """Refresh once and return the exit code, or again and again without an end.

    every: the time from one refresh to the next, such as 6h. on_drift: whether one also begins when the live
    loss has risen. metrics: a file for Prometheus.

    Errors: EddyError when a lone refresh fails, `every` is no duration, the metrics could not be written, or
    torchrun started this process.
    """
    require_figures_file(metrics)
    if started_by_torchrun():
        raise EddyError(
            "eddy refresh is one process: train under torchrun with `eddy train`, then judge and announce "
            "what came of it with `eddy refresh --candidate VERSION`, without torchrun"
        )

    def once() -> Outcome:
        began = time.monotonic()
        try:
            with progress_bar() as show:
                outcome = refresh(settings, options, show, _say)
        except Exception as error:
            if metrics is not None:
                write_no_decision(metrics, failed=not isinstance(error, NotYet))
            raise
        _say_outcome(outcome, time.monotonic() - began)
        if metrics is not None:
            write_metrics(metrics, outcome)
        return outcome

    wait: Callable[[float], None] = time.sleep
    if on_drift:
        from eddy.refresh.drift import DriftWatch

        wait = DriftWatch(settings, _say).wait
    if every is not None or on_drift:
        period_s = read_duration(every, "--every") if every is not None else math.inf
        repeat(once, period_s, _say, line_for_user, wait)
    try:
        return 0 if once().is_live else NOT_LIVE
    except NotYet as reason:
        _say(f"nothing to do yet: {reason}")
        return NOT_LIVE


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _say_outcome(outcome: Outcome, seconds: float) -> None:
    decision = outcome.decision
    name = decision.version or "the candidate"
    verb = "" if decision.kind == "went live" else "was "
    steps = ", ".join(f"{step} {took:.1f} s" for step, took in outcome.seconds.items())
    _say(f"{name} {verb}{decision.kind} after {seconds:.0f} s ({steps}): {decision.reason}")
