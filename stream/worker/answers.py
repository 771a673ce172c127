"""Recommendation lists as messages, by the partition of their user: on `recommendations` the same as on
`events`.

JSON of the form of `eddy.stream.records.schema.Recommendation`, put together by columns: one message at a
time it would take as long as scoring.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.stream.engine.engine import Engine, Lists
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import encode
from eddy.stream.state.item_names import JsonIds

SCORE_DECIMALS = 4


@dataclass(frozen=True)
class Origin:
    """What messages say of where their lists come from; later batches do not change it."""

    names: JsonIds
    epoch: int
    version: str
    topic_id: bytes


def origin_of(engine: Engine, topic_id: bytes) -> Origin:
    """The origin of lists that the engine has just begun to make."""
    encoder = engine.encoder
    return Origin(engine.names.json(), encoder.epoch, encoder.version.id, topic_id)


def encode_lists(lists: Lists, origin: Origin) -> dict[int, list[Message]]:
    """Messages for `recommendations`, by partition, once the lists are made."""
    messages: dict[int, list[Message]] = {}
    values = _values(lists, origin)
    for to, user, value in zip(lists.partition.tolist(), lists.user, values, strict=True):
        messages.setdefault(to, []).append((user.encode(), value))
    return messages


def _values(lists: Lists, origin: Origin) -> list[bytes]:
    items, scores, _ = lists.made()
    held = items >= 0
    score = np.round(scores[held].astype(np.float64), SCORE_DECIMALS) + 0.0  # not "-0"
    item = pc.binary_join_element_wise(
        '{"item_id":', origin.names.take(items[held]), ',"score":', _text(score), "}", ""
    )
    ends = np.concatenate(([0], np.cumsum(held.sum(axis=1)))).astype(np.int32)
    user = pa.array([encode(user).decode() for user in lists.user])
    whole = pc.binary_join_element_wise(
        '{"user_id":', user,
        ',"items":[', pc.binary_join(pa.ListArray.from_arrays(ends, item), ","),
        f'],"topic_id":"{origin.topic_id.hex()}","partition":', _text(lists.partition),
        ',"offset":', _text(lists.offset),
        ',"timestamp":', _text(lists.time),
        f',"epoch":{origin.epoch},"version":{encode(origin.version).decode()}}}', "",
    )  # fmt: skip
    values: list[bytes] = whole.cast(pa.binary()).to_pylist()
    return values


def _text(numbers: NDArray[np.number]) -> pa.StringArray:
    return pc.cast(pa.array(numbers), pa.string())
