"""Recommendation lists as messages, grouped by the partition that Kafka's default partitioner gives their
user.
"""

from collections.abc import Sequence

import numpy as np

from stream.engine import Engine, Lists
from stream.producers import Message
from stream.schema import Recommendation, Recommended, encode


def encode_lists(
    engine: Engine, lists: Sequence[Lists], topic_id: bytes, partitions: int
) -> dict[int, list[Message]]:
    """Messages for `recommendations`, by partition."""
    slab, ids = engine.slab, engine.names.ids
    source, epoch, version = topic_id.hex(), engine.encoder.epoch, engine.encoder.version.id
    messages: dict[int, list[Message]] = {}
    for part in lists:
        target = (slab.hash[part.slot] % np.uint32(partitions)).tolist()
        score = np.round(part.score.astype(np.float64), 4).tolist()
        columns = zip(
            target, part.slot.tolist(), part.item.tolist(), score, part.partition.tolist(),
            part.offset.tolist(),
            part.time.tolist(), strict=True,
        )  # fmt: skip
        for to, slot, items, scores, partition, offset, time in columns:
            user = slab.user_of[slot] or ""
            ranked = [
                Recommended(ids[item] or "", value)
                for item, value in zip(items, scores, strict=True)
                if item >= 0
            ]
            answer = Recommendation(user, ranked, source, partition, offset, time, epoch, version)
            messages.setdefault(to, []).append((user.encode(), encode(answer)))
    return messages
