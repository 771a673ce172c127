"""The watcher on a real broker that goes away, and on a topic that holds more than workers write."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from kafka import KafkaProducer

from eddy.models.decisions import read_decisions
from eddy.stream.canary import watch as watching
from eddy.stream.canary.trial import Limit
from eddy.stream.canary.watch import watch_canary
from eddy.stream.kafka import clients
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.live_ranks import read_live_ranks
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce, announce_shares, live_announcement
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.messages import Message
from eddy.stream.records.rank_counts import RankedBy, Told, encode_ranks
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.records.worker_reports import encode_report
from tests.support.engines import random_version
from tests.support.waiting import eventually
from tests.unit.canary.ranks import CANARY, LIVE, told

LIMIT = Limit(events=20_000)


def messages(records: Iterable[Told], ids: dict[str, str]) -> list[Message]:
    """The records of these versions, as a worker would write them."""
    return [
        encode_ranks(
            record.instance,
            record.interval,
            {RankedBy(by.epoch, ids[by.version]): sums for by, sums in record.sums.items()},
        )
        for record in records
    ]


def write(settings: Settings, records: Iterable[Message]) -> None:
    producer = KafkaProducer(**client_config(settings), acks="all")
    for key, value in records:
        producer.send(settings.topics.metrics, key=key, value=value).get(timeout=60)
    producer.close()


def impatient(settings: Settings) -> dict[str, Any]:
    """Of a client that does not wait half a minute for an answer."""
    return {**client_config(settings), "request_timeout_ms": 2_000}


def test_each_interval_counts_once_and_what_no_worker_wrote_does_not(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_topics(settings)
    ids = {LIVE: LIVE, CANARY: CANARY}
    first, second = (messages(told(seed, 1_000, live=0.3, canary=0.3), ids) for seed in (1, 2))
    hostile: list[Message] = [(b"live", b"{}"), (first[0][0], b"\xff"), (b"x:1", first[0][1]), (b"x:1", None)]
    report = encode_report("a worker", None)  # of which nothing is said: it is somebody else's to read
    write(settings, [first[0], report, *hostile, *first, *second, first[-1]])
    read = read_live_ranks(settings)
    expected = [
        sum(record.sums[by][0].sum() for seed in (1, 2) for record in told(seed, 1_000, live=0.3, canary=0.3))
        for by in read.by
    ]
    assert read.of("events").sum(axis=1).tolist() == expected
    warned = [line for line in caplog.records if line.name == "eddy.metrics"]
    assert len(warned) == len(hostile), "one line for each"
    assert read_live_ranks(settings, since_ms=2**42).by == []


def test_a_broker_that_is_away_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("LOOK_S", "RETRY_S"):
        monkeypatch.setattr(watching, name, 0.2)
    monkeypatch.setattr(clients, "client_config", impatient)
    caplog.set_level(logging.WARNING, "eddy.watch")
    with LocalBroker() as broker, ThreadPoolExecutor(1) as pool:
        settings = load_settings(bootstrap_servers=broker.bootstrap_servers, registry=tmp_path / "registry")
        prepare_topics(settings)
        live, canary = (random_version(settings.registry, seed=seed) for seed in range(2))
        announce(settings, live)
        epoch = announce_shares(settings, [(live, 90), (canary, 10)]).epoch
        ids = {LIVE: live.id, CANARY: canary.id}
        records = messages(told(1, 10_000, epoch=epoch, live=0.3, canary=0.1), ids)
        stop = Event()
        try:
            watching_it = pool.submit(watch_canary, settings, epoch, LIMIT, stop)
            eventually(lambda: read_decisions(settings.registry), what="it has begun")
            write(settings, records[:1])
            broker.kill()
            eventually(lambda: "cannot be used" in caplog.text, 90, "the broker is missed")
            assert not watching_it.done()
            broker.restart()
            write(settings, records)
            decision = watching_it.result(90)
        finally:
            stop.set()
        assert decision is not None
        assert (decision.kind, decision.version) == ("taken back", canary.id)
        assert [each.kind for each in read_decisions(settings.registry)] == ["canary began", "taken back"]
        announced = live_announcement(settings)
        assert announced is not None
        assert (announced.epoch, announced.version) == (epoch + 1, live.id)
