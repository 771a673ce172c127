"""Local snapshots: a partition's rows as columns in one file, so that a restart reads only the changelog's
tail.

Written aside, synced and renamed; every column has a checksum, and the topic id, the changelog position and
the time are part of the file. A snapshot that is torn, of another topic, or old enough that the changelog
may have forgotten a tombstone since, is discarded with a message: the changelog alone is always enough.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from xxhash import xxh3_64_hexdigest

from models.errors import EddyError
from stream.rows import Rows

log = logging.getLogger("eddy.snapshots")

FORMAT = 1
_BLOCK = 65_536
_META = "eddy"
_ARRAYS = [field.name for field in fields(Rows) if field.name not in ("user", "topic_id", "item")]


@dataclass(frozen=True)
class Snapshot:
    """A partition's rows at one moment of its changelog."""

    position: int
    """offset of `user-state` from which on the changelog holds what is newer"""
    rows: Rows


def snapshot_path(folder: Path, group: str, topic_id: bytes, partition: int) -> Path:
    """Where a worker of this group keeps the partition's snapshot."""
    return folder / "snapshots" / group / f"{topic_id.hex()}-{partition}.safetensors"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace the file atomically. Errors: EddyError when it cannot be written."""
    rows = snapshot.rows
    keys = np.frombuffer(b"".join(rows.user), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, rows.user), np.int64, len(rows.user)))
    hashes, item = np.unique(rows.item, return_inverse=True)
    arrays: dict[str, NDArray[np.generic]] = {name: getattr(rows, name) for name in _ARRAYS}
    arrays |= {"keys": keys, "ends": ends, "item_hashes": hashes}
    arrays["item"] = item.reshape(rows.item.shape).astype(np.int32)
    stored = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = {
        "format": FORMAT,
        "topic_id": rows.topic_id.hex(),
        "position": snapshot.position,
        "written_at": time.time_ns() // 1_000_000,
        "checksums": {name: xxh3_64_hexdigest(array.tobytes()) for name, array in stored.items()},
    }
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(stored, aside, {_META: json.dumps(about)})
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise EddyError(
            f"snapshot {path}: cannot be written ({error}); check space and permissions"
        ) from None


def read_snapshot(path: Path, topic_id: bytes, max_age_ms: int) -> Snapshot | None:
    """The snapshot, or None (said in the log) when there is none that can be trusted."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_META])
            reason = _unfit(about, topic_id, max_age_ms)
            if reason is None:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                if set(arrays) == {*_ARRAYS, "keys", "ends", "item_hashes", "item"}:
                    torn = [
                        name
                        for name, array in arrays.items()
                        if xxh3_64_hexdigest(array.tobytes()) != about["checksums"][name]
                    ]
                    reason = f"checksum of {torn[0]} is wrong" if torn else None
                else:
                    reason = "columns are missing"
        if reason is None:
            return Snapshot(int(about["position"]), _rows(arrays, topic_id))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        reason = f"unreadable: {error}"
    log.warning("snapshot %s is discarded (%s); restoring from the changelog", path.name, reason)
    discard_snapshot(path)
    return None


def discard_snapshot(path: Path) -> None:
    """Remove the file, if it is there."""
    path.unlink(missing_ok=True)


def _unfit(about: dict[str, object], topic_id: bytes, max_age_ms: int) -> str | None:
    if about["format"] != FORMAT:
        return f"format {about['format']}"
    if about["topic_id"] != topic_id.hex():
        return "of another topic"
    age = time.time_ns() // 1_000_000 - int(str(about["written_at"]))
    if age > max_age_ms:
        return f"{age / 3_600_000:.1f} hours old, tombstones may be forgotten since"
    return None


def _rows(arrays: dict[str, Any], topic_id: bytes) -> Rows:
    ends = arrays["ends"].tolist()
    keys = arrays["keys"].tobytes()
    user = [keys[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return Rows(
        user=user,
        topic_id=topic_id,
        item=arrays["item_hashes"][arrays["item"]],
        **{name: arrays[name] for name in _ARRAYS},
    )


def blocks(rows: Rows) -> Iterator[Rows]:
    """Consecutive parts of bounded size, so that loading needs no second copy of everything."""
    for start in range(0, len(rows.user), _BLOCK):
        part = slice(start, start + _BLOCK)
        columns = {name: getattr(rows, name)[part] for name in [*_ARRAYS, "item", "user"]}
        yield Rows(topic_id=rows.topic_id, **columns)
