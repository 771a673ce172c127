"""What earlier releases stored stays readable, and means what it meant: the folders of tests/golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eddy.models.hashing import item_hash
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.kafka.versions import decode_announcement
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import FORMAT, Rows, decode_rows, encode_rows
from eddy.stream.state.snapshots import open_snapshot
from tests.golden.state import (
    LATER,
    POSITION,
    journal_records,
    read_json,
    read_version,
    releases,
    run_engine,
)
from tests.support.engines import TOPIC_ID, assert_same_rows, stored_rows

pytestmark = pytest.mark.unit


@pytest.fixture(params=releases(), ids=lambda folder: str(folder.name))
def release(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def read_records(release: Path, name: str) -> list[tuple[bytes, bytes]]:
    return [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in read_json(release, name)]


def read_rows(release: Path) -> Rows:
    users, values = zip(*read_records(release, "rows"), strict=True)
    (rows,) = decode_rows(users, values)
    return rows


def test_a_version_loads_and_knows_its_items(release: Path) -> None:
    version = read_version(release)
    assert version.recommender.config.hidden == 8
    assert len(version.vocabulary) == 40
    assert version.vocabulary.types == ["view", "rating"]


def test_rows_are_those_that_the_same_events_give_today(release: Path) -> None:
    rows = read_rows(release)
    assert_same_rows(rows, stored_rows(run_engine(release)))
    assert (rows.anchor_time >= 0).any(), "some rows have an anchor"
    assert (rows.older != 0).any(), "and older items"


def test_a_format_s_bytes_do_not_change_without_its_number(release: Path) -> None:
    values = [value for _, value in read_records(release, "rows")]
    if {value[2] for value in values} == {FORMAT}:
        assert encode_rows(read_rows(release)) == values


def test_a_snapshot_holds_the_same_rows(release: Path) -> None:
    with open_snapshot(release / "snapshot", TOPIC_ID, 10**15) as snapshot:
        assert snapshot.position == POSITION
        ((rows, _),) = snapshot.blocks()
    assert_same_rows(rows, read_rows(release))


def test_item_statistics_add_up_to_what_the_same_events_give_today(release: Path) -> None:
    config = read_version(release).recommender.config
    reader = StatisticsReader(Statistics(config.half_lives_ms, config.successors), Catalogue())
    assert reader.apply_records(0, read_records(release, "item-stats")) == []
    engine = run_engine(release)
    journal_records(engine)
    found = reader.statistics.export_partition(0, reader.catalogue.hashes)
    expected = engine.statistics.export_partition(0, engine.names.catalogue.hashes)
    order, expected_order = np.argsort(found["item"]), np.argsort(expected["item"])
    np.testing.assert_array_equal(found["item"][order], expected["item"][expected_order])
    np.testing.assert_allclose(
        found["popularity"][:, order], expected["popularity"][:, expected_order], rtol=1e-6
    )
    assert reader.offset[0] == LATER.offset


def test_an_announcement_names_its_version(release: Path) -> None:
    announcement = decode_announcement((release / "announcement.json").read_bytes())
    version = read_version(release)
    assert (announcement.epoch, announcement.version) == (1, version.id)
    assert (read_rows(release).version == item_hash(version.id)).all()
