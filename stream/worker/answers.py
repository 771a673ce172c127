"""Recommendation lists as messages. A user has the same partition on `recommendations` as on `events`.

Messages are JSON of the form of `eddy.stream.records.schema.Recommendation`, put together by columns: to
encode one message at a time would take as long as scoring.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.stream.engine.batch_report import Lists
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import encode

SCORE_DECIMALS = 4


# Station 7: lists become messages, on the sender's thread.
def encode_lists(lists: Lists, topic_id: bytes) -> dict[int, list[Message]]:
    """Messages for `recommendations`, by partition; waits until the lists are made. `topic_id`: Kafka's
    id of `events`.
    """
    messages: dict[int, list[Message]] = {}
    values = _values(lists, topic_id)
    for partition, user, value in zip(lists.partition.tolist(), lists.user, values, strict=True):
        messages.setdefault(partition, []).append((user.encode(), value))
    return messages


def _values(lists: Lists, topic_id: bytes) -> list[bytes]:
    """The values of the messages, in the order of the lists."""
    # 1. The items of all lists, one after another: [sum of the lengths] JSON objects.
    topk = lists.topk()
    items, scores = topk.item.numpy(), topk.score.numpy()
    listed = items >= 0
    score = np.round(scores[listed].astype(np.float64), SCORE_DECIMALS) + 0.0  # not "-0"
    item = pc.binary_join_element_wise(
        '{"item_id":', lists.names.take_ids(items[listed]), ',"score":', _text(score), "}", ""
    )
    # 2. Each list's items between its other fields: [m] JSON objects.
    ends = np.concatenate(([0], np.cumsum(listed.sum(axis=1)))).astype(np.int32)
    user = pa.array([encode(user).decode() for user in lists.user])
    whole = pc.binary_join_element_wise(
        '{"user_id":', user,
        ',"items":[', pc.binary_join(pa.ListArray.from_arrays(ends, item), ","),
        f'],"topic_id":"{topic_id.hex()}","partition":', _text(lists.partition),
        ',"offset":', _text(lists.offset),
        ',"timestamp":', _text(lists.time),
        f',"epoch":{lists.epoch},"version":{encode(lists.version).decode()}}}', "",
    )  # fmt: skip
    values: list[bytes] = whole.cast(pa.binary()).to_pylist()
    return values


def _text(numbers: NDArray[np.number]) -> pa.StringArray:
    return pc.cast(pa.array(numbers), pa.string())
