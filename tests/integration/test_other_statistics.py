"""A version that counts item statistics in other ways goes live while workers go on answering."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from eddy.models.config import DAY_MS, HOUR_MS
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.kafka.versions import announce
from eddy.stream.state.item_statistics import StatisticsReader
from tests.chaos.traffic import START_MS
from tests.chaos.verify import WALL_MS, Verdict, undisturbed
from tests.support.engines import item_id, random_version
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually

USERS, ITEMS = 20, 60
OTHER = (HOUR_MS, 3 * DAY_MS, 100 * DAY_MS)  # the first one is also of the default version
SUCCESSORS = 24


def events(first: int, n: int) -> Iterator[tuple[bytes, bytes]]:
    """Events first … first + n - 1 of a log without repeats, two minutes apart."""
    rng = np.random.default_rng(first)
    for number in range(first, first + n):
        user, item = f"user-{rng.integers(USERS)}", item_id(int(rng.integers(ITEMS)))
        event = {"user_id": user, "item_id": item, "timestamp": START_MS + number * 120_000}
        yield user.encode(), json.dumps(event).encode()


def statistics_on_kafka(stage: Stage, half_lives_ms: tuple[int, ...]) -> tuple[Statistics, Catalogue]:
    """What a server that is at a version with these half-lives reads."""
    catalogue = Catalogue()
    reader = StatisticsReader(Statistics(half_lives_ms, SUCCESSORS), catalogue)
    for record in stage.cluster.read(stage.settings.topics.item_stats, stage.settings.partitions):
        assert reader.apply_records(record.partition, [(record.key, record.value)]) == []
    return reader.statistics, catalogue


def test_a_version_with_other_half_lives_and_more_successors_goes_live_under_way(stage: Stage) -> None:
    # 1. A worker counts for the first version, and goes on while the other one is announced.
    worker = stage.fleet.start()
    stage.send(events(0, 1500))
    stage.await_end()
    other = random_version(stage.settings.registry, half_lives_ms=OTHER, successors=SUCCESSORS, seed=1)
    announce(stage.settings, other)
    sent = 1500
    while worker.metrics()["eddy_epoch"] != 2:
        assert sent < 100_000, worker.log().decode()
        stage.send(events(sent, 100))
        sent += 100
    stage.send(events(sent, 500))
    stage.await_end()
    # 2. Another worker joins, finds all that it needs on `item-stats`, and fills in nothing.
    joined = stage.fleet.start()
    eventually(lambda: b"rows from the changelog" in joined.log(), PATIENCE_S, "it owns a partition")
    stage.send(events(sent + 500, 500))
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert worker.log().count(b"item statistics by 2 more half-lives") == 2
    assert b"more half-lives" not in joined.log()

    # 3. By the new half-lives everybody counts what a worker would that began with the version.
    expected = undisturbed(stage.cluster, other, 2, Verdict()).engine
    expected.statistics_buffer.flush()
    hashes, now = expected.names.catalogue.hashes, float(expected.clock.now(WALL_MS))
    found, catalogue = statistics_on_kafka(stage, OTHER)
    assert [found.lacking(partition) for partition in range(2)] == [(), ()]
    assert {part.successors for part in found.partitions.values()} == {SUCCESSORS}
    index = catalogue.add(hashes)
    popularity = found.popularity(len(catalogue), now, OTHER)[:, index]
    np.testing.assert_allclose(
        popularity, expected.statistics.popularity(len(hashes), now, OTHER), rtol=1e-6, atol=1e-8
    )
    assert popularity.sum() > 0
    # 4. Answers came from both versions, for every user's last event.
    answers = [
        json.loads(record.value)
        for record in stage.cluster.read(stage.settings.topics.recommendations, stage.settings.partitions)
    ]
    assert {answer["epoch"] for answer in answers} == {1, 2}
    newest = {answer["user_id"]: answer["offset"] for answer in answers}
    slab = expected.newest.slab
    offsets = {user: int(slab.offset[slot]) for user, slot in slab.slot_of.items()}
    assert newest == offsets
