"""Decoding of bytes that anybody may have written: records of Kafka's topics, and JSON files.

Whatever the bytes are, the outcome is a value or the reason why there is none. What was written to a topic
once is read at every start. So each decoder of the project is called here, and each way in which one fails
becomes `Unreadable`. The caller decides what follows: a dead letter, a record that is passed over with a
warning, or an end with a message.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from eddy.models.errors import EddyError

T = TypeVar("T")

FAILURES = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What decoders raise. Text that is not UTF-8 is a ValueError, deep nesting a RecursionError."""


class Unreadable(EddyError):
    """The bytes are not what they should be; the message is the reason."""


def decoded(decode: Callable[[bytes], T], data: bytes | None) -> T:
    """What `decode` makes of the key or the value of a record, or of a part of a file.

    Errors: Unreadable, also for None, the value of a tombstone.
    """
    if data is None:
        raise Unreadable("no value")
    try:
        return decode(data)
    except FAILURES as error:
        raise Unreadable(reason_of(error)) from None


def text(data: bytes) -> str:
    """Decode UTF-8. Errors: Unreadable."""
    return decoded(bytes.decode, data)


def reason_of(failure: Exception) -> str:
    """Why a decoder failed, in the words of a dead letter."""
    if isinstance(failure, RecursionError):
        return "nested too deeply"
    if isinstance(failure, UnicodeDecodeError):
        return "not UTF-8"
    return str(failure)


__all__ = ["FAILURES", "Unreadable", "decoded", "reason_of", "text"]
