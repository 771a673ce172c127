"""Lists of many users as columns: what the endpoint would answer to each, without an object per item."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.serving.lists.answers import Answer
from eddy.serving.lists.entries import SCORE_DECIMALS
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import Group, answer, best_scores, groups_of_rows
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
    """A list for each user, in a table of SCHEMA; users of one version come together.

    wanted: the question, without its user. Call it on the thread that owns the view; a call for a few
    thousand users keeps it for a second or so.
    """
    moment = Moment.of(view)
    questions = [replace(wanted, user_id=user) for user in users]
    # 1. Lists that are more than the best scores have to be composed, one by one.
    if view.newest is None or moment.is_composed(wanted, wanted.explore or 0.0):
        return _one_by_one(view, questions)
    # 2. Users with rows, version by version.
    tables, listed = [SCHEMA.empty_table()], np.zeros(len(users), np.bool_)
    for group in groups_of_rows(moment, questions):
        group.ranker.update_statistics(moment.now, moment.wall)
        asked = [questions[number] for number in group.numbers.tolist()]
        listed[group.numbers] = True
        tables.append(_table_of_group(moment, group, asked))
    # 3. The others, each with new items of their own.
    tables.append(_one_by_one(view, [questions[number] for number in np.flatnonzero(~listed).tolist()]))
    return pa.concat_tables(tables)


def _one_by_one(view: MaterialisedView, questions: Sequence[Question]) -> pa.Table:
    parts = [
        _table_of(answer(view, questions[first : first + COMPOSED_AT_ONCE]))
        for first in range(0, len(questions), COMPOSED_AT_ONCE)
    ]
    return pa.concat_tables([SCHEMA.empty_table(), *parts])


def _table_of_group(moment: Moment, group: Group, asked: Sequence[Question]) -> pa.Table:
    """The lists of users whose rows are of one version."""
    _, best = best_scores(moment, group, asked)
    live, m = group.ranker.live, len(asked)
    columns = {
        "user_id": pa.array([question.user_id for question in asked], pa.string()),
        "items": _items(moment.view, best.item.numpy(), best.score.numpy()),
        "known": np.ones(m, np.bool_),
        "stream_time": pa.array(np.full(m, moment.now), SCHEMA.field("stream_time").type),
        "epoch": np.full(m, live.epoch),
        "version": pa.repeat(live.version.id, m),
        "partition": group.slab.partition[group.slots],
        "offset": group.slab.offset[group.slots],
    }
    return pa.table(columns, SCHEMA)


def _items(view: MaterialisedView, index: NDArray[np.int64], score: NDArray[np.float32]) -> pa.ListArray:
    """Items of m lists from catalogue indices [m, k], of which those below 0 are none, and scores [m, k]."""
    listed = index >= 0
    ends = np.concatenate(([0], np.cumsum(listed.sum(axis=1)))).astype(np.int32)
    ids = view.names.id_strings().take(pa.array(index[listed]))
    rounded = np.round(score[listed].astype(np.float64), SCORE_DECIMALS)
    items = pa.StructArray.from_arrays([ids, pa.array(rounded)], fields=list(ITEM))
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
