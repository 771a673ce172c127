"""The bytes of rows, put together by a compiled loop: see `stream.rows` for their form.

Everything is written byte by byte, the lowest first, so it is little-endian on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled, inlined

Bytes = NDArray[np.uint8]


@inlined
def _put(into: Bytes, at: int, number: np.uint64, width: int) -> int:
    """The lowest bytes of a number; where the next one goes."""
    for byte in range(width):
        into[at + byte] = np.uint8((number >> np.uint64(8 * byte)) & np.uint64(0xFF))
    return at + width


@inlined
def _copy(into: Bytes, at: int, part: Bytes) -> int:
    for byte in range(len(part)):
        into[at + byte] = part[byte]
    return at + len(part)


@compiled
def write_rows(
    start: NDArray[np.int64],
    header: Bytes,
    hidden: Bytes,
    anchor: Bytes,
    anchored: NDArray[np.bool_],
    length: NDArray[np.int64],
    item: NDArray[np.uint64],
    since: NDArray[np.int64],
    event_id: NDArray[np.uint64],
    type_: NDArray[np.uint16],
    value: NDArray[np.uint16],
    older: NDArray[np.uint64],
    older_count: NDArray[np.int64],
    into: Bytes,
) -> None:
    """Row i from into[start[i]] on: header[n,79], hidden[n,4 S], anchor[n,4 S] where `anchored`, the first
    `length` entries of item, since, event_id, type and value (the bits of a float16), each [n,W], and the
    first `older_count` of older[n,O].
    """
    for i in range(len(start)):
        at = _copy(into, start[i], header[i])
        at = _copy(into, at, hidden[i])
        if anchored[i]:
            at = _copy(into, at, anchor[i])
        for slot in range(length[i]):
            at = _put(into, at, item[i, slot], 8)
            at = _put(into, at, np.uint64(since[i, slot]), 5)
            at = _put(into, at, event_id[i, slot], 5)
            at = _put(into, at, np.uint64(type_[i, slot]), 2)
            at = _put(into, at, np.uint64(value[i, slot]), 2)
        for place in range(older_count[i]):
            at = _put(into, at, older[i, place], 8)
