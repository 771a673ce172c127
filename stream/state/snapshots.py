"""Local snapshots: a partition's rows by columns in one file, so that a restart reads only the changelog's
tail.

    blocks of up to 2,048 rows | hashes of items | hashes of event types | description (JSON) | its length
    and checksum (16 bytes)

Blocks and hashes have checksums in the description, which are verified before anything of a block is used; a
column of zeros is left out. Windows name items and event types by their places among the hashes, which are
looked up once for all rows. A file is written beside the old one, synced and renamed. A file that is torn, of
another topic, or so old that the changelog may have forgotten a tombstone since is discarded with a message:
the changelog alone is always enough.
"""

import io
import json
import logging
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from eddy.models.errors import EddyError
from eddy.models.vocabulary import Catalogue
from eddy.stream.state.catalogue_indices import CatalogueIndices
from eddy.stream.state.rows import WINDOW, Rows

log = logging.getLogger("eddy.snapshots")

FORMAT = 4
BLOCK_ROWS = 2_048
"""Rows of a block: a few megabytes, which stay in the processor's cache between reading and loading."""

AHEAD_MS = 3_600_000
"""A file from further in the future was written by a clock that was wrong: nobody knows its age."""

_TAIL = struct.Struct("<QQ")
_STATE, _OLDER = -1, -2  # stand for the floats of a state, and for the most older items of a row in the block
# Widest first, so that each column of a block lies at a multiple of its width.
_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "version": ("<u8", ()),
    "offset": ("<i8", ()),
    "digest": ("<u8", ()),
    "anchor_time": ("<i8", ()),
    "time": ("<i8", (WINDOW,)),
    "event_id": ("<u8", (WINDOW,)),
    "hidden": ("<f4", (_STATE,)),
    "anchor": ("<f4", (_STATE,)),
    "item": ("<i4", (WINDOW,)),
    "epoch": ("<u4", ()),
    "partition": ("<i4", ()),
    "applied": ("<u4", ()),
    "key_bytes": ("<u4", ()),
    "older": ("<i4", (_OLDER,)),
    "type": ("<u2", (WINDOW,)),
    "value": ("<f2", (WINDOW,)),
    "length": ("u1", ()),
}


class Unusable(EddyError):
    """A snapshot that is not to be trusted; the message is the reason."""


@dataclass(frozen=True)
class Snapshot:
    """A partition's rows at one moment of its changelog, on their way to a file."""

    position: int
    """offset of `user-state` from which on the changelog holds what is newer"""
    topic_id: bytes
    blocks: Iterable[Rows]
    """each of at most BLOCK_ROWS rows"""


def snapshots_folder(folder: Path) -> Path:
    """Where workers with this cache folder keep their snapshots, in a folder for each group."""
    return folder / "snapshots"


def snapshot_path(folder: Path, group: str, topic_id: bytes, partition: int) -> Path:
    """Where a worker of this group keeps the partition's snapshot."""
    return snapshots_folder(folder) / group / f"{topic_id.hex()}-{partition}.snapshot"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace the file atomically. Errors: EddyError when it cannot be written; then the old one stays."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _write(file, snapshot)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise EddyError(
            f"snapshot {path}: cannot be written ({error}); check space and permissions"
        ) from None


def _write(file: BinaryIO, snapshot: Snapshot) -> None:
    # Place 0 stands for no item and no type. A slab has no more types than two bytes can tell apart.
    items, types = Catalogue(np.zeros(1, np.uint64)), Catalogue(np.zeros(1, np.uint64))
    blocks = []
    for rows in snapshot.blocks:
        absent, parts = [], []
        for name, (dtype, _) in _COLUMNS.items():
            column = _stored(rows, name, items, types)
            if column.any():
                parts.append(np.ascontiguousarray(column, dtype).tobytes())
            else:
                absent.append(name)
        data = b"".join([*parts, *rows.user])
        file.write(data)
        blocks.append(
            {
                "rows": len(rows.user),
                "state_size": rows.hidden.shape[1],
                "older": rows.older.shape[1],
                "absent": absent,
                "bytes": len(data),
                "xxh3": xxh3_64_intdigest(data),
            }
        )
    about = {
        "format": FORMAT,
        "topic_id": snapshot.topic_id.hex(),
        "position": snapshot.position,
        "written_at": time.time_ns() // 1_000_000,
        "blocks": blocks,
        "items": _write_hashes(file, items),
        "types": _write_hashes(file, types),
    }
    description = json.dumps(about).encode()
    file.write(description)
    file.write(_TAIL.pack(len(description), xxh3_64_intdigest(description)))


def _write_hashes(file: BinaryIO, named: Catalogue) -> dict[str, int]:
    """Write the hashes; returns what the description says of them."""
    data = named.hashes.astype("<u8").tobytes()
    file.write(data)
    return {"bytes": len(data), "xxh3": xxh3_64_intdigest(data)}


def _stored(rows: Rows, name: str, items: Catalogue, types: Catalogue) -> NDArray[Any]:
    """A column as it is stored; its items and types are added to those of the snapshot."""
    if name in ("item", "older", "type"):
        hashes, named = getattr(rows, name), types if name == "type" else items
        return named.add(np.ravel(hashes)).reshape(hashes.shape)
    if name == "key_bytes":
        return np.fromiter(map(len, rows.user), np.uint32, len(rows.user))
    return np.asarray(getattr(rows, name))


