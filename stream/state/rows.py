"""The binary form of a row on `user-state`: versioned, checksummed, and encoded and decoded by whole
columns.

One record per user, key = user_id in UTF-8, value =

    header (80 bytes) | hidden state float32[S] | anchor float32[S], if any | window entries (21 bytes
    each), oldest first | hashes of the entries' event types (8 bytes each), each once | hashes of older
    items (8 bytes each), latest first, as many as are left

all little-endian. The anchor is left out while it is zero, so a young row is short; one with a full window
(GRU, S = 128, 49 entries of two types) has 2,149 bytes, 8 more for each further type, and up to 4,088 more
for items from before it. An entry says by one byte which of the row's types it has. It carries no source
offset: inside one partition the stored order says it already, and `digest`, the sum of `splitmix64` of every
applied offset, proves for 8 bytes that each record of the whole history, not just of the window, was applied
once.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import MAX_OLDER, RECENT_WINDOW
from eddy.models.errors import EddyError
from eddy.stream.kernels.filled_prefix import filled_lengths
from eddy.stream.kernels.row_bytes import number_types, read_types, write_rows

WINDOW = RECENT_WINDOW
"""Events after the anchor at which the older half is dropped, so a stored row has at most WINDOW - 1
entries.
"""

OLDER = MAX_OLDER
"""A row names at most so many distinct items from before the window: those of the latest events whose type
and value did not speak against them when they left the window.
"""

FORMAT = 2  # format 1 named event types by 16 bits of a hash, which several types could share
NO_VERSION = 0
"""Stands for the version of a row of which nobody can say it any more; no version has this hash."""

NO_TIME = -1
"""Time of the event before the window when there is none: the anchor is zero because nothing came before."""

TIME_SPAN = (1 << 40) - 1
"""Greatest distance, in ms, between the first and the last entry of a window (34 years; later times are
clamped).
"""

_HAS_ANCHOR = 1
_CHECKED_FROM = 8  # the checksum covers everything after itself

HEADER = np.dtype(
    [
        ("magic", "S2"),
        ("format", "u1"),
        ("entries", "u1"),
        ("crc", "<u4"),
        ("flags", "u1"),
        ("types", "u1"),
        ("state_size", "<u2"),
        ("epoch", "<u4"),
        ("version", "<u8"),
        ("topic_id", "V16"),
        ("partition", "<i4"),
        ("offset", "<i8"),
        ("applied", "<u4"),
        ("digest", "<u8"),
        ("anchor_time", "<i8"),
        ("first_time", "<i8"),
    ]
)
ENTRY = np.dtype(
    [
        ("item", "<u8"),
        ("time_low", "<u4"),
        ("time_high", "u1"),
        ("event_id_low", "<u4"),
        ("event_id_high", "u1"),
        ("type", "u1"),
        ("value", "<f2"),
    ]
)


_T = TypeVar("_T", bound=np.generic)
_HASH = 8  # bytes of an event type or an older item
_PAD = 2
"""Bytes after each value in a common buffer, so that all values, and their floats, lie at multiples of 4."""


class RowFormatError(EddyError):
    """Bytes on `user-state` that this version of Eddy cannot read."""


@dataclass(frozen=True)
class Rows:
    """n rows as columns. S = floats per state; entries past `length` are 0 (value: NaN)."""

    user: Sequence[bytes]
    epoch: NDArray[np.uint32]
    """[n]"""
    version: NDArray[np.uint64]
    """[n] `item_hash` of the model version's id"""
    topic_id: bytes
    """the 16 bytes of Kafka's id of the source topic, the same for all rows of a batch"""
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    """[n] offset of the last record that the row includes"""
    applied: NDArray[np.uint32]
    """[n] events applied since the user was first seen"""
    digest: NDArray[np.uint64]
    """[n] sum of `splitmix64(offset)` over the applied events, of all topics the row has lived in, modulo
    2^64
    """
    anchor_time: NDArray[np.int64]
    """[n] ms, the last event inside the anchor; NO_TIME while the anchor is zero"""
    hidden: NDArray[np.float32]
    """[n, S]"""
    anchor: NDArray[np.float32]
    """[n, S]"""
    length: NDArray[np.uint8]
    """[n] entries in the window"""
    item: NDArray[np.uint64]
    """[n, WINDOW] item hashes"""
    time: NDArray[np.int64]
    """[n, WINDOW] ms"""
    type: NDArray[np.uint64]
    """[n, WINDOW] `type_hash` of the event type, 0 = one beyond what a process can tell apart"""
    value: NDArray[np.float16]
    """[n, WINDOW]"""
    event_id: NDArray[np.uint64]
    """[n, WINDOW] 40-bit hashes, 0 = none"""
    older: NDArray[np.uint64]
    """[n, 0 … OLDER] item hashes, latest first, 0 = none (past the others)"""


