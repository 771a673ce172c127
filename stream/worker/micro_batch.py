"""The work of one micro-batch on the engine's thread: from chunks to moved rows and the messages that tell of
them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from prometheus_client import Gauge

from eddy.stream.engine.batch_report import BatchReport, Lists
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.prequential import Prequential
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.dead_letters import Letter, dead_letter
from eddy.stream.records.decode import Rejected, append_times, stretches
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import discard_snapshot, snapshot_path
from eddy.stream.worker.answers import encode_lists
from eddy.stream.worker.event_traces import EventTraces, TracedEvent
from eddy.stream.worker.inbox import decode_chunks
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask, note_changed

log = logging.getLogger("eddy.worker")


@dataclass
class BatchOutput:
    """What a micro-batch says; lists may still be in the making."""

    stretches: list[tuple[Sequence[Lists], dict[int, list[Message]]]]
    """what goes to `recommendations`, up to each erasure and from the last one to the end: lists, then
    tombstones by partition
    """
    topic_id: bytes
    letters: list[Letter]
    """for `dead-letters`"""
    ranked: Callable[[], None]
    """waits for the batch's prequential ranks and shows their metrics"""
    traced: Sequence[TracedEvent]
    """events whose lists carry their traces on"""
    unanswered: Gauge | None
    """counts this batch, until `leave`; None from then on"""

    def leave(self) -> None:
        """Its lists and ranks are made, or nobody waits for them any more."""
        if self.unanswered is not None:
            self.unanswered.dec()
            self.unanswered = None

    def answers(self) -> dict[int, list[Message]]:
        """Messages for `recommendations`, by partition; waits until the lists are made. On one thread, not
        the engine's, batch after batch.
        """
        answers: dict[int, list[Message]] = {}
        for lists, tombstones in self.stretches:
            listed = [encode_lists(of_version, self.topic_id) for of_version in lists]
            for by_partition in (*listed, tombstones):
                for partition, messages in by_partition.items():
                    answers.setdefault(partition, []).extend(messages)
        self.ranked()
        return answers

    def traced_in(self, partition: int) -> list[TracedEvent]:
        """The traced events of a partition, in log order."""
        return [event for event in self.traced if event.partition == partition]


def apply_micro_batch(
    engine: Engine,
    settings: Settings,
    topic_id: bytes,
    owners: Mapping[int, PartitionTask],
    taken: Mapping[int, Sequence[Chunk]],
    metrics: WorkerMetrics,
    other: OtherPartitioner,
    traces: EventTraces,
) -> BatchOutput:
    """Apply the chunks taken from the inbox, by partition. `owners`, the tasks of these partitions, note what
    their next checkpoints write.
    """
    # 1. Decode. Station 2, where a chunk is not decoded yet.
    read = sum(len(chunk.records) for chunks in taken.values() for chunk in chunks)
    metrics.batch_events.observe(read)
    traced = traces.begin(taken)
    decoded = [decode_chunks(chunks, settings.admission) for chunks in taken.values()]
    rejected = [(part.partition, rejection) for part in decoded for rejection in part.rejected]
    _warn_of_partitioner(rejected, other)
    metrics.unanswered.inc()
    # 2. Apply the events up to each tombstone, then erase. Station 3.
    output: list[tuple[Sequence[Lists], dict[int, list[Message]]]] = []
    for batches, erased in stretches(decoded):
        report = engine.apply(batches)
        _count(report, metrics)
        note_changed(owners, report.changed)
        rejected += _refused(report, taken)
        tombstones: dict[int, list[Message]] = {}
        for number, user in erased:
            owners[number].erase(engine, [user])
            discard_snapshot(snapshot_path(settings.cache_dir, settings.group, topic_id, number))
            tombstones.setdefault(number, []).append((user.encode(), None))
            metrics.erased.inc()
        output.append((report.lists, tombstones))
        metrics.answers.inc(sum(len(lists.user) for lists in report.lists))
    for number, chunks in taken.items():
        owners[number].applied_up_to(chunks[-1].end)
        for chunk in chunks:
            owners[number].appended(append_times(chunk.records))
    _note_applied(traced, owners, rejected)
    # 3. Dead letters, and metrics, of which those of ranks come when the ranks are there.
    letters = [dead_letter(settings.topics.events, number, rejection) for number, rejection in rejected]
    metrics.read.inc(read)  # with what became of them, not before
    metrics.dead.inc(len(rejected))
    metrics.rows.set(len(engine.rows))
    started, in_use = engine.prequential.started, {each.live.version.id for each in engine.rows.versions}
    return BatchOutput(
        output, topic_id, letters, lambda: _show(engine.prequential, started, in_use, metrics), traced,
        metrics.unanswered,
    )  # fmt: skip


def _note_applied(
    traced: Sequence[TracedEvent],
    owners: Mapping[int, PartitionTask],
    rejected: Sequence[tuple[int, Rejected]],
) -> None:
    """Say of the traced events what became of them, and let the next checkpoint end their spans."""
    if not traced:
        return
    dead = {(number, rejection.record.offset) for number, rejection in rejected}
    for event in traced:
        if (event.partition, event.offset) in dead:
            event.refuse()
        else:
            event.note("applied")
        owners[event.partition].trace(event)


def _refused(report: BatchReport, taken: Mapping[int, Sequence[Chunk]]) -> list[tuple[int, Rejected]]:
    """The records, by partition, whose events the engine refused."""
    if not report.refused:
        return []
    records = {
        (number, record.offset): record
        for number, chunks in taken.items()
        for chunk in chunks
        for record in chunk.records
    }
    return [(number, Rejected(records[number, offset], why)) for number, offset, why in report.refused]


def _warn_of_partitioner(rejected: Sequence[tuple[int, Rejected]], other: OtherPartitioner) -> None:
    """Warn, once, when the refused records look as if another partitioner had placed them."""
    misplaced: dict[int, list[bytes]] = {}
    for number, rejection in rejected:
        if rejection.misplaced:
            misplaced.setdefault(number, []).append(rejection.record.key or b"")
    for number, keys in misplaced.items():
        if advice := other.recognised(keys, number):
            log.warning("records are refused for their partition; %s", advice)


def _show(prequential: Prequential, started: int, in_use: Set[str], metrics: WorkerMetrics) -> None:
    """Wait for the ranks that were `started`, and show the metrics of the versions that are in use: one that
    was rolled back would raise its alert for as long as the worker runs.
    """
    prequential.finish_ranks(started)
    means = prequential.metrics()
    metrics.show_prequential({version: means[version] for version in means.keys() & in_use})
    metrics.prequential_sample.set(prequential.sample)


def _count(report: BatchReport, metrics: WorkerMetrics) -> None:
    metrics.applied.inc(report.applied)
    metrics.replayed.inc(report.already_applied)
    metrics.ignored.inc(report.ignored)
    metrics.repeats.inc(report.repeats)
    metrics.late.inc(report.late)
    metrics.too_late.inc(report.too_late)
