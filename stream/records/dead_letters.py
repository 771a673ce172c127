"""Dead letters: records of `events` that are no events, kept as they came, each with the reason beside it."""

import hashlib
from typing import TypedDict

from eddy.stream.records.decode import Rejected

MAX_VALUE_BYTES = 1 << 20
"""Longer values are cut: the topic takes messages of 2 MiB, so a letter can never be refused."""

MAX_KEY_BYTES = 1 << 10
"""Longer keys are cut in the header `key`."""


class Letter(TypedDict):
    """The arguments of a producer's `send` but for the topic."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]


def dead_letter(topic: str, partition: int, rejected: Rejected) -> Letter:
    """The message for a rejected record of `topic`; the headers `sha256` and `length` describe a value
    that was cut.
    """
    value = rejected.record.value
    headers = [
        ("reason", rejected.reason.encode()),
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(rejected.record.offset).encode()),
    ]
    if rejected.record.key is not None:
        headers.append(("key", rejected.record.key[:MAX_KEY_BYTES]))
    if value is not None and len(value) > MAX_VALUE_BYTES:
        headers += [
            ("length", str(len(value)).encode()),
            ("sha256", hashlib.sha256(value).hexdigest().encode()),
        ]
        value = value[:MAX_VALUE_BYTES]
    return Letter(key=f"{topic}:{partition}:{rejected.record.offset}".encode(), value=value, headers=headers)
