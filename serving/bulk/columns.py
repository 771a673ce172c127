"""Lists of many users as columns: what the endpoint would answer to each, without an object per item."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.serving.lists.answers import Answer
from eddy.serving.lists.entries import SCORE_DECIMALS
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import Group, answer, begin_best_scores, groups_of_rows
from eddy.serving.view import MaterialisedView

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
"""The fields of an answer (`eddy.serving.lists.answers.Answer`); the last four are null for unknown users."""

COMPOSED_AT_ONCE = 256
"""Users whose lists are composed one by one are answered so many at a time."""


def lists_of(view: MaterialisedView, users: Sequence[str], wanted: Question) -> pa.Table:
    """A list for each user, in a table of SCHEMA; users of one version come together. See `begin_lists`."""
    return begin_lists(view, users, wanted)()


def begin_lists(view: MaterialisedView, users: Sequence[str], wanted: Question) -> Callable[[], pa.Table]:
    """Begin a list for each user. What is returned waits for the lists and makes a table of SCHEMA of them;
    any thread may call it.

    wanted: the question, without its user. Call this on the thread that owns the view; lists that have to be
    composed are made before it returns.
    """
    moment = Moment.of(view)
    # 1. Lists that are more than the best scores have to be composed, one by one.
    if view.newest is None or moment.is_composed(wanted, wanted.explore or 0.0):
        composed = _one_by_one(view, users, wanted)
        return lambda: composed
    # 2. Users with rows, version by version.
    begun, listed = list[Callable[[], pa.Table]](), np.zeros(len(users), np.bool_)
    for group in groups_of_rows(moment, users):
        group.ranker.update_statistics(moment.now, moment.wall)
        listed[group.numbers] = True
        begun.append(_begin_group(moment, group, users, wanted))
    # 3. The others, each with new items of their own.
    others = _one_by_one(view, [users[number] for number in np.flatnonzero(~listed).tolist()], wanted)
    return lambda: pa.concat_tables([*(wait() for wait in begun), others])


def _one_by_one(view: MaterialisedView, users: Sequence[str], wanted: Question) -> pa.Table:
    parts = [SCHEMA.empty_table()]
    for first in range(0, len(users), COMPOSED_AT_ONCE):
        asked = [replace(wanted, user_id=user) for user in users[first : first + COMPOSED_AT_ONCE]]
        parts.append(_table_of(answer(view, asked)))
    return pa.concat_tables(parts)


def _begin_group(
    moment: Moment, group: Group, users: Sequence[str], wanted: Question
) -> Callable[[], pa.Table]:
    """The lists of users whose rows are of one version."""
    live, m = group.ranker.live, len(group.numbers)
    _, wait = begin_best_scores(moment, group, [wanted] * m)
    # The view may change while the lists are under way: what it says now goes with them.
    ids = moment.view.names.id_strings()
    columns = {
        "user_id": pa.array([users[number] for number in group.numbers.tolist()], pa.string()),
        "known": np.ones(m, np.bool_),
        "stream_time": pa.array(np.full(m, moment.now), SCHEMA.field("stream_time").type),
        "epoch": np.full(m, live.epoch),
        "version": pa.repeat(live.version.id, m),
        "partition": group.slab.partition[group.slots],
        "offset": group.slab.offset[group.slots],
    }

    def table() -> pa.Table:
        best = wait()
        return pa.table({**columns, "items": _items(ids, best.item.numpy(), best.score.numpy())}, SCHEMA)

    return table


def _items(ids: pa.StringArray, index: NDArray[np.int64], score: NDArray[np.float32]) -> pa.ListArray:
    """Items of m lists from catalogue indices [m, k], of which those below 0 are none, and scores [m, k].

    ids: of the catalogue's items, by index.
    """
    listed = index >= 0
    ends = np.concatenate(([0], np.cumsum(listed.sum(axis=1)))).astype(np.int32)
    listed_ids = ids.take(pa.array(index[listed]))
    rounded = np.round(score[listed].astype(np.float64), SCORE_DECIMALS)
    items = pa.StructArray.from_arrays([listed_ids, pa.array(rounded)], fields=list(ITEM))
    return pa.ListArray.from_arrays(ends, items)


def _table_of(answers: Sequence[Answer]) -> pa.Table:
    """Answers as a table."""
    columns = {
        name: pa.array([getattr(each, name) for each in answers], SCHEMA.field(name).type)
        for name in SCHEMA.names
        if name != "items"
    }
    items = [[{"item_id": item.item_id, "score": item.score} for item in each.items] for each in answers]
    return pa.table({**columns, "items": pa.array(items, pa.list_(ITEM))}).select(SCHEMA.names).cast(SCHEMA)
