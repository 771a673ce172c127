"""What a worker holds of an owned partition: no gap passes, and nothing is committed that was not reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from aiokafka import AIOKafkaProducer, ConsumerRecord

from eddy.stream.records.chunk import Chunk
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import encode_rows
from eddy.stream.worker.partition_task import PartitionTask, note_changed
from tests.support.engines import TOPIC_ID, Happening, batch, new_engine, random_version, stored_rows


def record(offset: int) -> Any:
    return ConsumerRecord("events", 0, offset, 0, 1, b"u", b"{}", None, 1, 2, ())


def chunk(start: int, end: int, follows: int | None) -> Chunk:
    return Chunk(0, [record(offset) for offset in range(start, end)], 1, follows)


def owned() -> PartitionTask:
    return PartitionTask(0, cast(AIOKafkaProducer, None), Journal(0, -1, -1), generation=1, changelog_end=0)


def test_chunks_that_follow_each_other_are_taken() -> None:
    one = owned()
    parts = (chunk(5, 9, None), chunk(9, 12, 9), chunk(14, 20, 12))  # offsets may have holes, chunks not
    assert all(one.accept(part) for part in parts)
    assert one.received == 20


def test_a_chunk_is_refused_when_one_before_it_was_lost_and_taken_once_that_has_come() -> None:
    one = owned()
    assert one.accept(chunk(0, 10, None))
    assert not one.accept(chunk(20, 30, 20))
    assert one.received == 10
    assert one.accept(chunk(0, 20, None))
    assert one.accept(chunk(20, 30, 20))


def test_a_first_chunk_that_follows_one_never_seen_is_refused() -> None:
    assert not owned().accept(chunk(10, 20, 10))


def test_chunks_that_come_again_are_taken_again() -> None:
    one = owned()
    one.accept(chunk(0, 10, None))
    one.accept(chunk(3, 7, None))
    one.accept(chunk(7, 12, 7))
    assert one.received == 12


def test_nothing_is_pending_before_the_first_record_and_after_a_checkpoint() -> None:
    one = owned()
    assert not one.pending
    one.applied_up_to(10)
    assert one.pending


def test_idle_rows_are_dropped_by_the_stream_s_clock_and_only_where_their_last_event_is_committed(
    tmp_path: Path,
) -> None:
    engine = new_engine(random_version(tmp_path))
    engine.apply([batch([Happening(f"u-{i}", "item-1", 10**12 + i * 1000) for i in range(10)], range(10))])
    assert engine.idle_users(0, longer_than_ms=3_500, before=100) == [f"u-{i}" for i in range(6)]
    assert engine.idle_users(0, longer_than_ms=3_500, before=3) == ["u-0", "u-1", "u-2"]
    assert engine.idle_users(1, longer_than_ms=3_500, before=100) == []
    one = owned()
    one.erase(engine, engine.idle_users(0, longer_than_ms=3_500, before=100))
    tombstones = one.capture(engine, TOPIC_ID).rows()
    assert tombstones == [(f"u-{i}".encode(), None) for i in range(6)]
    assert len(engine.rows) == 4
    engine.apply([batch([Happening("u-0", "item-2", 10**12 + 20_000)], [10])])
    slab = engine.newest.slab
    assert slab.applied[slab.slots_of(["u-0"])].tolist() == [1], "who comes back starts anew"


def test_what_a_checkpoint_writes_is_as_it_was_when_it_was_captured(tmp_path: Path) -> None:
    engine, one = new_engine(random_version(tmp_path)), owned()

    def happen(offsets: range) -> None:
        happenings = [Happening(f"u-{i % 3}", f"item-{i}", 10**12 + i) for i in offsets]
        note_changed({0: one}, engine.apply([batch(happenings, offsets)]).changed)
        one.applied_up_to(offsets.stop)

    happen(range(60))
    stored = stored_rows(engine)
    capture = one.capture(engine, TOPIC_ID)
    happen(range(60, 200))
    assert capture.position == 60
    assert sorted(capture.rows()) == sorted(zip(stored.user, encode_rows(stored), strict=True))
