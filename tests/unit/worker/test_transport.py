"""Chunks through Faust: what was fetched is handed out or fetched again, and what Faust would do by itself is
left undone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from eddy.stream.records.chunk import Chunk
from eddy.stream.worker import transport
from eddy.stream.worker.fetch_pace import FetchPace, Patience
from eddy.stream.worker.transport import BatchConsumer, Reading

FIRST, SECOND = TP("events", 0), TP("events", 1)


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that awaits."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


class Log:
    """Stands in for Faust's consumer and the cluster: ten records in each partition, none committed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patience: list[Patience] = []
        self.position = {FIRST: 0, SECOND: 0}
        self.consumer: Any = BatchConsumer.__new__(BatchConsumer)
        self.consumer.__dict__.update(
            app=SimpleNamespace(consumer_generation_id=1, in_recovery=False),
            _stopped=asyncio.Event(), _crashed=asyncio.Event(), flow_active=True,
            _thread=SimpleNamespace(seek_to_beginning=self._seek_to_beginning),
            reading=lambda tp: Reading(self.position[tp], 10, None, 0),
            _pace=FetchPace(), _wait_at_broker=self._patience.append,
            _handed={}, _expected={}, _skipped={}, _passed={}, _read_offset={},
            _seeks_begun=0, _seeks_ended=0,
        )  # fmt: skip
        self.active = {FIRST, SECOND}
        self.seeks = 0
        self.committed = {FIRST: 0, SECOND: 0}
        self.start = 0
        self.assigned = True
        monkeypatch.setattr(driver.Consumer, "perform_seek", self._perform_seek)
        monkeypatch.setattr(BatchConsumer, "assignment", lambda _: {FIRST, SECOND})
        monkeypatch.setattr(BatchConsumer, "should_stop", False)
        monkeypatch.setattr(BatchConsumer, "_wait_next_records", self._fetch)
        monkeypatch.setattr(BatchConsumer, "_to_message", lambda *_: SimpleNamespace())

    async def _fetch(self, *_: Any) -> Any:
        await asyncio.sleep(0)
        fetched = {
            tp: [SimpleNamespace(offset=offset) for offset in range(at, min(at + 5, 10))]
            for tp, at in self.position.items()
        }
        for tp, records in fetched.items():
            self.position[tp] += len(records)
        return fetched, self.active

    async def _perform_seek(self, *_: Any) -> None:
        if not self.assigned:
            raise IllegalStateError("nothing is assigned")
        self.position = {tp: max(at, self.start) for tp, at in self.committed.items()}
        self.consumer._read_offset.update({tp: at or None for tp, at in self.committed.items()})
        self.seeks += 1
        await asyncio.sleep(0)

    async def _seek_to_beginning(self, *tps: TP) -> None:
        self.position |= dict.fromkeys(tps, self.start)

    def chunks(self) -> AsyncIterator[tuple[TP, Any]]:
        """One fetch."""
        fetched: AsyncIterator[tuple[TP, Any]] = self.consumer.getmany(1.0)
        return fetched

    async def all_chunks(self) -> list[Chunk]:
        return [message.value async for _, message in self.chunks()]


def spans(chunks: list[Chunk]) -> list[tuple[int, int, int, int | None]]:
    return [(one.partition, one.records[0].offset, one.end, one.follows) for one in chunks]


BEGINNING = [(0, 0, 5, None), (1, 0, 5, None)]
NEXT = [(0, 5, 10, 5), (1, 5, 10, 5)]


@in_a_loop
async def test_chunks_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    first = await log.all_chunks()
    assert spans(first) == BEGINNING
    assert spans(await log.all_chunks()) == NEXT
    assert log.seeks == 0
    assert [chunk.last for chunk in first] == [False, True], "the last one of a fetch says so"


@pytest.mark.parametrize("interruption", ["flow", "generation", "seek", "partition"])
@in_a_loop
async def test_what_a_rebalance_keeps_from_being_handed_out_between_two_chunks_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, interruption: str
) -> None:
    log = Log(monkeypatch)
    chunks = log.chunks()
    await anext(chunks)
    if interruption == "flow":
        log.consumer.flow_active = False
    elif interruption == "generation":
        log.consumer.app.consumer_generation_id = 2
    elif interruption == "seek":
        await log.consumer.perform_seek()
    else:
        log.active.discard(SECOND)
    before = log.seeks
    assert [one async for one in chunks] == []
    assert log.seeks == before + 1
    log.consumer.flow_active, log.active = True, {FIRST, SECOND}
    assert spans(await log.all_chunks()) == BEGINNING


