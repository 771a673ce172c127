"""From chunks to a moved engine and the messages that say so: the work of one micro-batch on the
engine's thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stream.answers import encode_lists
from stream.dead_letters import Letter, dead_letter
from stream.engine import Engine, Outcome
from stream.events import Rejected, rounds
from stream.inbox import Arrived, decode
from stream.metrics import WorkerMetrics
from stream.murmur import murmur2
from stream.partitions import Owned
from stream.producers import Message
from stream.settings import Settings
from stream.snapshots import discard_snapshot, snapshot_path


@dataclass
class Applied:
    """Messages of a micro-batch."""

    answers: dict[int, list[Message]] = field(default_factory=dict)
    """for `recommendations`, by partition"""
    letters: list[Letter] = field(default_factory=list)
    """for `dead-letters`"""


def apply_chunks(
    engine: Engine,
    settings: Settings,
    topic_id: bytes,
    owners: Mapping[int, Owned],
    taken: Mapping[int, Sequence[Arrived]],
    metrics: WorkerMetrics,
) -> Applied:
    """Decode, apply in turns between tombstones, and encode the answers; owners note what their next
    checkpoint writes.
    """
    read = sum(len(one.chunk.records) for part in taken.values() for one in part)
    metrics.read.inc(read)
    metrics.batch_events.observe(read)
    now = engine.wall()
    decoded = [decode(part, now) for part in taken.values()]
    rejected = [(one.batch.partition, bad) for one in decoded for bad in one.rejected]
    applied = Applied()
    for batches, erased in rounds(decoded):
        outcome = engine.apply(batches)
        _count(outcome, metrics)
        home = engine.slab.partition[outcome.dirty]
        for number, owned in owners.items():
            owned.note(outcome, outcome.dirty[home == number])
        if outcome.refused:
            at = {
                (number, record.offset): record
                for number, part in taken.items()
                for one in part
                for record in one.chunk.records
            }
            rejected += [
                (number, Rejected(at[number, offset], why)) for number, offset, why in outcome.refused
            ]
        for to, messages in encode_lists(engine, outcome.lists, topic_id, settings.partitions).items():
            applied.answers.setdefault(to, []).extend(messages)
        for number, user in erased:
            owners[number].erase(engine, [user])
            discard_snapshot(snapshot_path(settings.cache_dir, settings.group, topic_id, number))
            to = int(murmur2([user.encode()])[0] % settings.partitions)
            applied.answers.setdefault(to, []).append((user.encode(), None))
            metrics.erased.inc()
    for number, part in taken.items():
        owners[number].advance(part[-1].chunk.end)
    applied.letters = [dead_letter(settings.topics.events, number, bad) for number, bad in rejected]
    metrics.dead.inc(len(rejected))
    metrics.answers.inc(sum(value is not None for part in applied.answers.values() for _, value in part))
    metrics.rows.set(len(engine.slab))
    for name, value in engine.prequential.metrics().items():
        metrics.prequential.labels(name).set(value)
    return applied


def _count(outcome: Outcome, metrics: WorkerMetrics) -> None:
    metrics.applied.inc(outcome.applied)
    metrics.replayed.inc(outcome.replayed)
    metrics.ignored.inc(outcome.ignored)
    metrics.repeats.inc(outcome.repeats)
    metrics.late.inc(outcome.late)
    metrics.too_late.inc(outcome.too_late)
