"""The binary form of a row on `user-state`: versioned, checksummed, and encoded and decoded by whole
columns.

One record per user, key = user_id in UTF-8, value =

    header (79 bytes) | hidden state float32[S] | anchor float32[S], if any | window entries (22 bytes
    each), oldest first

all little-endian. The anchor is left out while it is zero, so a young row is short; a full one (GRU, S =
128, 49 entries) has 2,181 bytes. Unlike the design's first sketch a window entry carries no source offset:
inside one partition the stored order already says it, and `digest`, the sum of a mix of every applied
offset, proves over the whole history (not just the window) that each record was applied once, for 8 bytes
in all.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import EddyError

WINDOW = 50
"""Events after the anchor at which the older half is dropped, so a stored row has at most WINDOW - 1
entries.
"""

FORMAT = 1
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
        ("type", "<u2"),
        ("value", "<f2"),
    ]
)


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
    """[n] sum of `mix(offset)` over the applied events, of all topics the row has lived in, modulo 2^64"""
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
    type: NDArray[np.uint16]
    """[n, WINDOW] `type_hash` of the event type"""
    value: NDArray[np.float16]
    """[n, WINDOW]"""
    event_id: NDArray[np.uint64]
    """[n, WINDOW] 40-bit hashes, 0 = none"""


def mix(offset: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A bijection that spreads offsets over 64 bits, so that sums of sets tell the sets apart (splitmix64,
    Steele 2014).
    """
    with np.errstate(over="ignore"):
        z = offset.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def row_size(state_size: int, entries: int, anchor: bool) -> int:
    """Bytes of one encoded row."""
    return HEADER.itemsize + 4 * state_size * (2 if anchor else 1) + entries * ENTRY.itemsize


def encode_rows(rows: Rows) -> list[bytes]:
    """The values to write, one per row, in order."""
    n, state_size = rows.hidden.shape
    out: list[bytes] = [b""] * n
    anchored = rows.anchor_time != NO_TIME
    for has_anchor in (False, True):
        chosen = np.flatnonzero(anchored == has_anchor)
        if not len(chosen):
            continue
        header = np.zeros(len(chosen), HEADER)
        header["magic"] = b"ED"
        header["format"] = FORMAT
        header["flags"] = _HAS_ANCHOR if has_anchor else 0
        header["state_size"] = state_size
        header["topic_id"] = np.void(rows.topic_id)
        header["entries"] = rows.length[chosen]
        header["first_time"] = rows.time[chosen, 0]
        for name in ("epoch", "version", "partition", "offset", "applied", "digest", "anchor_time"):
            header[name] = getattr(rows, name)[chosen]
        entry = np.zeros((len(chosen), WINDOW), ENTRY)
        entry["item"] = rows.item[chosen]
        since = rows.time[chosen] - header["first_time"][:, None]
        entry["time_low"] = since & 0xFFFFFFFF
        entry["time_high"] = since >> 32
        entry["event_id_low"] = rows.event_id[chosen] & np.uint64(0xFFFFFFFF)
        entry["event_id_high"] = rows.event_id[chosen] >> np.uint64(32)
        entry["type"] = rows.type[chosen]
        entry["value"] = rows.value[chosen]
        parts = [_as_bytes(header[:, None]), _as_bytes(rows.hidden[chosen].astype("<f4", copy=False))]
        if has_anchor:
            parts.append(_as_bytes(rows.anchor[chosen].astype("<f4", copy=False)))
        parts.append(_as_bytes(entry))
        blob = np.hstack(parts)
        width = blob.shape[1]
        size = (width - (WINDOW - header["entries"].astype(np.int64)) * ENTRY.itemsize).tolist()
        data = memoryview(blob.tobytes())
        for i, target in enumerate(chosen.tolist()):
            start = i * width
            crc = zlib.crc32(data[start + _CHECKED_FROM : start + size[i]])
            out[target] = b"".join(
                (
                    data[start : start + 4],
                    crc.to_bytes(4, "little"),
                    data[start + _CHECKED_FROM : start + size[i]],
                )
            )
    return out


