"""Event types: any number of them, each itself; what nobody named is unknown, whatever its name."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models import hashing, vocabulary
from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.hashing import type_hash, type_hashes
from eddy.models.logs.events import read_events
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.models.training import train
from eddy.models.vocabulary import MAX_TYPES, Catalogue, EventTypes, Vocabulary
from eddy.stream.state.rows import decode_rows, encode_rows
from tests.support.engines import (
    Happening,
    assert_same_rows,
    batch,
    item_id,
    new_engine,
    random_version,
    reencode_all,
    stored_rows,
    switch,
)
from tests.support.oracle import Oracle

pytestmark = pytest.mark.unit

START = 1_300_000_000_000
NAMES = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1), max_size=30)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("registry"))


@given(batches=st.lists(NAMES, max_size=5), named=NAMES)
def test_each_name_has_a_number_that_never_changes_and_no_other_name_has(
    batches: list[list[str]], named: list[str]
) -> None:
    types, number_of = EventTypes(), dict[str, int]()
    for names, give in [*((names, types.add) for names in batches), (named, None)]:
        numbers = types.name(names) if give is None else give(type_hashes(names))
        for name, number in zip(names, numbers.tolist(), strict=True):
            assert number_of.setdefault(name, number) == number
    assert len(set(number_of.values())) == len(number_of)
    assert 0 not in number_of.values(), "0 is no type"
    for name, number in number_of.items():
        assert types.hashes[number] == type_hash(name)


def random_hashes(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(1, 2**64 - 1, n, np.uint64)


def test_beyond_the_limit_types_of_events_are_one_that_is_no_named_one_and_versions_find_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vocabulary, "MAX_TYPES_OF_EVENTS", 100)
    types, hashes = EventTypes(), random_hashes(150)
    with caplog.at_level(logging.WARNING):
        numbers = np.concatenate([types.add(hashes[:60]), types.add(hashes[60:])])
        assert (types.add(hashes) == numbers).all()
    assert numbers.tolist() == [*range(1, 100), *([0] * 51)]
    assert len(types) == 100
    assert caplog.text.count("is an id in event_type?") == 1
    assert types.name(["view", "buy"]).min() >= 100
    assert (types.add(type_hashes(["buy", "view"])) == types.name(["buy", "view"])).all()


def test_more_named_types_than_there_are_numbers_are_refused() -> None:
    types = EventTypes()
    types.name([f"name-{i}" for i in range(MAX_TYPES - 1)])
    with pytest.raises(EddyError, match="no room for 1 more event types beside 65536 others"):
        types.name(["one more"])


def colliding(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let names that no other test uses have one hash."""
    before = hashing._xxh3
    monkeypatch.setattr(hashing, "_xxh3", lambda text: before("the same" if text in names else text))


def test_two_names_with_one_hash_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    colliding(monkeypatch, "collides", "collides too")
    with pytest.raises(EddyError, match="event types: 'collides' and 'collides too' have the same 64-bit"):
        Vocabulary([], ["view", "collides", "buy", "collides too"], 1)
    with pytest.raises(EddyError, match="items: 'collides' and 'collides too' have the same 64-bit hash"):
        Vocabulary(["collides", "a", "collides too"], [], 1)
    types = EventTypes()
    types.name(["view", "collides"])
    with pytest.raises(EddyError, match="'collides too' and 'collides' have the same 64-bit hash"):
        types.name(["collides too"])


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(EddyError, match="event types: 'view' is there twice"):
        Vocabulary([], ["view", "buy", "view"], 1)


def test_an_unknown_type_inherits_no_rule_whatever_its_name(version: Version) -> None:
    assert "dislike" in version.rules.negative
    engine = new_engine(version)
    kinds = ["page_1", "page_31292", "dislike"]
    engine.apply(
        [batch([Happening(f"u-{kind}", item_id(3), START, kind) for kind in kinds], range(len(kinds)))]
    )
    rows = stored_rows(engine)
    states = dict(zip(rows.user, rows.hidden, strict=True))
    np.testing.assert_array_equal(states[b"u-page_1"], states[b"u-page_31292"])
    assert not np.array_equal(states[b"u-page_1"], states[b"u-dislike"])
    (flags,) = [engine.newest.live.flags(engine.newest.slab.type[:3, 0], np.zeros(3, np.float16))]
    assert dict(zip(kinds, flags.negative.tolist(), strict=True)) == {
        "page_1": False,
        "page_31292": False,
        "dislike": True,
    }


