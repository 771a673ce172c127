"""Compiled loops that write the bytes of rows, and that number the types in them: see
`eddy.stream.state.rows` for the format.

Numbers are written byte by byte, the lowest first, so they are little-endian on every machine. n rows,
windows of W entries, S floats of state. Indices and lengths are not checked.
"""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled, inlined

Bytes = NDArray[np.uint8]


@inlined
def _put(into: Bytes, at: int, number: np.uint64, width: int) -> int:
    """Write the lowest `width` bytes of a number at into[at]; returns the position after them."""
    for byte in range(width):
        into[at + byte] = np.uint8((number >> np.uint64(8 * byte)) & np.uint64(0xFF))
    return at + width


@inlined
def _copy(into: Bytes, at: int, part: Bytes) -> int:
    """Write the bytes of `part` at into[at]; returns the position after them."""
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
    """Number the distinct type hashes among the first length[n] <= W entries of each row of type_[n,W], in
    order of appearance: writes them into types[n,W], how many they are into count[n], and the number of each
    entry into number[n,W]. Entries of `types` and `number` past those are left as they were.
    """
    for i in range(len(length)):
        distinct = 0
        for slot in range(length[i]):
            at = 0
            while at < distinct and types[i, at] != type_[i, slot]:
                at += 1
            if at == distinct:
                types[i, distinct] = type_[i, slot]
                distinct += 1
            number[i, slot] = at
        count[i] = distinct


@compiled
def read_types(
    number: NDArray[np.uint8],
    length: NDArray[np.uint8],
    tail: NDArray[np.uint64],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    into: NDArray[np.uint64],
) -> int:
    """Undo `number_types`: write the type hashes of the first length[n] <= W entries of each row, zeros past
    them, into into[n,W]. The count[i] distinct hashes of row i stand in `tail` from start[i] on, all of them
    inside.

    Returns the first row that has a number without a hash, at which writing ends; -1 = all rows are written.
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
    """Write row i from into[start[i]] on:

    1. header[n,80], hidden[n,4 S], and anchor[n,4 S] where anchored[n];
    2. the first length[n] entries of the window: item, since (ms after the first entry), event_id,
       type_number, and value, the bits of a float16, each [n,W];
    3. the first type_count[n] of types[n,W];
    4. the first older_count[n] of older[n,O].

    `into` must have room for them.
    """
    for i in range(len(start)):
        # 1.
        at = _copy(into, start[i], header[i])
        at = _copy(into, at, hidden[i])
        if anchored[i]:
            at = _copy(into, at, anchor[i])
        # 2.
        for slot in range(length[i]):
            at = _put(into, at, item[i, slot], 8)
            at = _put(into, at, np.uint64(since[i, slot]), 5)
            at = _put(into, at, event_id[i, slot], 5)
            at = _put(into, at, np.uint64(type_number[i, slot]), 1)
            at = _put(into, at, np.uint64(value[i, slot]), 2)
        # 3.
        for number in range(type_count[i]):
            at = _put(into, at, types[i, number], 8)
        # 4.
        for place in range(older_count[i]):
            at = _put(into, at, older[i, place], 8)
