"""What `user-state` says of users: from the newest record of each, rows, erasures, and records that are
neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from eddy.models.untrusted import Unreadable, text
from eddy.stream.state.rows import RowFormatError, Rows, decode_rows


@dataclass
class StoredRows:
    """The newest records of a stretch of the topic, told apart."""

    rows: list[Rows] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    damaged: dict[bytes, str] = field(default_factory=dict)
    """by user: why the row cannot be read"""
    foreign: list[bytes] = field(default_factory=list)
    """keys that belong to no user, since they are not UTF-8"""


def decode_newest(newest: Mapping[bytes, bytes | None]) -> StoredRows:
    """Decode the newest value of each key; no value is an erasure. Nothing in a record can raise."""
    stored = StoredRows()
    try:
        text(b"\n".join(newest))
    except Unreadable:
        of_users = {key: value for key, value in newest.items() if _is_text(key)}
        stored.foreign = [key for key in newest if key not in of_users]
        newest = of_users
    stored.erased = [user.decode() for user, value in newest.items() if value is None]
    _decode([(user, value) for user, value in newest.items() if value is not None], stored)
    return stored


def _is_text(key: bytes) -> bool:
    try:
        text(key)
    except Unreadable:
        return False
    return True


def _decode(records: list[tuple[bytes, bytes]], stored: StoredRows) -> None:
    """Decode all rows at once where that is possible, else by halves, until a damaged row stands alone."""
    if not records:
        return
    try:
        stored.rows += decode_rows([user for user, _ in records], [value for _, value in records])
    except RowFormatError as error:
        if len(records) == 1:
            stored.damaged[records[0][0]] = str(error)
            return
        half = len(records) // 2
        _decode(records[:half], stored)
        _decode(records[half:], stored)


__all__ = ["StoredRows", "decode_newest"]
