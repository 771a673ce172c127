"""Metadata: what features an item has, what is learned from them, and that new items are scored by them."""

import asyncio
import datetime
import decimal
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from aiokafka import TopicPartition

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.hashing import feature_hash, item_hash, item_hashes
from eddy.models.logs.events import Events, read_items
from eddy.models.logs.item_features import (
    MAX_FEATURES,
    MIN_ITEMS,
    NONE,
    ItemFeatures,
    bags,
    features_of,
    read_features,
    worth_knowing,
)
from eddy.models.registry import load, publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.scorer import Scorer
from eddy.models.storage import located
from eddy.models.tensors import Inputs, Window
from eddy.models.trained import Trained
from eddy.models.training.train import train
from eddy.models.vocabulary import Catalogue
from eddy.serving.view import MaterialisedView
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_records
from eddy.stream.state.item_names import metadata
from eddy.stream.worker.followed_topics import FollowedTopics
from tests.support.records import Record
from tests.support.training import same
from tests.support.versions import edit_description
from tests.support.views import put_version

pytestmark = pytest.mark.unit

SMALL = ModelConfig(
    hidden=16, dim=16, dropout=0.0, item_buckets=4, half_lives_ms=(), pointer=False, transition_lags=0
)
FAST = TrainConfig(
    epochs=15, patience=15, batch=4, bptt_steps=8, threads=1, learning_rate=0.01, gate_epochs=2
)
KINDS, ITEMS = 3, 60


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({"title": "The  Star (1977)"}, ["title=the  star (1977)", "title=the", "title=star", "title=1977"]),
        ({"genres": "Drama| War|"}, ["genres=drama", "genres=war"]),
        ({"genres": ["Drama", "War", None]}, ["genres=drama", "genres=war"]),
        ({"year": 1999, "new": True, "price": 1.5}, ["year=1999", "new=1", "price=1.5"]),
        ({"item_id": "a", "nothing": None, "nan": float("nan"), "deep": {"a": 1}, "empty": ""}, []),
    ],
)
def test_fields_become_hashed_features(fields: Mapping[str, object], features: list[str]) -> None:
    assert features_of(fields).tolist() == [feature_hash(name) for name in features]


def test_an_item_has_a_bounded_number_of_features() -> None:
    assert len(features_of({"text": " ".join(map(str, range(10_000)))})) == MAX_FEATURES
    assert len(features_of({f"f{n}": n for n in range(10_000)})) < MAX_FEATURES


def test_a_version_knows_the_features_that_several_of_its_items_share() -> None:
    often, rare = feature_hash("often"), feature_hash("rare")
    of_items = [np.array([often] if n else [often, rare], np.uint64) for n in range(MIN_ITEMS)]
    assert worth_knowing(of_items) == [often]
    known_bags = bags([*of_items[:2], np.array([rare], np.uint64)], {often: 0})
    assert known_bags.start.tolist() == [0, 1, 2]
    assert known_bags.feature.tolist() == [0, 0]


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_an_items_file_of_any_columns_is_read(tmp_path: Path) -> None:
    features = read_features(write(tmp_path / "a.parquet", item_id=[7, 8, 7], brand=["X", None, "Y"]))
    assert [of_item.tolist() for of_item in features.of(item_hashes(["7", "8", "9"]))] == [
        features_of({"brand": "Y"}).tolist(), [], [],
    ]  # fmt: skip


def test_columns_without_a_name_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,,\na,A,x,y\n")
    assert read_items(path).title == {"a": "A"}
    assert len(read_features(path)) == 1


def test_genres_are_texts_whatever_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    genres = ['"x|y"', '["x", 1, null]', "5", "null"]
    path.write_text("".join(f'{{"item_id": {n}, "genres": {each}}}\n' for n, each in enumerate(genres)))
    assert list(read_items(path).genres.values()) == [["x", "y"], ["x", "1"], ["5"], []]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["a"]}, "no column item_id"),
        ({"item_id": ["a"]}, "nothing beside item_id"),
        (
            {"item_id": ["a"], "x": [{"y": 1}]},
            "nothing beside item_id that gives features: column x is struct",
        ),
        ({"item_id": ["a"], "available": [False]}, "nothing beside item_id"),
        ({"item_id": [None], "x": [1]}, "row 1: item_id is empty"),
    ],
)
def test_an_items_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(EddyError, match=message) as caught:
        read_features(write(tmp_path / "items.parquet", **columns))
    assert "\n" not in str(caught.value)


