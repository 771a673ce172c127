"""Recommendation lists as messages, grouped by the partition that Kafka's default partitioner gives their
user.

JSON of the form of `stream.schema.Recommendation`, put together by columns: one message at a time it would
take as long as scoring.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.engine import Engine, Lists
from stream.producers import Message
from stream.schema import encode

SCORE_DECIMALS = 4


def encode_lists(
    engine: Engine, lists: Sequence[Lists], topic_id: bytes, partitions: int
) -> dict[int, list[Message]]:
    """Messages for `recommendations`, by partition."""
    slab = engine.slab
    messages: dict[int, list[Message]] = {}
    for part in lists:
        if not len(part.slot):
            continue
        users = [slab.user_of[slot] or "" for slot in part.slot.tolist()]
        values = _values(engine, part, users, topic_id.hex())
        target = (slab.hash[part.slot] % np.uint32(partitions)).tolist()
        for to, user, value in zip(target, users, values, strict=True):
            messages.setdefault(to, []).append((user.encode(), value))
    return messages


def _values(engine: Engine, part: Lists, users: Sequence[str], topic_id: str) -> list[bytes]:
    held = part.item >= 0
    score = np.round(part.score[held].astype(np.float64), SCORE_DECIMALS) + 0.0  # not "-0"
    item = pc.binary_join_element_wise(
        '{"item_id":', engine.names.json().take(pa.array(part.item[held])), ',"score":', _text(score), "}", ""
    )
    ends = np.concatenate(([0], np.cumsum(held.sum(axis=1)))).astype(np.int32)
    user = pa.array([encode(user).decode() for user in users])
    whole = pc.binary_join_element_wise(
        '{"user_id":', user,
        ',"items":[', pc.binary_join(pa.ListArray.from_arrays(ends, item), ","),
        f'],"topic_id":"{topic_id}","partition":', _text(part.partition),
        ',"offset":', _text(part.offset),
        ',"timestamp":', _text(part.time),
        f',"epoch":{engine.encoder.epoch},"version":{encode(engine.encoder.version.id).decode()}}}', "",
    )  # fmt: skip
    values: list[bytes] = whole.cast(pa.binary()).to_pylist()
    return values


def _text(numbers: np.ndarray[tuple[int, ...], np.dtype[np.number]]) -> pa.StringArray:
    return pc.cast(pa.array(numbers), pa.string())
