"""What a refresh tells Prometheus: a file for the node exporter's textfile collector, replaced whole."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, Metric, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from eddy.models.decisions import Kind
from eddy.models.errors import EddyError
from eddy.refresh.endings import Outcome


class _Told(Collector):
    """Metrics that a file has told already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def write_metrics(file: Path, outcome: Outcome) -> None:
    """Write a refresh's end, its steps' durations and the gate's figures. Errors: EddyError."""
    registry = CollectorRegistry()
    _tell_end(registry, failed=False)
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
    judgement = outcome.judgement
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
    _write(registry, file)


def write_no_decision(file: Path, failed: bool) -> None:
    """Write that a refresh came to no decision, beside what the file tells of the last one that did.

    failed: whether it ended with an error; otherwise too little was new.

    Errors: EddyError.
    """
    registry = CollectorRegistry()
    _tell_end(registry, failed)
    anew = {metric.name for metric in registry.collect()}
    registry.register(_Told(metric for metric in _told_in(file) if metric.name not in anew))
    _write(registry, file)


def _tell_end(registry: CollectorRegistry, failed: bool) -> None:
    """How a refresh ended, now."""
    Gauge(
        "eddy_refresh_failed", "1 when the last refresh ended with an error, else 0", registry=registry
    ).set(failed)
    if not failed:
        Gauge(
            "eddy_refresh_success_timestamp_seconds",
            "When a refresh last ended without an error: with a decision, or as too little was new",
            registry=registry,
        ).set(time.time())


def _told_in(file: Path) -> Iterator[Metric]:
    """The metrics in a file that a refresh has written; none when there is no such file."""
    with suppress(OSError, ValueError):
        yield from text_string_to_metric_families(file.read_text())


def _write(registry: CollectorRegistry, file: Path) -> None:
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise EddyError(f"{file}: cannot be written ({error}); check space and permissions") from None