def _as_bytes(columns: NDArray[np.void] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bytes of each row of a two-dimensional array: uint8[n, width]."""
    return np.ascontiguousarray(columns).view(np.uint8).reshape(len(columns), -1)


def decode_rows(user: Sequence[bytes], values: Sequence[bytes]) -> list[Rows]:
    """Rows from their values, grouped by (topic id, state size): one group, unless the topic or the model
    changed.

    Errors: RowFormatError for an unknown format, a wrong checksum or lengths that do not fit, naming the
    user.
    """
    n = len(values)
    short = next((i for i in range(n) if len(values[i]) < HEADER.itemsize), None)
    if short is not None:
        raise RowFormatError(
            f"row of user {user[short]!r}: {len(values[short])} bytes is too short; the topic is damaged"
        )
    header = np.frombuffer(b"".join([value[: HEADER.itemsize] for value in values]), HEADER)
    crc = np.fromiter((zlib.crc32(value[_CHECKED_FROM:]) for value in values), np.uint32, n)
    size = np.fromiter(map(len, values), np.int64, n)
    anchored = (header["flags"] & _HAS_ANCHOR).astype(np.int64)
    state_size = header["state_size"].astype(np.int64)
    window = header["entries"].astype(np.int64) * ENTRY.itemsize
    expected = HEADER.itemsize + 4 * state_size * (1 + anchored) + window
    for wrong, reason in (
        (
            (header["magic"] != b"ED") | (header["format"] != FORMAT),
            "has a format that this version does not know",
        ),
        (header["crc"] != crc, "does not match its checksum"),
        ((size != expected) | (header["entries"] >= WINDOW), "has a length that does not fit its header"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            found = f"format {header['format'][i]} after {bytes(header['magic'][i])!r}, {size[i]} bytes"
            raise RowFormatError(
                f"row of user {user[i].decode(errors='replace')!r} {reason} ({found}): "
                f"use the version of Eddy that wrote it, or erase the user"
            )
    groups: dict[tuple[bytes, int], list[int]] = {}
    for i, (topic_id, length) in enumerate(
        zip(header["topic_id"].tolist(), state_size.tolist(), strict=True)
    ):
        groups.setdefault((topic_id, length), []).append(i)
    return [_decode_group(user, values, header, np.array(chosen), *key) for key, chosen in groups.items()]


def _decode_group(
    user: Sequence[bytes],
    values: Sequence[bytes],
    header: NDArray[np.void],
    chosen: NDArray[np.int64],
    topic_id: bytes,
    state_size: int,
) -> Rows:
    header = header[chosen]
    n, floats = len(chosen), 4 * state_size
    hidden = np.zeros((n, state_size), np.float32)
    anchor = np.zeros((n, state_size), np.float32)
    entry = np.zeros((n, WINDOW), ENTRY)
    anchored = (header["flags"] & _HAS_ANCHOR) > 0
    for has_anchor in (False, True):
        rows = np.flatnonzero(anchored == has_anchor)
        if not len(rows):
            continue
        start = HEADER.itemsize + floats * (2 if has_anchor else 1)
        width = start + WINDOW * ENTRY.itemsize
        blob = np.frombuffer(
            b"".join([values[i].ljust(width, b"\0") for i in chosen[rows].tolist()]), np.uint8
        )
        blob = blob.reshape(len(rows), width)
        hidden[rows] = _floats(blob[:, HEADER.itemsize : HEADER.itemsize + floats])
        if has_anchor:
            anchor[rows] = _floats(blob[:, start - floats : start])
        entry[rows] = np.ascontiguousarray(blob[:, start:]).view(ENTRY)
    filled = np.arange(WINDOW) < header["entries"][:, None]
    time = (entry["time_high"].astype(np.int64) << 32) + entry["time_low"] + header["first_time"][:, None]
    return Rows(
        user=[user[i] for i in chosen.tolist()],
        topic_id=topic_id,
        hidden=hidden,
        anchor=anchor,
        length=header["entries"],
        item=entry["item"],
        time=np.where(filled, time, 0),
        type=entry["type"],
        value=np.where(filled, entry["value"], np.float16("nan")),
        event_id=(entry["event_id_high"].astype(np.uint64) << np.uint64(32)) + entry["event_id_low"],
        **{
            name: header[name]
            for name in ("epoch", "version", "partition", "offset", "applied", "digest", "anchor_time")
        },
    )


def _floats(columns: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(columns).view("<f4").astype(np.float32, copy=False)
