"""What a refresh tells Prometheus: a file for the node exporter's textfile collector, replaced whole."""

import time
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from eddy.models.decisions import Kind
from eddy.models.errors import EddyError
from eddy.refresh.refresh import Outcome


def write_metrics(file: Path, outcome: Outcome) -> None:
    """Write a refresh's end, its steps' durations and the gate's figures. Errors: EddyError."""
    registry = CollectorRegistry()
    Gauge(
        "eddy_refresh_end_timestamp_seconds", "When the last refresh that came to a decision ended",
        registry=registry,
    ).set(time.time())  # fmt: skip
    decided = Gauge("eddy_refresh_decision", "1 for what it decided", ["kind"], registry=registry)
    for kind in get_args(Kind):
        decided.labels(kind).set(kind == outcome.decision.kind)
    took = Gauge("eddy_refresh_step_seconds", "How long each step took", ["step"], registry=registry)
    for step, seconds in outcome.seconds.items():
        took.labels(step).set(seconds)
    judgement = outcome.decision.figures.get("judgement") or {}
    judged = Gauge(
        "eddy_refresh_judged", "Prequential metrics in the window", ["of", "metric"], registry=registry
    )
    for name, metrics in judgement.get("metrics", {}).items():
        for metric, value in metrics.items():
            judged.labels(name, metric).set(value)
    gain = Gauge(
        "eddy_refresh_gain", "The judged metric of the candidate minus the other's, with its interval",
        ["over", "end"], registry=registry,
    )  # fmt: skip
    for name, ends in judgement.get("gains", {}).items():
        for end, value in ends.items():
            gain.labels(name, end).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise EddyError(f"{file}: cannot be written ({error}); check space and permissions") from None
