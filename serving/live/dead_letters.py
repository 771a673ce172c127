"""The tail of `dead-letters`, for people to look at: what came lately, and why it could not be used."""

import re
from collections import Counter, deque

from aiokafka import ConsumerRecord

from eddy.serving.live.answers import DeadLetter, DeadLetters

KEPT = 200
"""So many are kept, the newest ones."""

MAX_CHARACTERS = 500
"""Of a value, a key, or a reason."""

MAX_REASONS = 100
"""Reasons that are counted by themselves; the others are counted together."""

OTHER_REASONS = "other reasons"

_OF_ONE_RECORD = re.compile(r"[0-9]{5,}|(?<=byte )[0-9]+")
"""Times and places in a reason, by which records that fail alike would be counted one by one."""


class DeadLetterTail:
    """The newest dead letters, in bounded memory. Whatever the bytes are, they are told as text."""

    def __init__(self) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=KEPT)
        self._by_reason: Counter[str] = Counter()

    def take(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Take in a record of the topic."""
        headers = dict(record.headers)
        reason = _text(headers.get("reason")) or "no reason is given"
        kind = _OF_ONE_RECORD.sub("…", reason)
        counted = kind if kind in self._by_reason or len(self._by_reason) < MAX_REASONS else OTHER_REASONS
        self._by_reason[counted] += 1
        self._kept.append(
            DeadLetter(
                time=record.timestamp,
                topic=_text(headers.get("topic")),
                partition=_number(headers.get("partition")),
                offset=_number(headers.get("offset")),
                reason=reason,
                key=_text(headers["key"]) if "key" in headers else None,
                value=_text(record.value),
            )
        )

    def newest(self, limit: int, total: int) -> DeadLetters:
        """The newest ones; total: how many the topic holds."""
        samples = list(self._kept)[::-1][:limit]
        return DeadLetters(total, dict(self._by_reason.most_common()), samples)


def _text(data: bytes | None) -> str:
    """Bytes as text, cut; a character takes at most four of them."""
    return (data or b"")[: 4 * MAX_CHARACTERS].decode(errors="replace")[:MAX_CHARACTERS]


def _number(data: bytes | None) -> int:
    """A number in decimal digits; -1 where there is none."""
    return int(data) if data is not None and data.isdigit() and len(data) <= 18 else -1
