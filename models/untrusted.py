"""Bytes that came from Kafka, decoded: whatever they are, the outcome is a value or the reason why there is
none.

Anybody can write to a topic, and what was written once is read at every start. So each decoder of the project
is called here, and each way in which one fails becomes `Unreadable`. What follows from it is the topic's own
matter: a dead letter, a record that is passed over with a warning, or an end with a message.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from eddy.models.errors import EddyError

T = TypeVar("T")

FAILURES = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What decoders raise. Text that is not UTF-8 is a ValueError, deep nesting a RecursionError."""


class Unreadable(EddyError):
    """The bytes of a record are not what its topic holds; the message is the reason."""


def decoded(decode: Callable[[bytes], T], data: bytes | None) -> T:
    """What `decode` makes of the key or the value of a record. Errors: Unreadable."""
    if data is None:
        raise Unreadable("empty value")
    try:
        return decode(data)
    except FAILURES as error:
        raise Unreadable(reason_of(error)) from None


def text(data: bytes) -> str:
    """UTF-8 as a string. Errors: Unreadable."""
    return decoded(bytes.decode, data)


def reason_of(failure: Exception) -> str:
    """Why a decoder failed, in the words of a dead letter."""
    if isinstance(failure, RecursionError):
        return "nested too deeply"
    if isinstance(failure, UnicodeDecodeError):
        return "not UTF-8"
    return str(failure)


__all__ = ["FAILURES", "Unreadable", "decoded", "reason_of", "text"]
