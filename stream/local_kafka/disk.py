"""Data goes to a disk with room for it, never to a file system in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from eddy.models.errors import EddyError

_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


def require_disk(folder: Path, free_bytes: int) -> None:
    """Errors: EddyError when `folder`, which need not exist yet, is in memory or has too little room."""
    existing = next(path for path in (folder, *folder.parents) if path.exists()).resolve()
    if file_system(existing) in _IN_MEMORY:
        raise EddyError(f"{folder} is on a file system in memory: set EDDY_CACHE_DIR to a folder on a disk")
    free = shutil.disk_usage(existing).free
    if free < free_bytes:
        raise EddyError(
            f"{folder}: {free / 1e9:.1f} GB free, {free_bytes / 1e9:.1f} GB needed: free some space, or set "
            "EDDY_CACHE_DIR to a folder on another disk"
        )


def file_system(path: Path) -> str:
    """The type of the file system that holds this existing, resolved path; "" when it is unknown."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in (path, *path.parents) if folder in mounts), "")
