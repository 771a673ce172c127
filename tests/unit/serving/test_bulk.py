"""Lists for many users at once: they are the endpoint's, and a killed run goes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.cli.recommend import read_users, recommend_many
from eddy.models.errors import EddyError
from eddy.serving.bulk import job, run
from eddy.serving.bulk.columns import SCHEMA, lists_of
from eddy.serving.bulk.job import LEFT_S, MOST_BUCKETS, Progress, ToFile, buckets_for, deal
from eddy.serving.catalogue.filters import Condition
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView
from eddy.stream.records.settings import load_settings
from eddy.stream.state.rows import encode_rows
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.views import put_version

USERS = [f"user-{number}" for number in range(300)]
WALL = 10**13


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> MaterialisedView:
    """Rows of USERS in one version, and one item that was withdrawn."""
    return view_of(USERS, tmp_path_factory.mktemp("bulk"))


def view_of(users: list[str], registry: Path) -> MaterialisedView:
    version = random_version(registry, items=50)
    engine = new_engine(version, wall=WALL)
    happened = [
        Happening(user, item_id(number * step % 50), 10**12 + 1000 * step)
        for number, user in enumerate(users)
        for step in range(1, 4)
    ]
    engine.apply([batch(happened, range(len(happened)))])
    view = MaterialisedView(lambda: WALL)
    put_version(view, version, 1)
    rows = stored_rows(engine)
    view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    view.take_items([(item_id(7).encode(), None)])
    return view


def as_rows(answers: list[Answer]) -> dict[str, tuple[list[tuple[str, float]], bool, str | None, int | None]]:
    return {
        str(one.user_id): (
            [(item.item_id, item.score) for item in one.items],
            one.known,
            one.version,
            one.offset,
        )
        for one in answers
    }


def rows_of(table: pa.Table) -> dict[str, tuple[list[tuple[str, float]], bool, str | None, int | None]]:
    return {
        row["user_id"]: (
            [(item["item_id"], item["score"]) for item in row["items"]],
            row["known"],
            row["version"],
            row["offset"],
        )
        for row in table.to_pylist()
    }


@pytest.mark.parametrize(
    "wanted",
    [
        Question("", k=5),
        Question("", k=60, exclude_seen=True, exclude=(item_id(3),)),
        Question("", k=5, diversity=0.5),
    ],
)
def test_lists_are_those_of_the_endpoint(view: MaterialisedView, wanted: Question) -> None:
    users = [*USERS, "stranger", "another stranger"]
    table = lists_of(view, users, wanted)
    assert table.schema == SCHEMA
    expected = answer(view, [replace(wanted, user_id=user) for user in users])
    assert rows_of(table) == as_rows(expected)


def test_every_user_is_in_one_bucket() -> None:
    dealt = deal(USERS, 7)
    assert len(dealt) == 7
    assert sorted(user for bucket in dealt for user in bucket) == sorted(USERS)


def test_few_users_are_in_few_buckets_and_the_number_is_bounded() -> None:
    assert buckets_for(0) == buckets_for(300) == 1
    assert buckets_for(10**9) == MOST_BUCKETS


class Killed(BaseException):
    """The process ends here."""


class ReadyService:
    """A service whose topics are read."""

    def __init__(self, view: MaterialisedView) -> None:
        self.view, self.calls, self.killed_at = view, 0, -1
        self.failed = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def not_ready(self) -> list[str]:
        return []

    async def on_thread(self, work):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.calls == self.killed_at:
            raise Killed
        return work()


@pytest.fixture
def service(view: MaterialisedView) -> Iterator[ReadyService]:
    """A service, and buckets of which USERS need all."""
    service = ReadyService(view)
    with (
        patch.object(job, "USERS_PER_BUCKET", 1),
        patch.object(run, "Service", lambda *_, **__: service),
        patch.object(run, "prepare_topics", lambda *_: None),
    ):
        yield service


FIVE = Question("", k=5)


def make(
    out: Path, wanted: Question = FIVE, users: list[str] | None = None, cluster: str = "one:9092"
) -> int:
    settings = load_settings(bootstrap_servers=cluster)
    return asyncio.run(run.make_lists(settings, users, wanted, out, None))


def test_a_killed_run_goes_on_and_a_reader_never_sees_a_part(service: ReadyService, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    service.killed_at = 40
    with pytest.raises(Killed):
        make(out)
    assert not out.exists()
    service.killed_at = -1
    before = service.calls
    assert make(out) == len(USERS)
    assert service.calls - before < MOST_BUCKETS, "the buckets that were written are not made again"
    assert set(rows_of(pq.read_table(out))) == set(USERS)
    assert [path.name for path in tmp_path.iterdir()] == ["lists.parquet"]


def test_what_another_run_left_is_not_mixed_in(service: ReadyService, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    service.killed_at = 40
    with pytest.raises(Killed):
        make(out, Question("", k=3))
    service.killed_at = -1
    make(out, Question("", k=5))
    assert {len(row["items"]) for row in pq.read_table(out).to_pylist()} == {5}


def killed_once(
    out: Path, service: ReadyService, users: list[str] | None = None, wanted: Question = FIVE
) -> None:
    """A run that is killed when it has written some buckets."""
    service.killed_at = service.calls + 40
    with pytest.raises(Killed):
        make(out, wanted, users)
    service.killed_at = -1


def test_a_killed_run_goes_on_in_a_process_that_keeps_a_filter_s_values_in_another_order(
    service: ReadyService, tmp_path: Path
) -> None:
    """The order in which a set gives its texts changes from process to process."""
    pairs = ((frozenset(pair), frozenset(pair[::-1])) for pair in combinations(map(str, range(100)), 2))
    asked, again = next(pair for pair in pairs if list(pair[0]) != list(pair[1]))
    out = tmp_path / "lists.parquet"
    killed_once(out, service, wanted=replace(FIVE, where=(Condition("category", asked),)))
    before = service.calls
    make(out, replace(FIVE, where=(Condition("category", again),)))
    assert service.calls - before < MOST_BUCKETS, "the buckets that were written are not made again"


def test_what_a_run_left_for_one_cluster_is_none_of_another_s(service: ReadyService, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    killed_once(out, service)
    before = service.calls
    make(out, cluster="another:9092")
    assert service.calls - before > MOST_BUCKETS, "every bucket is made again"


def test_a_run_that_was_left_for_long_is_none_of_today_s(service: ReadyService, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    killed_once(out, service)
    for file in (tmp_path / ".lists.parquet.parts").iterdir():
        os.utime(file, (time.time() - 2 * LEFT_S,) * 2)
    before = service.calls
    make(out)
    assert service.calls - before > MOST_BUCKETS, "every bucket is made again"


def test_who_was_erased_or_came_since_a_run_was_killed_is_left_out_or_listed(
    service: ReadyService, tmp_path: Path
) -> None:
    erased = deal(USERS, MOST_BUCKETS)[0][0]  # whose list is among the first that are written
    without = view_of([user for user in USERS if user != erased], tmp_path / "registry")
    out, of_all = tmp_path / "lists.parquet", tmp_path / "all.parquet"
    named = [*USERS, "stranger"]
    killed_once(out, service, named)
    killed_once(of_all, service)
    with patch.object(service, "view", without):
        make(out, users=named)
        make(of_all)
    assert not rows_of(pq.read_table(out))[erased][1], "what was known of them is not told any more"
    assert erased not in rows_of(pq.read_table(of_all))


def test_two_runs_at_once_do_not_write_to_one_file(service: ReadyService, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    with ToFile(out, {}).held(), pytest.raises(EddyError, match="another run writes its lists there"):
        make(out)
    assert make(out) == len(USERS)


def test_a_torn_bucket_is_made_again(service: ReadyService, tmp_path: Path) -> None:
    target = ToFile(tmp_path / "lists.parquet", {})
    assert target.begin(300) == Progress(MOST_BUCKETS, set())
    (tmp_path / ".lists.parquet.parts" / "bucket-03.parquet.writing").write_bytes(b"PAR1")
    asyncio.run(target.put(4, SCHEMA.empty_table()))
    assert ToFile(tmp_path / "lists.parquet", {}).begin(300) == Progress(MOST_BUCKETS, {4})


def test_a_run_that_goes_on_with_more_users_keeps_its_buckets(tmp_path: Path) -> None:
    begun = ToFile(tmp_path / "lists.parquet", {}).begin(300)
    assert ToFile(tmp_path / "lists.parquet", {}).begin(10**6) == begun


def test_named_users_get_lists_whether_they_are_known_or_not(service: ReadyService, tmp_path: Path) -> None:
    named = tmp_path / "users.txt"
    named.write_text("user-1\nstranger\nuser-1\n\n")
    users = read_users(str(named))
    assert users == ["user-1", "stranger"]
    assert make(tmp_path / "out.parquet", users=users) == 2
    table = pq.read_table(tmp_path / "out.parquet")
    assert dict(zip(table["user_id"].to_pylist(), table["known"].to_pylist(), strict=True)) == {
        "user-1": True,
        "stranger": False,
    }


def test_users_can_be_named_by_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["a", "b", "a"], "country": ["x", "y", "x"]}), tmp_path / "u.parquet")
    assert read_users(str(tmp_path / "u.parquet")) == ["a", "b"]


@pytest.mark.parametrize(("out", "topic"), [(None, None), (Path("x"), "y")])
def test_lists_go_to_one_target(out: Path | None, topic: str | None) -> None:
    with pytest.raises(EddyError, match=r"either --out FILE\.parquet or --topic TOPIC"):
        recommend_many(load_settings(), "all", out, topic, None)


def test_a_question_that_cannot_be_understood_is_one_line() -> None:
    with pytest.raises(EddyError, match=r"--question: k: .*less than or equal to 1000"):
        recommend_many(load_settings(), "all", Path("x"), None, '{"k": 1001}')
