"""What a new version's item statistics lack is filled in while events go on, and each event counts once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eddy.models.config import DAY_MS, HOUR_MS
from eddy.models.hashing import item_hashes
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.kafka.reader import Take
from eddy.stream.records.decode import decode_events
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import Journal, StatisticsReader
from eddy.stream.worker import statistics_fill
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.worker import Worker
from tests.support.engines import item_id, new_engine, new_live_version, random_version
from tests.support.workers import StubProducer, new_worker

pytestmark = pytest.mark.unit

T0 = 1_370_000_000_000
OWN, WIDER = (DAY_MS,), (DAY_MS, HOUR_MS, 20 * DAY_MS)
SUCCESSORS = 8  # of every version that `random_version` makes
ITEMS = 12


@dataclass(frozen=True)
class Logged:
    """A record of `events`."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int


def log_of(seed: int, n: int) -> list[Logged]:
    """Events at random times, ratings that speak against their item and unreadable records among them."""
    rng, log = np.random.default_rng(seed), []
    for offset in range(n):
        user, time = f"u{rng.integers(5)}", T0 + offset * HOUR_MS + int(rng.integers(3 * HOUR_MS))
        event = {"user_id": user, "item_id": item_id(int(rng.integers(ITEMS))), "timestamp": time}
        if rng.random() < 0.4:
            event |= {"event_type": "rating", "value": int(rng.integers(1, 6))}
        value = b"{" if rng.random() < 0.1 else json.dumps(event).encode()
        log.append(Logged(user.encode(), value, offset, time))
    return log


def apply(engine: Engine, log: Sequence[Logged], of: Settings) -> None:
    engine.apply([decode_events(log, 0, of.admission).events])
    engine.statistics_buffer.flush()


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """A version that counts by OWN."""
    return random_version(tmp_path, half_lives_ms=OWN)


@pytest.fixture
def wider_version(tmp_path: Path) -> Version:
    """The same version, but for counting by WIDER."""
    return random_version(tmp_path, half_lives_ms=WIDER)


def with_owner(version: Version, work: Callable[[Worker], Awaitable[None]], **chosen: object) -> None:
    """Do the work with a worker that owns partition 0, on its event loop."""

    async def run() -> None:
        worker = new_worker(Settings(partitions=1).model_copy(update=chosen), version)
        producer: Any = StubProducer()
        worker.partitions.tasks[0] = PartitionTask(0, producer, Journal(0, -1, -1), 1, changelog_end=0)
        try:
            await work(worker)
        finally:
            worker._thread.close()

    asyncio.run(run())


Read = Callable[[Settings, str, int, int, int, Take], Awaitable[None]]


def reads(log: Sequence[Logged], meanwhile: Callable[[], None] = lambda: None) -> Read:
    """A `read_since` that gives the records in two pieces, between which something happens."""

    async def read(_: Settings, __: str, partition: int, since: int, end: int, take: Take) -> None:
        wanted = [record for record in log[:end] if record.timestamp >= since]
        for piece in (wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]):
            await take(TopicPartition("events", partition), piece)
            meanwhile()

    return read


async def filled(worker: Worker) -> None:
    """Let the worker fill in what its partitions lack."""
    fill = worker._statistics_fill
    running = asyncio.create_task(fill.run())
    await fill.until_filled(LiveShares.whole(worker.partitions.engine.newest.live))
    running.cancel()


def popularity(engine: Engine, half_lives_ms: Sequence[int]) -> np.ndarray:
    engine.statistics_buffer.flush()
    now = float(engine.clock.now(0))
    index = engine.names.catalogue.find(item_hashes([item_id(i) for i in range(ITEMS)]))
    return engine.statistics.popularity(len(engine.names.catalogue), now, half_lives_ms)[:, index]


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), cuts=st.tuples(*[st.integers(0, 120)] * 3))
def test_what_is_filled_in_equals_what_a_worker_counts_that_began_with_the_version(
    version: Version,
    wider_version: Version,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    cuts: tuple[int, ...],
) -> None:
    log, (before, during, until) = log_of(seed, 121), sorted(cuts)
    from_the_start = new_engine(wider_version)

    async def run(worker: Worker) -> None:
        engine, rest = worker.partitions.engine, [log[before:during], log[during:until], log[until:]]

        def meanwhile() -> None:
            apply(engine, rest.pop(0), worker.settings)

        apply(engine, log[:before], worker.settings)
        engine.statistics.widen(WIDER, SUCCESSORS)
        monkeypatch.setattr(statistics_fill, "read_since", reads(log, meanwhile))
        await filled(worker)
        while rest:
            meanwhile()
        apply(from_the_start, log, worker.settings)
        assert engine.statistics.lacking(0) == ()
        np.testing.assert_allclose(
            popularity(engine, WIDER), popularity(from_the_start, WIDER), rtol=1e-6, atol=1e-8
        )

    with_owner(version, run)


