"""Processes that train together deal a log's users among them: nobody reads or holds what is another's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.column_store import ColumnStore
from eddy.models.logs.events import Events, read_events
from eddy.models.logs.log_files import log_files
from eddy.models.logs.log_share import LogShare
from eddy.models.logs.manifests import FOLDER, Manifest, Part

pytestmark = pytest.mark.unit


def table(users: list[str], begin: int) -> pa.Table:
    count = len(users)
    return pa.table(
        {
            "user_id": users,
            "item_id": [f"i{number % 7}" for number in range(count)],
            "timestamp": pa.array(1_700_000_000_000 + begin + np.arange(count), pa.timestamp("ms", "UTC")),
        }
    )


def bucketed_log(folder: Path, buckets: int) -> Path:
    """A log in the layout of an export: bucket b has the events of users u{b}-0 … u{b}-4."""
    for bucket in range(buckets):
        rows = 10 * (bucket + 1)
        path = f"day=2023-11-14/bucket={bucket:04d}/part-000000000000-1a2b3c4d.parquet"
        (folder / path).parent.mkdir(parents=True)
        pq.write_table(table([f"u{bucket}-{n % 5}" for n in range(rows)], bucket), folder / path)
        part = Part(path, rows, (folder / path).stat().st_size, 0, 1, 0)
        manifest = folder / FOLDER / f"bucket={bucket:04d}" / "00000001-1a2b3c4d.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_bytes(msgspec.json.encode(Manifest(bucket, "events", "id", rows, (part,))))
    return folder


def plain_log(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    for n in range(3):
        users = [f"u{number}" for number in rng.integers(40, size=50)]
        pq.write_table(table(users, 50 * n), folder / f"part-{n}.parquet")
    return folder


def rows(events: Events) -> Counter[tuple[str, str, int]]:
    users, items = list(events.users), events.items
    return Counter(
        (users[user], items[item], time)
        for user, item, time in zip(
            events.user.tolist(), events.item.tolist(), events.timestamp.tolist(), strict=True
        )
    )


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("layout", ["buckets", "plain"])
def test_shares_are_the_whole_log_and_each_user_is_in_one(
    tmp_path: Path, layout: str, limit: int | None, size: int
) -> None:
    log = bucketed_log(tmp_path, 5) if layout == "buckets" else plain_log(tmp_path)
    store = ColumnStore(limit, tmp_path / "_columns")
    shares = [read_events(log, store=store, share=LogShare(rank, size)) for rank in range(size)]
    assert sum(map(rows, shares), Counter()) == rows(read_events(log))
    users = [user for share in shares for user in share.users]
    assert len(users) == len(set(users))
    arrivals = np.concatenate([share.origin.row for share in shares if share.origin is not None])
    assert sorted(arrivals.tolist()) == list(range(len(arrivals)))


def test_a_process_opens_the_files_of_its_own_buckets_only(tmp_path: Path) -> None:
    log = bucketed_log(tmp_path, 4)
    own = LogShare(1, 2).buckets(log_files(log))
    assert own is not None
    for bucket in set(range(4)) - own:
        (log / f"day=2023-11-14/bucket={bucket:04d}/part-000000000000-1a2b3c4d.parquet").write_bytes(
            b"nobody reads this"
        )
    events = read_events(log, share=LogShare(1, 2))
    assert {user[1] for user in events.users} == {str(bucket) for bucket in own}
    with pytest.raises(EddyError):
        read_events(log, share=LogShare(0, 2))


def test_buckets_are_dealt_so_that_processes_have_about_as_many_rows(tmp_path: Path) -> None:
    files = log_files(bucketed_log(tmp_path, 5))  # of 10, 20, 30, 40 and 50 rows
    dealt = [LogShare(rank, 2).buckets(files) for rank in range(2)]
    assert dealt == [frozenset({4, 1, 0}), frozenset({3, 2})]


def test_an_error_names_the_row_of_the_file_though_others_rows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    users = [f"u{number}" for number in range(20)]
    lines = [f"{user},i,{1_700_000_000 + n}" for n, user in enumerate(users)]
    lines[12] = f"{users[12]},{'x' * 10_000},1700000012"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    own = LogShare(0, 2).own_users(pa.array([users[12]]))[0]
    with pytest.raises(EddyError, match="row 13: item_id has 10,000 characters"):
        read_events(path, share=LogShare(0 if own else 1, 2))
