"""Lists of many users as columns: what the endpoint would answer to each, without an object per item."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.models.scoring.backend import TopK
from eddy.serving.recommend import SCORE_DECIMALS, Question, answer, scored_rows
from eddy.serving.view import MaterialisedView, RowAt, VersionAt
from eddy.stream.engine.ranker import Ranker

ITEM = pa.struct({"item_id": pa.string(), "score": pa.float64()})
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "items": pa.list_(ITEM),
        "known": pa.bool_(),
        "stream_time": pa.timestamp("ms", "UTC"),
        "epoch": pa.int64(),
        "version": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
    }
)
"""The fields of an answer (`eddy.serving.recommend.Answer`); the last four are null for unknown users."""


@dataclass(frozen=True)
class Wanted:
    """What each of the users gets."""

    k: int
    exclude_seen: bool


def lists_of(view: MaterialisedView, users: Sequence[str], wanted: Wanted) -> pa.Table:
    """A list for each user, in a table of SCHEMA; users of one version come together.

    Call it on the thread that owns the view; a call for a few thousand users keeps it for a second or so.
    """
    now = view.now()
    rows = [(user, view.find_row(user)) for user in users]
    tables = [SCHEMA.empty_table()]
    # 1. Users with rows, version by version.
    with_rows = [(user, row) for user, row in rows if row is not None and view.newest is not None]
    with_rows.sort(key=lambda pair: pair[1].at)
    for _, group in groupby(with_rows, key=lambda pair: pair[1].at):
        of_version = list(group)
        tables.append(
            _of_version(view, [user for user, _ in of_version], [row for _, row in of_version], wanted, now)
        )
    # 2. The others all get the same list.
    known = {user for user, _ in with_rows}
    if strangers := [user for user, _ in rows if user not in known]:
        tables.append(_of_strangers(view, strangers, wanted))
    return pa.concat_tables(tables)


def scored(
    view: MaterialisedView, at: VersionAt, slots: NDArray[np.int64], wanted: Wanted, now: int
) -> tuple[Ranker, TopK]:
    """The lists of m rows of the slab of a version as of `now` (ms), and the model that scored them."""
    return scored_rows(view, at, slots, wanted.k, np.full(len(slots), wanted.exclude_seen), None, now)


def _of_version(
    view: MaterialisedView, users: Sequence[str], rows: Sequence[RowAt], wanted: Wanted, now: int
) -> pa.Table:
    at = rows[0].at
    slab, slots = view.slabs[at], np.array([row.slot for row in rows], np.int64)
    ranker, topk = scored(view, at, slots, wanted, now)
    m = len(rows)
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "items": _items(view, topk.item.numpy(), topk.score.numpy()),
            "known": np.ones(m, np.bool_),
            "stream_time": pa.array(np.full(m, now), pa.timestamp("ms", "UTC")),
            "epoch": np.full(m, ranker.live.epoch),
            "version": pa.repeat(ranker.live.version.id, m),
            "partition": slab.partition[slots],
            "offset": slab.offset[slots],
        },
        SCHEMA,
    )


def _items(view: MaterialisedView, index: NDArray[np.int64], score: NDArray[np.float32]) -> pa.ListArray:
    """Items of m lists from catalogue indices [m, k], of which those below 0 are none, and scores [m, k]."""
    listed = index >= 0
    ends = np.concatenate(([0], np.cumsum(listed.sum(axis=1)))).astype(np.int32)
    ids = view.names.id_strings().take(pa.array(index[listed]))
    rounded = np.round(score[listed].astype(np.float64), SCORE_DECIMALS)
    items = pa.StructArray.from_arrays([ids, pa.array(rounded)], fields=list(ITEM))
    return pa.ListArray.from_arrays(ends, items)


def _of_strangers(view: MaterialisedView, users: Sequence[str], wanted: Wanted) -> pa.Table:
    """What is popular now, for users without a row."""
    (popular,) = answer(view, [Question(users[0], wanted.k, wanted.exclude_seen)])
    items = [{"item_id": item.item_id, "score": item.score} for item in popular.items]
    m = len(users)
    columns = {
        "user_id": pa.array(users, pa.string()),
        "items": pa.array([items], pa.list_(ITEM)).take(pa.array(np.zeros(m, np.int64))),
        "known": np.zeros(m, np.bool_),
        "stream_time": pa.array(np.full(m, popular.stream_time), pa.timestamp("ms", "UTC")),
    }
    absent = {name: pa.nulls(m, SCHEMA.field(name).type) for name in SCHEMA.names if name not in columns}
    return pa.table(columns | absent, SCHEMA)