@pytest.mark.parametrize(("half_lives_ms", "successors"), [(WIDER, SUCCESSORS), (OWN, 2 * SUCCESSORS)])
def test_the_owner_writes_its_statistics_whole_once_they_are_wider(
    version: Version, monkeypatch: pytest.MonkeyPatch, half_lives_ms: tuple[int, ...], successors: int
) -> None:
    async def run(worker: Worker) -> None:
        log = log_of(1, 60)
        monkeypatch.setattr(statistics_fill, "read_since", reads(log))
        engine, task = worker.partitions.engine, worker.partitions.tasks[0]
        apply(engine, log, worker.settings)
        task.mark_committed(task.capture(engine, bytes(16)), committed=True)
        task.mark_committed(task.capture(engine, bytes(16)), committed=True)
        before = task.pending
        engine.statistics.widen(half_lives_ms, successors)
        await worker._statistics_fill._widen(0)
        assert (before, task.pending) == (False, True)
        ((key, value),) = task.capture(engine, bytes(16)).statistics()
        follower = StatisticsReader(Statistics(half_lives_ms, successors), Catalogue())
        assert follower.apply_records(0, [(key, value)]) == []
        assert follower.statistics.lacking(0) == ()
        assert not follower.statistics.lacks_successors(0)

    with_owner(version, run)


def test_a_partition_that_moves_on_the_way_keeps_lacking_what_was_not_filled_in(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(worker: Worker) -> None:
        log = log_of(2, 60)
        engine = worker.partitions.engine
        apply(engine, log, worker.settings)
        engine.statistics.widen(WIDER, SUCCESSORS)

        def lose_it() -> None:
            engine.statistics_buffer.forget_partition(0)

        monkeypatch.setattr(statistics_fill, "read_since", reads(log, lose_it))
        await worker._statistics_fill._widen(0)
        assert engine.statistics.lacking(0) == WIDER[1:]
        assert not worker.partitions.tasks[0]._rewrites

    with_owner(version, run)


def test_a_version_goes_live_with_a_warning_when_the_log_cannot_be_read_and_is_filled_in_when_it_can(
    version: Version, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(worker: Worker) -> None:
        log = log_of(3, 60)
        engine = worker.partitions.engine
        apply(engine, log, worker.settings)
        engine.statistics.widen(WIDER, SUCCESSORS)

        async def away(*_: object) -> None:
            raise KafkaConnectionError

        monkeypatch.setattr(statistics_fill, "read_since", away)
        monkeypatch.setattr(statistics_fill, "LOOK_S", 0.01)
        fill = worker._statistics_fill
        running = asyncio.create_task(fill.run())
        await fill.until_filled(LiveShares.whole(new_live_version(engine, version, 2)))
        assert engine.statistics.lacking(0) == WIDER[1:]
        monkeypatch.setattr(statistics_fill, "read_since", reads(log))
        async with asyncio.timeout(30), fill._looked:
            await fill._looked.wait_for(lambda: not engine.statistics.lacking(0))
        running.cancel()

    caplog.set_level(logging.WARNING, "eddy.worker")
    with_owner(version, run, stall_s=0.1)
    assert caplog.text.count("`events` cannot be read") == 1
    assert caplog.text.count("epoch 2: version") == 1
    assert "partitions [0] are not filled in after 0.05 s" in caplog.text


def test_the_version_before_stays_live_until_the_statistics_are_filled_in(
    version: Version, wider_version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(worker: Worker) -> None:
        log, reading, may_end = log_of(4, 60), asyncio.Event(), asyncio.Event()
        engine = worker.partitions.engine

        async def read(*arguments: Any) -> None:
            reading.set()
            await may_end.wait()
            await reads(log)(*arguments)

        monkeypatch.setattr(statistics_fill, "read_since", read)
        apply(engine, log, worker.settings)
        engine.statistics.widen(WIDER, SUCCESSORS)
        filling = asyncio.create_task(worker._statistics_fill.run())
        switching = asyncio.create_task(
            worker._switch_version(LiveShares.whole(new_live_version(engine, wider_version, 2)))
        )
        await reading.wait()
        apply(engine, log[-1:], worker.settings)  # events go on
        assert engine.newest.live.epoch == 1
        may_end.set()
        await switching
        assert (engine.newest.live.epoch, engine.statistics.lacking(0)) == (2, ())
        filling.cancel()

    with_owner(version, run)