class SnapshotReader:
    """An open snapshot."""

    def __init__(self, file: BinaryIO, topic_id: bytes, max_age_ms: int) -> None:
        self._file, self._topic_id = file, topic_id
        file.seek(-_TAIL.size, io.SEEK_END)
        end = file.tell()
        length, checksum = _TAIL.unpack(file.read(_TAIL.size))
        if length > end:
            raise Unusable("its end is missing")
        file.seek(end - length)
        description = file.read(length)
        if xxh3_64_intdigest(description) != checksum:
            raise Unusable("checksum of its description is wrong")
        about = json.loads(description)
        if about["format"] != FORMAT:
            raise Unusable(f"format {about['format']}, this version reads {FORMAT}")
        if about["topic_id"] != topic_id.hex():
            raise Unusable("of another topic")
        age = time.time_ns() // 1_000_000 - int(about["written_at"])
        if age < -AHEAD_MS:
            raise Unusable(f"written {-age / 3_600_000:.1f} hours ahead of this machine's clock")
        if age > max_age_ms:
            raise Unusable(f"{age / 3_600_000:.1f} hours old, tombstones may be forgotten since")
        self.position = int(about["position"])
        self._blocks = about["blocks"]
        self.rows = sum(block["rows"] for block in self._blocks)
        file.seek(sum(block["bytes"] for block in self._blocks))
        self.items: NDArray[np.uint64] = np.frombuffer(self._read(about["items"], "the items"), "<u8")
        """item hashes by place; place 0 stands for no item"""
        self.types: NDArray[np.uint64] = np.frombuffer(self._read(about["types"], "the event types"), "<u8")
        """hashes of event types by place; place 0 stands for no type"""

    def _read(self, part: dict[str, Any], name: str) -> bytes:
        data = self._file.read(part["bytes"])
        if xxh3_64_intdigest(data) != part["xxh3"]:
            raise Unusable(f"checksum of {name} is wrong")
        return data

    def blocks(self) -> Iterator[tuple[Rows, CatalogueIndices]]:
        """Rows in parts of bounded size, and their items and types as places among `items` and `types`.

        Errors: Unusable; the rows that were given before are right, but not all.
        """
        self._file.seek(0)
        for number, block in enumerate(self._blocks):
            yield self._decode(block, self._read(block, f"block {number}"))

    def _decode(self, block: dict[str, Any], data: bytes) -> tuple[Rows, CatalogueIndices]:
        n, at = int(block["rows"]), 0
        sizes = {_STATE: int(block["state_size"]), _OLDER: int(block["older"])}
        columns: dict[str, NDArray[Any]] = {}
        for name, (dtype, inner) in _COLUMNS.items():
            shape = (n, *(sizes.get(size, size) for size in inner))
            if name in block["absent"]:
                columns[name] = np.zeros(shape, dtype)
            else:
                columns[name] = np.ndarray(shape, dtype, data, at)
                at += columns[name].nbytes
        ends = (at + np.cumsum(columns.pop("key_bytes"), dtype=np.int64)).tolist()
        user = [data[start:end] for start, end in zip([at, *ends[:-1]], ends, strict=True)]
        place = CatalogueIndices(columns.pop("item"), columns.pop("older"), columns.pop("type"))
        rows = Rows(
            user=user,
            topic_id=self._topic_id,
            item=self.items[place.item],
            older=self.items[place.older],
            type=self.types[place.type],
            **columns,
        )
        return rows, place


@contextmanager
def open_snapshot(path: Path, topic_id: bytes, max_age_ms: int) -> Iterator[SnapshotReader]:
    """Read a snapshot. Errors: FileNotFoundError; Unusable, also from reading its blocks inside."""
    try:
        with path.open("rb") as file:
            yield SnapshotReader(file, topic_id, max_age_ms)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"unreadable: {error}") from None


def discard_snapshot(path: Path) -> None:
    """Remove the file, if it is there. If it cannot be removed, a warning says so: its bytes outlive an
    erasure, but what the changelog says of its users wins over it until it is too old to be read.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("snapshot %s: cannot be removed (%s); remove it by hand", path, error)


def discard_those_of_another_changelog(
    folder: Path, group: str, topic_id: bytes, changelog_id: bytes
) -> None:
    """Remove the snapshots of this `events` topic that were written beside another `user-state` topic than
    the one that is there now. Their positions mean nothing in it, so that erased users and older rows could
    come back. A file beside them names the topic that they belong to.

    Errors: EddyError when one of them cannot be removed, since it would be used.
    """
    beside = snapshots_folder(folder) / group / f"{topic_id.hex()}.changelog"
    try:
        named = beside.read_bytes()
    except OSError:  # most likely there is none yet
        named = b""
    if named == changelog_id.hex().encode():
        return
    for path in beside.parent.glob(f"{topic_id.hex()}-*.snapshot"):
        log.warning("snapshot %s is discarded (not known to be of this changelog)", path.name)
        discard_snapshot(path)
        if path.exists():
            raise EddyError(
                f"snapshot {path}: is not of this changelog, and cannot be removed; do so by hand"
            )
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(changelog_id.hex())
    except OSError as error:
        log.warning("snapshots %s: cannot be kept (%s); check space and permissions", beside.parent, error)


def sweep_snapshots(folder: Path, group: str, max_age_ms: int) -> None:
    """Remove files that are too old to be used, or of a wrong clock, of whichever partition or process: an
    erased user may be in them.
    """
    now = time.time()
    oldest, newest = now - max_age_ms / 1000, now + AHEAD_MS / 1000
    for path in (snapshots_folder(folder) / group).glob("*"):
        with suppress(OSError):  # another process may sweep here, too
            if path.suffix != ".changelog" and not oldest <= path.stat().st_mtime <= newest:
                path.unlink()
