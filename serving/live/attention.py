"""What somebody should look at, in whole sentences that say what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eddy.serving.live.answers import Attention, Percentiles, VersionNow, WorkerNow

FRESHNESS_P99_MS = 10_000
"""A freshness above this is worth a warning."""

LAG_S = 30
"""So is a lag for which the workers need longer than this at their present speed."""

COMPARED_EVENTS = 1_000
"""With fewer ranked events, nobody should judge a version by its live ranks."""

_NAMED = 5
"""Partitions, workers or versions that a sentence names at most."""


@dataclass(frozen=True)
class Seen:
    """What is looked at."""

    workers: Sequence[WorkerNow]
    without_worker: Sequence[int]
    partitions: int
    versions: Sequence[VersionNow]
    freshness_ms: Percentiles | None
    lag: int | None
    events_per_s: float
    dead_letters_per_s: float
    cut_off: bool
    """whether Kafka does not answer this server"""
    not_ready: Sequence[str]
    problems: Sequence[str]


def attention(seen: Seen) -> list[Attention]:
    """The sentences, what is worst first."""
    order = ("problem", "warning", "info")
    return sorted(_sentences(seen), key=lambda sentence: order.index(sentence.severity))


def _sentences(seen: Seen) -> Iterator[Attention]:
    for reason in seen.not_ready:
        yield Attention("problem", f"This server is not ready: {_ended(reason)}")
    for problem in seen.problems:
        yield Attention("warning", f"This server cannot read {_ended(problem)}")
    if seen.cut_off:
        yield Attention(
            "problem",
            "Kafka does not answer this server, so that it hears of no worker: look at the cluster.",
        )
    else:
        yield from _of_workers(seen)
    yield from _of_the_stream(seen)
    yield from _of_versions(seen)


def _of_workers(seen: Seen) -> Iterator[Attention]:
    at_work = [worker for worker in seen.workers if worker.state != "gone"]
    gone = [worker.worker for worker in seen.workers if worker.state == "gone"]
    if not at_work:
        yield Attention(
            "problem", "No worker is at work, so that no events are applied: start one with eddy worker."
        )
    elif seen.without_worker:
        numbers = _listed([str(number) for number in seen.without_worker])
        yield Attention(
            "problem",
            f"No worker has partition {numbers}: if this lasts for longer than a session timeout, look at "
            "the workers' logs.",
        )
    if gone:
        yield Attention(
            "warning",
            f"Nothing is heard from {_listed(gone)} any more: if that was not you, look why it ended, or "
            "whether it is cut off from Kafka.",
        )
    for worker in at_work:
        if worker.state == "restoring":
            yield Attention(
                "info", f"Worker {worker.worker} restores its partitions{_share(worker.progress)}."
            )
        elif worker.state == "swapping":
            moves = f"Worker {worker.worker} moves rows to the version of epoch {worker.epoch}"
            yield Attention("info", f"{moves}{_share(worker.progress)}.")


def _of_the_stream(seen: Seen) -> Iterator[Attention]:
    if seen.lag and seen.lag > LAG_S * max(seen.events_per_s, 1.0):
        yield Attention(
            "warning",
            f"The workers have {seen.lag:,} records left to apply, more than {LAG_S} s of work: add workers, "
            "up to one per partition, if they do not become fewer.",
        )
    if seen.freshness_ms is not None and seen.freshness_ms.p99 > FRESHNESS_P99_MS:
        yield Attention(
            "warning",
            f"One row in a hundred is durable only {seen.freshness_ms.p99 / 1000:.0f} s after its event: the "
            "workers catch up with a backlog, or are too few.",
        )
    if seen.dead_letters_per_s > 0:
        yield Attention(
            "warning",
            f"Every second {seen.dead_letters_per_s:.1f} records cannot be used: the dead letters say why. "
            "Mend what writes them.",
        )


def _of_versions(seen: Seen) -> Iterator[Attention]:
    live = [version for version in seen.versions if version.live]
    if not live:
        yield Attention("problem", "No model version is live: make one with eddy train --announce.")
    if len(live) > 1:
        shares = _listed([f"{version.version} ({_percent(version.share)})" for version in live])
        yield Attention("info", f"Several versions share the users: {shares}.")
    for version in live:
        ranks, popularity = version.prequential, version.popularity
        if ranks is None or popularity is None or ranks.events < COMPARED_EVENTS:
            continue
        if ranks.mrr_at_20 < popularity.mrr_at_20:
            yield Attention(
                "warning",
                f"Version {version.version} has ranked the last {ranks.events:,} events worse than decayed "
                f"popularity (MRR@20 {ranks.mrr_at_20:.3f}, {popularity.mrr_at_20:.3f}): refresh it, or go "
                "back to the one before.",
            )


def _share(progress: float | None) -> str:
    return "" if progress is None else f", {_percent(progress)} are done"


def _ended(text: str) -> str:
    """A sentence's end; some reasons end with a question."""
    return text if text.endswith(("?", ".")) else f"{text}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: Sequence[str]) -> str:
    shown, more = list(names[:_NAMED]), len(names) - _NAMED
    if more > 0:
        shown.append(f"{more} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


__all__ = ["Seen", "attention"]