def test_thousands_of_types_move_and_store_rows_as_a_plain_program_would(version: Version) -> None:
    rng = np.random.default_rng(0)
    kinds = [*(f"page_{i}" for i in range(2_000)), "view", "rating", "page_31292", "dislike"]
    sent = [
        Happening(f"u-{rng.integers(40)}", item_id(int(rng.integers(230))), START + i, kinds[i % len(kinds)])
        for i in range(2 * len(kinds))
    ]
    oracle = Oracle(version)
    for offset, event in enumerate(sent):
        oracle.apply(event, offset)
    engine, half = new_engine(version), len(sent) // 2
    engine.apply([batch(sent[:half], range(half))])
    stored = stored_rows(engine)
    other = new_engine(version)  # meets the types in another order, so that their numbers are others
    other.names.catalogue.types.add(type_hashes(kinds[::-1]))
    for rows in decode_rows(stored.user, encode_rows(stored)):
        other.load_rows(rows)
    for each in (engine, other):
        each.apply([batch(sent[half:], range(half, len(sent)))])
        assert_same_rows(stored_rows(each), oracle.rows())
    assert encode_rows(stored_rows(other)) == encode_rows(stored_rows(engine))


def test_an_engine_that_has_met_more_types_than_it_can_number_treats_the_others_as_unknown(
    monkeypatch: pytest.MonkeyPatch, version: Version
) -> None:
    monkeypatch.setattr(vocabulary, "MAX_TYPES_OF_EVENTS", 20)
    engine, free = new_engine(version), new_engine(version)
    for each in (engine, free):
        happenings = [Happening("u", item_id(i), START + i, f"random-{i}") for i in range(60)]
        if each is free:
            happenings = [Happening("u", one.item, one.time, "unknown") for one in happenings]
        each.apply([batch(happenings, range(60))])
    assert len(engine.names.catalogue.types) == 20
    np.testing.assert_array_equal(stored_rows(engine).hidden, stored_rows(free).hidden)


def test_a_type_that_a_later_version_names_is_known_to_it_in_rows_that_are_there(
    version: Version, tmp_path: Path
) -> None:
    later = random_version(tmp_path)
    later.vocabulary.types[:] = ["rating", "page_5"]
    engine = new_engine(version)
    sent = [Happening("u", item_id(i), START + i, f"page_{i % 7}") for i in range(20)]
    engine.apply([batch(sent, range(20))])
    switch(engine, later, 2)
    reencode_all(engine)
    fresh = new_engine(later, epoch=2)
    fresh.apply([batch(sent, range(20))])
    np.testing.assert_allclose(stored_rows(engine).hidden, stored_rows(fresh).hidden, atol=2e-5)


# -- training ---------------------------------------------------------------------------------------------


def log_with(folder: Path, types: list[str], events: int) -> Path:
    numbers = np.arange(events)
    columns = {
        "user_id": [f"u{n % 40}" for n in numbers],
        "item_id": [f"i{(n % 40 + n // 40) % 30}" for n in numbers],
        "timestamp": START + 60_000 * numbers,
        "event_type": [types[n % len(types)] for n in numbers],
    }
    file = folder / "events.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def test_a_log_with_thousands_of_types_trains_and_the_version_knows_each_of_them(tmp_path: Path) -> None:
    types = [*(f"page_{i}" for i in range(2_000)), "view", "dislike", "page_31292"]
    config = ModelConfig(hidden=8, dim=8, item_buckets=4, recent_window=10, transition_lags=3)
    short = TrainConfig(epochs=1, batch=4, bptt_steps=8, gate_epochs=1, threads=1)
    events = read_events(log_with(tmp_path, types, 3_000))
    version = publish(tmp_path / "registry", train.train(events, config, short, EventRules()), {})
    assert sorted(version.vocabulary.types) == sorted(types)
    index = version.vocabulary.type_index(type_hashes(types))
    assert [version.vocabulary.types[i] for i in index] == types
    unknown = version.vocabulary.type_index(type_hashes(["page_2000", "Dislike"]))
    assert unknown.tolist() == [len(types)] * 2
    assert new_engine(version).newest.live.tables.type_input.max() == len(types)


def test_of_more_types_than_a_version_can_know_it_knows_the_most_frequent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "MAX_VOCABULARY_TYPES", 3)
    types = ["view"] * 10 + ["buy"] * 5 + ["like"] * 3 + ["once"] + ["never again"]
    events = read_events(log_with(tmp_path, types, len(types) * 10))
    known, _ = train.vocabulary_of(events, ModelConfig(), EventRules())
    assert known.types == ["view", "buy", "like"]


def test_a_log_can_have_more_types_than_16_bits_count(tmp_path: Path) -> None:
    types = [f"random-{i}" for i in range(70_000)]
    events = read_events(log_with(tmp_path, types, len(types)))
    assert [events.types[i] for i in events.type[-3:]] == types[-3:]


def test_catalogues_count_types_apart() -> None:
    first, second = Catalogue(), Catalogue()
    first.types.add(type_hashes(["view"]))
    assert (len(first.types), len(second.types)) == (2, 1)
