"""From chunks to a moved engine and the messages that say so: the work of one micro-batch on the
engine's thread.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eddy.stream.engine.batch_report import BatchReport, Lists
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.prequential import Prequential
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.dead_letters import Letter, dead_letter
from eddy.stream.records.decode import Rejected, stretches
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import discard_snapshot, snapshot_path
from eddy.stream.worker.answers import encode_lists
from eddy.stream.worker.inbox import decode_chunks
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask

log = logging.getLogger("eddy.worker")


@dataclass
class BatchOutput:
    """What a micro-batch says; lists may still be in the making."""

    stretches: list[tuple[Lists | None, dict[int, list[Message]]]]
    """what goes to `recommendations`, up to each erasure and from the last one to the end: lists, then
    tombstones by partition
    """
    topic_id: bytes
    letters: list[Letter]
    """for `dead-letters`"""
    ranked: Callable[[], None]
    """waits for the batch's prequential ranks and shows their metrics"""

    def answers(self) -> dict[int, list[Message]]:
        """Messages for `recommendations`, by partition; waits until the lists are made. On one thread, not
        the engine's, batch after batch.
        """
        answers: dict[int, list[Message]] = {}
        for lists, tombstones in self.stretches:
            listed = encode_lists(lists, self.topic_id) if lists else {}
            for by_partition in (listed, tombstones):
                for partition, messages in by_partition.items():
                    answers.setdefault(partition, []).extend(messages)
        self.ranked()
        return answers


def apply_micro_batch(
    engine: Engine,
    settings: Settings,
    topic_id: bytes,
    owners: Mapping[int, PartitionTask],
    taken: Mapping[int, Sequence[Chunk]],
    metrics: WorkerMetrics,
    other: OtherPartitioner,
) -> BatchOutput:
    """Decode, and apply in turns between tombstones; owners note what their next checkpoint writes."""
    read = sum(len(chunk.records) for chunks in taken.values() for chunk in chunks)
    metrics.read.inc(read)
    metrics.batch_events.observe(read)
    decoded = [decode_chunks(chunks, settings.admission) for chunks in taken.values()]
    rejected = [(one.partition, bad) for one in decoded for bad in one.rejected]
    _warn_of_partitioner(rejected, other)
    metrics.unanswered.inc()
    output: list[tuple[Lists | None, dict[int, list[Message]]]] = []
    for batches, erased in stretches(decoded):
        outcome = engine.apply(batches)
        _count(outcome, metrics)
        home = engine.slab.partition[outcome.dirty]
        for number, owned in owners.items():
            owned.changed(outcome.dirty[home == number])
        if outcome.refused:
            at = {
                (number, record.offset): record
                for number, chunks in taken.items()
                for chunk in chunks
                for record in chunk.records
            }
            rejected += [
                (number, Rejected(at[number, offset], why)) for number, offset, why in outcome.refused
            ]
        tombstones: dict[int, list[Message]] = {}
        for number, user in erased:
            owners[number].erase(engine, [user])
            discard_snapshot(snapshot_path(settings.cache_dir, settings.group, topic_id, number))
            tombstones.setdefault(number, []).append((user.encode(), None))
            metrics.erased.inc()
        output.append((outcome.lists, tombstones))
        metrics.answers.inc(len(outcome.lists.user) if outcome.lists else 0)
    for number, chunks in taken.items():
        owners[number].applied_up_to(chunks[-1].end)
    letters = [dead_letter(settings.topics.events, number, bad) for number, bad in rejected]
    metrics.dead.inc(len(rejected))
    metrics.rows.set(len(engine.slab))
    started = engine.prequential.started
    return BatchOutput(output, topic_id, letters, lambda: _show(engine.prequential, started, metrics))


def _warn_of_partitioner(rejected: Sequence[tuple[int, Rejected]], other: OtherPartitioner) -> None:
    """Say so, once, when the refused records look like the work of another partitioner."""
    misplaced: dict[int, list[bytes]] = {}
    for number, bad in rejected:
        if bad.misplaced:
            misplaced.setdefault(number, []).append(bad.record.key or b"")
    for number, keys in misplaced.items():
        if said := other.recognised(keys, number):
            log.warning("records are refused for their partition; %s", said)


def _show(prequential: Prequential, started: int, metrics: WorkerMetrics) -> None:
    prequential.finish_ranks(started)
    for name, value in prequential.metrics().items():
        metrics.prequential.labels(name).set(value)
    metrics.prequential_sample.set(prequential.sample)
    metrics.unanswered.dec()


def _count(outcome: BatchReport, metrics: WorkerMetrics) -> None:
    metrics.applied.inc(outcome.applied)
    metrics.replayed.inc(outcome.already_applied)
    metrics.ignored.inc(outcome.ignored)
    metrics.repeats.inc(outcome.repeats)
    metrics.late.inc(outcome.late)
    metrics.too_late.inc(outcome.too_late)