@in_a_loop
async def test_what_was_fetched_while_a_seek_was_under_way_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    seeking = asyncio.ensure_future(log.consumer.perform_seek())
    await asyncio.sleep(0)
    assert await log.all_chunks() == []
    await seeking
    assert spans(await log.all_chunks()) == BEGINNING


@in_a_loop
async def test_what_was_dropped_when_nothing_could_be_sought_is_missed_by_the_next_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    chunks = log.chunks()
    await anext(chunks)
    log.consumer.flow_active = log.assigned = False
    assert [one async for one in chunks] == []
    log.consumer.flow_active = True
    assert spans(await log.all_chunks()) == NEXT, "the second names an end that was never handed out"


@in_a_loop
async def test_a_chunk_that_was_lost_is_fetched_again_and_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    await log.all_chunks()
    later = await log.all_chunks()
    for chunk in later:
        await log.consumer.read_again(chunk.seeks)
    assert log.seeks == 1
    assert spans(await log.all_chunks()) == BEGINNING


@in_a_loop
async def test_a_chunk_that_ends_before_what_was_handed_out_before_a_seek_passes_faust(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.consumer._read_offset[FIRST] = 1_000  # noted when a chunk from before the seek had been taken
    _, _ = await anext(log.chunks())
    assert log.consumer._read_offset[FIRST] is None


@in_a_loop
async def test_records_that_retention_removed_before_they_were_read_are_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.committed, log.start = {FIRST: 2, SECOND: 0}, 6
    await log.consumer.perform_seek()
    assert log.consumer.take_gone(FIRST, 6) == 4, "nothing has come yet"
    assert spans(await log.all_chunks()) == [(0, 6, 10, None), (1, 6, 10, None)]
    assert log.consumer.take_gone(FIRST, 6) == 0
    assert log.consumer.take_gone(SECOND, 6) == 6, "told after what came then"
    assert log.consumer.take_gone(SECOND, 6) == 0


@in_a_loop
async def test_offsets_passed_over_in_a_whole_log_are_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    await log.all_chunks()
    log.position = {FIRST: 7, SECOND: 9}  # two, four markers of transactions
    await log.all_chunks()
    assert log.consumer.take_gone(FIRST, 0) == 0
    assert log.consumer.take_gone(SECOND, 3) == 0


@in_a_loop
async def test_markers_of_transactions_that_were_passed_before_retention_removed_them_are_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    await log.all_chunks()
    log.position = {FIRST: 7, SECOND: 5}  # two markers, at which no record is handed out
    assert [log.consumer.take_gone(tp, 0) for tp in (FIRST, SECOND)] == [0, 0]
    log.position = {FIRST: 7, SECOND: 7}  # retention removed two records, and the consumer went on behind
    assert [log.consumer.take_gone(tp, 7) for tp in (FIRST, SECOND)] == [0, 2]
    await log.all_chunks()
    assert [log.consumer.take_gone(tp, 7) for tp in (FIRST, SECOND)] == [0, 0]


@in_a_loop
async def test_a_member_that_asks_for_no_records_counts_as_alive() -> None:
    subscription = SubscriptionState()
    subscription._last_fetch_ended -= 1_000
    assert subscription.fetcher_idle_time >= 1_000
    consumer: Any = BatchConsumer.__new__(BatchConsumer)
    consumer._thread = SimpleNamespace(_consumer=None)
    with patch.object(transport, "MEMBER_S", 0.001):
        staying = asyncio.create_task(consumer._stay_a_member())
        await asyncio.sleep(0)  # it has not connected yet
        consumer._thread._consumer = SimpleNamespace(_subscription=subscription)
        while subscription.fetcher_idle_time >= 1_000:
            await asyncio.sleep(0.001)
    staying.cancel()


def test_a_full_buffer_leaves_no_partition_out() -> None:
    tp = TP("events", 0)
    consumer: Any = BatchConsumer.__new__(BatchConsumer)
    consumer.app = SimpleNamespace(in_recovery=False)
    consumer._active_partitions, consumer._buffered_partitions = {tp}, set()
    consumer.on_buffer_full(tp)
    assert consumer._active_partitions == {tp}
    driver.Consumer.on_buffer_full(consumer, tp)
    assert consumer._active_partitions == set(), "Faust goes about it in another way: look into it again"
