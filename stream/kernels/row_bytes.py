"""The bytes of rows, put together by a compiled loop: see `eddy.stream.state.rows` for their form.

Everything is written byte by byte, the lowest first, so it is little-endian on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled, inlined

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
def number_types(
    type_: NDArray[np.uint64],
    length: NDArray[np.int64],
    types: NDArray[np.uint64],
    number: NDArray[np.uint8],
    count: NDArray[np.int64],
) -> None:
    """The distinct hashes among the first `length` of each row of type_[n,W], in order of appearance, in
    types[n,W]; how many they are in count[n]; and which of them each entry has in number[n,W].
    """
    for i in range(len(length)):
        known = 0
        for slot in range(length[i]):
            at = 0
            while at < known and types[i, at] != type_[i, slot]:
                at += 1
            if at == known:
                types[i, known] = type_[i, slot]
                known += 1
            number[i, slot] = at
        count[i] = known


@compiled
def read_types(
    number: NDArray[np.uint8],
    length: NDArray[np.uint8],
    tail: NDArray[np.uint64],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    into: NDArray[np.uint64],
) -> int:
    """The hashes of the first `length` entries of each row, zeros past them, in into[n,W]; row i has its
    `count` distinct ones in `tail` from `start` on. Returns the first row with an entry that has none of
    them, -1 = no row.
    """
    for i in range(len(length)):
        for slot in range(length[i]):
            if number[i, slot] >= count[i]:
                return i
            into[i, slot] = tail[start[i] + number[i, slot]]
        into[i, length[i] :] = 0
    return -1


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
    type_number: NDArray[np.uint8],
    value: NDArray[np.uint16],
    types: NDArray[np.uint64],
    type_count: NDArray[np.int64],
    older: NDArray[np.uint64],
    older_count: NDArray[np.int64],
    into: Bytes,
) -> None:
    """Row i from into[start[i]] on: header[n,80], hidden[n,4 S], anchor[n,4 S] where `anchored`, the first
    `length` entries of item, since, event_id, type_number and value (the bits of a float16), each [n,W], the
    first `type_count` of types[n,W], and the first `older_count` of older[n,O].
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
            at = _put(into, at, np.uint64(type_number[i, slot]), 1)
            at = _put(into, at, np.uint64(value[i, slot]), 2)
        for place in range(type_count[i]):
            at = _put(into, at, types[i, place], 8)
        for place in range(older_count[i]):
            at = _put(into, at, older[i, place], 8)