def splitmix64(offset: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A bijection that spreads offsets over 64 bits, so that sums of sets tell the sets apart (splitmix64,
    Steele 2014).
    """
    with np.errstate(over="ignore"):
        z = offset.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def row_size(state_size: int, entries: int, anchor: bool, types: int, older: int = 0) -> int:
    """Bytes of one encoded row; `types`: how many different event types its entries have."""
    floats = state_size * (2 if anchor else 1)
    return HEADER.itemsize + 4 * floats + entries * ENTRY.itemsize + (types + older) * _HASH


def unpacked(count: NDArray[np.int64], values: NDArray[_T]) -> NDArray[_T]:
    """The first `count` values of each row of a matrix, given one after another, as that matrix again, padded
    with zeros: [n, max(count)].
    """
    padded = np.zeros((len(count), int(count.max(initial=0))), values.dtype)
    padded[np.arange(padded.shape[1]) < count[:, None]] = values
    return padded


# Station 9: the bytes of rows, which the next checkpoint writes.
def encode_rows(rows: Rows) -> list[bytes]:
    """The values to write, one per row, in order. Lengths must lie within the columns: compiled loops do not
    check them.
    """
    # 1. Each row's event types, each once.
    n, state_size = rows.hidden.shape
    anchored = rows.anchor_time != NO_TIME
    length, older = rows.length.astype(np.int64), filled_lengths(rows.older)
    types, type_number = np.empty((n, WINDOW), np.uint64), np.empty((n, WINDOW), np.uint8)
    type_count = np.empty(n, np.int64)
    number_types(rows.type, length, types, type_number, type_count)
    # 2. Headers.
    header = np.zeros(n, HEADER)
    header["magic"] = b"ED"
    header["format"] = FORMAT
    header["flags"] = np.where(anchored, _HAS_ANCHOR, 0)
    header["state_size"] = state_size
    header["topic_id"] = np.void(rows.topic_id)
    header["entries"], header["types"] = length, type_count
    header["first_time"] = rows.time[:, 0]
    for name in ("epoch", "version", "partition", "offset", "applied", "digest", "anchor_time"):
        header[name] = getattr(rows, name)
    # 3. Where each row begins and ends, and its bytes but for the checksum.
    size = row_size(state_size, 0, anchor=False, types=0) + 4 * state_size * anchored
    size += length * ENTRY.itemsize + (type_count + older) * _HASH
    end = np.cumsum(size)
    start = end - size
    written = np.empty(int(size.sum()), np.uint8)
    write_rows(
        start, _as_bytes(header[:, None]), _as_bytes(rows.hidden.astype("<f4", copy=False)),
        _as_bytes(rows.anchor.astype("<f4", copy=False)), anchored, length, rows.item,
        rows.time - header["first_time"][:, None], rows.event_id, type_number,
        rows.value.view(np.uint16), types, type_count, rows.older, older, written,
    )  # fmt: skip
    # 4. Checksums.
    bounds = list(zip(start.tolist(), end.tolist(), strict=True))
    view = memoryview(written)  # type: ignore[arg-type]
    crc = np.fromiter((zlib.crc32(view[first + _CHECKED_FROM : stop]) for first, stop in bounds), "<u4", n)
    written[start[:, None] + (_CHECKED_FROM - 4 + np.arange(4))] = _as_bytes(crc[:, None])
    data = written.tobytes()
    return [data[first:stop] for first, stop in bounds]


def keyed(rows: Rows) -> Iterator[tuple[bytes, bytes]]:
    """(user, value) of each row, as they are written."""
    return zip(rows.user, encode_rows(rows), strict=True)


def _as_bytes(columns: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each row of a two-dimensional array: uint8[n, width]."""
    n, width = columns.shape
    return np.ascontiguousarray(columns).view(np.uint8).reshape(n, width * columns.itemsize)


def decode_rows(user: Sequence[bytes], values: Sequence[bytes]) -> list[Rows]:
    """Rows from their values, grouped by (topic id, state size): one group, unless the topic or the model
    changed. Columns may be views of one common, read-only buffer.

    Errors: RowFormatError for an unknown format, a wrong checksum or lengths that do not fit, naming the
    user.
    """
    # 1. Headers, and how many older items each row must have, given its length.
    n = len(values)
    size = np.fromiter(map(len, values), np.int64, n)
    if n and size.min() < HEADER.itemsize:
        short = int(np.argmax(size < HEADER.itemsize))
        raise RowFormatError(
            f"row of user {user[short]!r}: {size[short]} bytes is too short; the topic is damaged"
        )
    header = np.frombuffer(b"".join([value[: HEADER.itemsize] for value in values]), HEADER)
    crc = np.fromiter(map(zlib.crc32, [value[_CHECKED_FROM:] for value in values]), np.uint32, n)
    anchored = (header["flags"] & _HAS_ANCHOR).astype(np.int64)
    state_size = header["state_size"].astype(np.int64)
    window = header["entries"].astype(np.int64) * ENTRY.itemsize
    hash_bytes = size - (HEADER.itemsize + 4 * state_size * (1 + anchored) + window)
    older = hash_bytes // _HASH - header["types"]
    # 2. Refuse what was not written by this format, or not as it is now.
    for wrong, reason in (
        (
            (header["magic"] != b"ED") | (header["format"] != FORMAT),
            "has a format that this version does not know",
        ),
        (header["crc"] != crc, "does not match its checksum"),
        (
            (hash_bytes % _HASH != 0) | (older < 0) | (older > OLDER) | (header["entries"] >= WINDOW),
            "has a length that does not fit its header",
        ),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            raise _refusal(user[i], header[i], reason, int(size[i]))
    # 3. Group, and decode each group by columns.
    groups = []
    rest = np.arange(n)
    while len(rest):
        same = (header["topic_id"][rest] == header["topic_id"][rest[0]]) & (
            state_size[rest] == state_size[rest[0]]
        )
        groups.append(_decode_group(user, values, header, older, rest[same]))
        rest = rest[~same]
    return groups


def _refusal(user: bytes, header: np.void, reason: str, size: int) -> RowFormatError:
    row = f"format {header['format']} after {bytes(header['magic'])!r}, {size} bytes"
    return RowFormatError(
        f"row of user {user.decode(errors='replace')!r} {reason} ({row}): "
        "use the version of Eddy that wrote it"
    )


def _decode_group(
    user: Sequence[bytes], values: Sequence[bytes], header: NDArray[np.void], older: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> Rows:  # fmt: skip
    """The chosen rows, which are of one topic and one state size. `older` [n]: how many older items each row
    has.
    """
    if len(chosen) < len(values):
        user, values = [user[i] for i in chosen.tolist()], [values[i] for i in chosen.tolist()]
        header, older = header[chosen], older[chosen]
    # 1. States and window entries, as views of one buffer.
    types = header["types"].astype(np.int64)
    hidden, anchor, entry, tails = _states_and_entries(values, header, _HASH * (types + older))
    filled = np.arange(WINDOW) < header["entries"][:, None]
    # 2. Numbers that entries keep in 5 bytes.
    time = entry["time_high"].astype(np.int64) << 32
    time += entry["time_low"]
    time += header["first_time"][:, None]
    time *= filled
    event_id = entry["event_id_high"].astype(np.uint64) << np.uint64(32)
    event_id += entry["event_id_low"]
    # 3. Hashes after the entries: a row's event types, then its older items.
    hashes = np.frombuffer(b"".join(tails), "<u8")
    count = types + older
    first = np.cumsum(count) - count
    type_ = np.empty((len(values), WINDOW), np.uint64)
    wrong = read_types(entry["type"], header["entries"], hashes, first, types, type_)
    if wrong >= 0:
        reason = "has an entry of a type that it does not name"
        raise _refusal(user[wrong], header[wrong], reason, len(values[wrong]))
    is_older = np.arange(len(hashes)) - np.repeat(first, count) >= np.repeat(types, count)
    return Rows(
        user=user,
        topic_id=header["topic_id"][0].tobytes(),
        hidden=hidden,
        anchor=anchor,
        length=header["entries"],
        item=entry["item"],
        time=time,
        type=type_,
        value=np.where(filled, entry["value"], np.float16("nan")),
        event_id=event_id,
        older=unpacked(older, hashes[is_older]),
        **{
            name: header[name]
            for name in ("epoch", "version", "partition", "offset", "applied", "digest", "anchor_time")
        },
    )


def _states_and_entries(
    values: Sequence[bytes], header: NDArray[np.void], tail_bytes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.void], list[bytes]]:
    """Hidden states [n, S], anchors [n, S], entries [n, WINDOW], and each value's last `tail_bytes` bytes.

    Each value but for its tail is brought to one width, with room for an anchor and a full window, in a
    single join; the columns are then views of that buffer, at equal distances.
    """
    n, state_size = len(values), int(header["state_size"][0])
    floats = 4 * state_size
    split = HEADER.itemsize + floats  # where an anchor is, or would be
    width = split + floats + WINDOW * ENTRY.itemsize + _PAD
    pieces: list[bytes] = []
    tails: list[bytes] = []
    no_anchor, padding = bytes(floats), [bytes(i * ENTRY.itemsize + _PAD) for i in range(WINDOW + 1)]
    for value, flags, missing, tail in zip(
        values, header["flags"].tolist(), (WINDOW - header["entries"]).tolist(), tail_bytes.tolist(),
        strict=True,
    ):  # fmt: skip
        end = len(value) - tail
        tails.append(value[end:])
        if flags & _HAS_ANCHOR:
            pieces += (value[:end], padding[missing])
        else:
            pieces += (value[:split], no_anchor, value[split:end], padding[missing])
    buffer = b"".join(pieces)
    hidden, anchor = (
        np.ndarray((n, state_size), "<f4", buffer, at, (width, 4)) for at in (HEADER.itemsize, split)
    )
    entry = np.ndarray((n, WINDOW), ENTRY, buffer, split + floats, (width, ENTRY.itemsize))
    return hidden, anchor, entry, tails