ITEM = {
    "item_id": "a", "title": "Heat 1995", "code": "007", "genres": "Drama|War", "year": 1995, "price": 9.5,
    "number": 12345678, "released": "1995-12-01", "added": "2020-01-02 12:00:00",
}  # fmt: skip


def test_an_item_has_the_same_features_in_every_format_whatever_the_types_of_its_columns(
    tmp_path: Path,
) -> None:
    typed = {
        **{name: [value] for name, value in ITEM.items()},
        "year": pa.array([1995.0]),
        "price": pa.array([decimal.Decimal("9.50")]),
        "number": pa.array([12345678], pa.int32()),
        "released": pa.array([datetime.date(1995, 12, 1)]),
        "added": pa.array([datetime.datetime(2020, 1, 2, 12)], pa.timestamp("ns", "UTC")),
        "genres": pa.array(["Drama|War"]).dictionary_encode(),
    }
    write(tmp_path / "a.parquet", **typed)
    (tmp_path / "a.jsonl").write_text(json.dumps(ITEM))
    (tmp_path / "a.csv").write_text(",".join(ITEM) + "\n" + ",".join(map(str, ITEM.values())))
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        features = read_features(tmp_path / name).of(item_hashes(["a"]))[0]
        assert set(features.tolist()) == set(features_of(ITEM).tolist()), name


