"""Files and folders that are there whole or not at all, whenever the process is killed or the machine stops.

A file or a folder is written under another name, its draft; the draft is synced to the disk and renamed, and
then the folder around it is synced, so that the new name is durable as well. Renaming within one folder is
atomic: a reader sees what was there before or what is there now. A killed process leaves its draft behind.
Whoever writes next overwrites or removes it, and readers must not take its name for the real one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile


@contextmanager
def atomic_write(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """Let the body write a file or a folder to the draft that it is given, then move that to `path`.

    A file at `path` is replaced; a folder needs a new name. The folder around `path` is made if missing.
    draft: a path in the same folder [default: `path` with ".writing" after its name]; name one where several
    processes may write the same file, or where readers choose files by their names.

    Errors: OSError. After any exception the draft is gone and what was at `path` before is still there.
    """
    draft = draft or path.with_name(f"{path.name}.writing")
    make_folder(path.parent)
    try:
        yield draft
        for entry in (*draft.rglob("*"), draft):
            sync(entry)
        draft.replace(path)
        sync(path.parent)
    finally:
        # After the rename there is no draft, and these do nothing.
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            draft.unlink()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing; their names are on the disk. Errors: OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def try_writing(folder: Path) -> None:
    """See whether a file can be made in a folder, which is made if missing. Errors: OSError when not."""
    make_folder(folder)
    with TemporaryFile(dir=folder):
        pass


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk. Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