def test_a_release_date_is_a_feature_by_its_year_too(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", item_id=["a"], released=[datetime.date(1995, 12, 1)])
    features = read_features(file).of(item_hashes(["a"]))[0].tolist()
    assert {feature_hash("released=1995-12-01"), feature_hash("released=1995")} <= set(features)


def test_values_of_folders_names_are_features_too(tmp_path: Path) -> None:
    (tmp_path / "kind=Film").mkdir()
    write(tmp_path / "kind=Film" / "a.parquet", item_id=["a"])
    assert read_features(tmp_path).of(item_hashes(["a"]))[0].tolist() == [feature_hash("kind=film")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[0.1, 0.2]], pa.list_(pa.float32(), 2)),
        pa.array([{"y": 1}]),
        pa.array([[{"y": 1}]]),
        pa.array([datetime.timedelta(1)]),
        pa.array([b"\x01\x02"], pa.binary(2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_gives_no_features_is_left_out_by_name(
    tmp_path: Path, column: pa.Array, caplog: pytest.LogCaptureFixture
) -> None:
    features = read_features(write(tmp_path / "a.parquet", item_id=["a"], title=["Heat"], odd=column))
    assert features.of(item_hashes(["a"]))[0].tolist() == [feature_hash("title=heat")]
    assert "column odd is" in caplog.text


def test_numbers_of_many_digits_are_told_apart() -> None:
    assert features_of({"x": 12345678}).tolist() != features_of({"x": 12345679}).tolist()
    assert features_of({"x": float("1e19")}).tolist() == features_of({"x": 10**19}).tolist()


def test_a_truncated_items_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "items.parquet", item_id=["a"], x=[1])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(EddyError, match="cannot be read"):
        read_features(file)


def kinds_log() -> Events:
    """Users who take, after an item of one kind, any item of the next kind; each item is of one kind."""
    rng = np.random.default_rng(1)
    user = np.tile(np.arange(30), 40)
    kind = (user + np.repeat(np.arange(40), 30)) % KINDS
    item = rng.integers(ITEMS // KINDS, size=len(user)) * KINDS + kind
    n = len(user)
    return Events(
        user=user.astype(np.int32), item=item.astype(np.int32),
        timestamp=np.arange(n) * 60_000 + 1_370_000_000_000, type=np.zeros(n, np.int16),
        value=np.full(n, np.nan, np.float32), users=[f"u{i}" for i in range(30)],
        items=[f"i{i}" for i in range(ITEMS)], types=["rating"],
    )  # fmt: skip


def kinds(items: int = ITEMS) -> ItemFeatures:
    features = ItemFeatures()
    for number in range(items):
        features.put(item_hash(f"i{number}"), features_of({"kind": f"k{number % KINDS}"}))
    return features


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(kinds_log(), SMALL, FAST, EVERY_EVENT, features=kinds(ITEMS + KINDS))


def scores_after(model: Trained, kind: int, catalogue: Catalogue) -> torch.Tensor:
    """Scores of the catalogue's items after an item of this kind."""
    scorer = Scorer(model.recommender, model.vocabulary, catalogue, Statistics((), 8))
    scorer.update_statistics(0.0)
    return scores_by(scorer, kind)


def scores_by(scorer: Scorer, kind: int) -> torch.Tensor:
    model = scorer.recommender
    with torch.inference_mode():
        index = torch.from_numpy(scorer.vocabulary.input_index(item_hashes([f"i{kind}"])))
        event = Inputs(index, torch.zeros(1, dtype=torch.int64), torch.tensor([False]), torch.tensor([-1]))
        query = model.query(model.step(event, model.initial(1)), torch.tensor([60_000]))
        none = torch.full((1, model.config.recent_window), -1)
        nothing = torch.zeros(1, dtype=torch.int64)
        window = Window(none, none, none.clamp(min=0), none > 0, nothing, none[:, :0])
        return scorer.scores(query, window)[0].clone()


@pytest.mark.parametrize("kind", range(KINDS))
def test_an_item_that_nobody_ever_touched_is_scored_by_its_metadata(trained: Trained, kind: int) -> None:
    new = [f"i{ITEMS + number}" for number in range(KINDS)]
    catalogue = Catalogue(item_hashes(new), trained.features)
    assert int(scores_after(trained, kind, catalogue).argmax()) == (kind + 1) % KINDS
    without = scores_after(trained, kind, Catalogue(item_hashes(new)))
    assert (without == without[0]).all()  # all the same as long as nothing is known of them


def test_metadata_that_comes_later_changes_the_scores_at_once(trained: Trained) -> None:
    catalogue = Catalogue(item_hashes(["i0", "new", "newer"]), ItemFeatures())
    scorer = Scorer(trained.recommender, trained.vocabulary, catalogue, Statistics((), 8))
    scorer.update_statistics(0.0)
    before = scores_by(scorer, 0)
    assert before[1] == before[2]
    catalogue.features.put(item_hash("i0"), features_of({"kind": "k1"}))  # known: it has its own vector
    catalogue.features.put(item_hash("newer"), features_of({"kind": "k1"}))
    scorer.update_statistics(1.0)
    after = scores_by(scorer, 0)
    assert after[2] > before[2]
    torch.testing.assert_close(after[:2], before[:2])


def test_a_version_keeps_what_it_learned_of_metadata(trained: Trained, tmp_path: Path) -> None:
    found = load(publish(tmp_path, trained, {}).path)
    catalogue = Catalogue(item_hashes([f"i{number}" for number in range(ITEMS + KINDS)]), found.features)
    loaded = replace(trained, recommender=found.recommender, vocabulary=found.vocabulary)
    expected = scores_after(trained, 1, Catalogue(catalogue.hashes, trained.features))
    torch.testing.assert_close(scores_after(loaded, 1, catalogue), expected)


def test_metadata_on_the_topic_scores_a_new_item_until_it_is_removed(
    trained: Trained, tmp_path: Path
) -> None:
    view = MaterialisedView(lambda: 0)
    view.take_items([(b"a", b'{"item_id": "a", "kind": "k1"}'), (b"b", b'{"item_id": "b", "kind": 7}')])
    put_version(view, publish(tmp_path, trained, {}), 1)
    ranker = view.newest
    assert ranker is not None

    def scores(*items: str) -> list[float]:
        index = view.names.number_items(items)
        ranker.scorer.update_statistics(0.0)
        return scores_by(ranker.scorer, 0)[index].tolist()

    view.take_items([(b"c", b'{"item_id": "c", "kind": "k1", "title": "C", "genres": []}'), (b"d", b"{")])
    in_time, unknown, late, as_trained = scores("a", "b", "c", f"i{ITEMS + 1}")
    assert in_time == late == as_trained > unknown
    view.take_items([(b"c", None)])
    assert scores("a", "c") == [in_time, unknown]


@pytest.mark.parametrize("name", ["features.parquet", "items.parquet"])
def test_a_version_with_other_features_than_it_says_is_refused(
    trained: Trained, tmp_path: Path, name: str
) -> None:
    folder = publish(tmp_path, trained, {}).path
    edit_description(folder, files={})
    for damage in (pa.table({"feature": pa.array([1], pa.uint64())}), pa.table({"feature": ["x"]})):
        pq.write_table(damage, folder / name)
        with pytest.raises(EddyError, match=name):
            load(folder)
    (folder / name).unlink()
    with pytest.raises(EddyError, match=name):
        load(folder)


def test_without_metadata_training_is_what_it_was() -> None:
    settings = replace(FAST, epochs=1)
    plain = train(kinds_log(), SMALL, settings, EVERY_EVENT)
    assert same(plain, train(kinds_log(), SMALL, settings, EVERY_EVENT, features=ItemFeatures()))
    assert plain.recommender.config.features == 0
    assert "feature_vectors" not in plain.recommender.state_dict()


async def follow(shared: FollowedTopics, *records: tuple[bytes, bytes]) -> None:
    tp = TopicPartition("items", 0)
    read: list[Any] = [Record(*pair) for pair in records]
    await shared._take_items(tp, read)


def test_a_worker_takes_metadata_from_the_topic_before_that_of_the_version(
    trained: Trained, tmp_path: Path
) -> None:
    async def at_once(work: Callable[[], Any]) -> Any:
        return work()

    shared = FollowedTopics(Settings(registry=located(tmp_path)), at_once)
    version = publish(tmp_path, trained, {})
    asyncio.run(follow(shared, (b"i60", b'{"item_id": "i60", "kind": "k2"}')))
    announcement = Announcement(epoch=1, version=version.id, folder=str(version.path), announced_at=0)
    asyncio.run(shared.version.take([announcement]))
    asyncio.run(follow(shared, (b"i62", b'{"item_id": "i62", "kind": "k1"}')))
    of_items = shared.catalogue.features.of(item_hashes(["i60", "i61", "i62"]))
    assert [hashes.tolist() for hashes in of_items] == [
        [feature_hash(f"kind={kind}")] for kind in ("k2", "k1", "k1")
    ]


def test_a_worker_reads_metadata_and_passes_over_what_is_none() -> None:
    entry = dictionary_records(["named"])[0]
    unreadable = [(b"x", b"{"), (b"y", b'{"item_id": 3}'), (b"z", b"[]"), (None, b"{}"), entry]
    read = metadata([*unreadable, (b"a", b'{"item_id": "a", "year": 1999}'), (b"gone", None)])
    assert [(item, hashes.tolist()) for item, hashes in read] == [
        (item_hash("a"), [feature_hash("year=1999")]), (item_hash("gone"), []),
    ]  # fmt: skip


def test_all_else_is_what_is_learned_without_metadata() -> None:
    settings = replace(FAST, epochs=2)
    plain = train(kinds_log(), SMALL, settings, EVERY_EVENT).recommender.state_dict()
    with_kinds = train(kinds_log(), SMALL, settings, EVERY_EVENT, features=kinds()).recommender.state_dict()
    assert set(with_kinds) - set(plain) == {"feature_vectors", "feature_centre"}
    assert all(torch.equal(plain[name], with_kinds[name]) for name in plain)


def test_features_are_centred_by_a_first_training_and_by_one_from_its_weights() -> None:
    settings = replace(FAST, epochs=2)
    first = train(kinds_log(), SMALL, settings, EVERY_EVENT, features=kinds())
    assert first.recommender.feature_centre.norm() > 0.01
    second = train(kinds_log(), SMALL, settings, EVERY_EVENT, features=kinds(), parent=first)
    for trained in (first, second):
        of_items = bags(trained.features.of(trained.vocabulary.hashes), trained.vocabulary.features)
        mean = trained.recommender.of_features(of_items).sum(dim=0) / of_items.has_any.sum()
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)


def test_metadata_of_other_items_than_the_logs_is_refused() -> None:
    others = ItemFeatures()
    for number in range(100):
        others.put(item_hash(f"another{number}"), features_of({"kind": "k0"}))
    with pytest.raises(EddyError, match="item_id") as caught:
        train(kinds_log(), SMALL, FAST, EVERY_EVENT, features=others)
    assert "\n" not in str(caught.value)


def test_of_items_that_have_left_no_entry_stays_once_their_metadata_is_gone() -> None:
    hashes = item_hashes(["gone", "stays", "described"])
    catalogue = Catalogue(hashes)
    for item in hashes.tolist():
        catalogue.features.put(item, NONE)
    catalogue.features.put(int(hashes[2]), partial(features_of, {"title": "Alien"}))
    catalogue.keep(np.array([1]))
    assert [item for item, _ in catalogue.features.items()] == hashes[1:].tolist()
