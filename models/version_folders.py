"""The folders of versions: how one gets into a registry, out of it, and onto this machine.

In a folder of this machine, a version appears and disappears by a rename, under the registry's lock. On
object storage there are neither. There a version is what has a version.json, which is written last and
removed first, and what is loaded is copied to this machine once, since a version never changes. Two machines
that publish at once both get a version, perhaps of one number; the random suffix tells them apart, and orders
them.
"""

import hashlib
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from eddy.models.atomic_files import atomic_write, sync
from eddy.models.descriptions import DESCRIPTION, Description, number_of, numbered, versions
from eddy.models.errors import EddyError
from eddy.models.locks import locked
from eddy.models.storage import Location, one_line

_DRAFT = ".writing"
_LEFTOVER = re.compile(r"^\.(writing(-[0-9a-f]+)?|v\d{6,})$")
"""Names of unfinished and of removed versions, and of folders by which earlier releases claimed the next
number.
"""

_HIDDEN = "removed.json"
"""What the description of a version on object storage is called while it is being removed."""

_CHUNK = 16 << 20
_UNFINISHED_S = 86_400
"""A folder on object storage that is no version, and in which nothing was written for so long, is a
leftover.
"""

Write = Callable[[Path], None]
"""Writes all files of a version into a folder."""


def add_version(registry: Location, write: Write) -> Location:
    """Give a version the next number; returns where it is. Only for the holder of the registry's lock.

    Errors: those of `write`; OSError.
    """
    number = max(numbered(registry).values(), default=0) + 1
    version = registry / f"v{number:06d}-{secrets.token_hex(4)}"
    if not registry.is_remote:
        with atomic_write(Path(version), Path(registry / _DRAFT)) as draft:
            draft.mkdir()
            write(draft)
        return version
    # What goes up becomes this machine's copy. Whoever fetches meanwhile removes copies of what is no version
    # yet, but no draft of this name. The description goes up last.
    copy = _copy_folder(version)
    with atomic_write(copy, copy.with_name(_DRAFT)) as draft:
        shutil.rmtree(draft, ignore_errors=True)  # that of a killed process
        draft.mkdir()
        write(draft)
        description = (draft / DESCRIPTION).read_bytes()
        for file in sorted(draft.iterdir()):
            if file.name != DESCRIPTION:
                with file.open("rb") as source, (version / file.name).writing() as target:
                    shutil.copyfileobj(source, target, _CHUNK)
    (version / DESCRIPTION).write(description)
    return version


def local_files(about: Description) -> Path:
    """The folder on this machine with a version's files, undamaged: its own or, for a version on object
    storage, a copy, which is made if it is missing.

    Errors: EddyError when a file is missing, or is not what was published.
    """
    if not about.location.is_remote:
        path = Path(about.location)
        require_undamaged(path, about.digests)
        return path
    copy = _copy_folder(about.location)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with locked(copy.parent / ".lock", "another process to fetch a version"):
            if not _is_good(copy, about):
                _fetch(about, copy)
    except OSError as error:
        raise EddyError(f"{about.location}: cannot be fetched into {copy} ({one_line(error)})") from None
    return copy


def _copy_folder(version: Location) -> Path:
    return version.parent.work_folder / "versions" / version.name


def _is_good(copy: Path, about: Description) -> bool:
    try:
        require_undamaged(copy, about.digests)
    except EddyError:
        return False
    return (copy / DESCRIPTION).is_file()


def _fetch(about: Description, copy: Path) -> None:
    """Make a copy, and remove those of versions that have left the registry. Errors: EddyError, OSError."""
    there = {about.id, *versions(about.location.parent), _DRAFT}
    for folder in copy.parent.iterdir():
        if folder.is_dir() and folder.name not in there:
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)
    with atomic_write(copy) as draft:
        draft.mkdir()
        for file in about.location.files():
            with file.location.stream(None) as source, (draft / file.location.name).open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
        require_undamaged(draft, about.digests, named=about.location)


def digest_of(file: Path) -> str:
    """The SHA-256 of a file. Errors: OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def require_undamaged(folder: Path, digests: dict[str, str], named: Location | Path | None = None) -> None:
    """Compare the files with the digests that were taken when they were written: a flipped bit of a weight is
    a number like any other. Versions of earlier commits have no digests.

    named: where the user finds the files [default: `folder`]. Errors: EddyError.
    """
    for name, digest in digests.items():
        try:
            now = digest_of(folder / name)
        except OSError as error:
            raise EddyError(f"{(named or folder) / name}: unreadable ({error})") from None
        if now != digest:
            raise EddyError(
                f"{(named or folder) / name}: not what was published (its SHA-256 differs); restore it from "
                "a copy, or remove the version"
            )


def remove_leftovers(registry: Location) -> None:
    """Remove what killed processes left. Only for the holder of the lock; on object storage, where other
    machines publish without it, only what is old.

    Errors: OSError.
    """
    if not registry.is_remote:
        for name in registry.children():
            if _LEFTOVER.match(name):
                shutil.rmtree(Path(registry / name), ignore_errors=True)
        return
    changed: dict[str, int] = {}
    for file in registry.files():
        if len(file.folders) == 1 and number_of(file.folders[0]) is not None:
            changed[file.folders[0]] = max(file.modified_ms, changed.get(file.folders[0], 0))
    for name in changed.keys() - set(numbered(registry)):
        if time.time() - changed[name] / 1000 > _UNFINISHED_S:
            (registry / name).delete_folder()


def hide(registry: Location, id_: str) -> Location:
    """Let nobody load a version any more; returns what `show` and `delete` know it by. Errors: OSError."""
    version = registry / id_
    if registry.is_remote:
        (version / DESCRIPTION).copy_to(version / _HIDDEN)
        (version / DESCRIPTION).delete()
        return version
    hidden = registry / f"{_DRAFT}-{secrets.token_hex(4)}"
    Path(version).rename(hidden)
    return hidden


def show(registry: Location, id_: str, hidden: Location) -> None:
    """Bring a hidden version back. Errors: OSError."""
    if registry.is_remote:
        (hidden / _HIDDEN).copy_to(hidden / DESCRIPTION)
        (hidden / _HIDDEN).delete()
    else:
        Path(hidden).rename(registry / id_)


def delete(hidden: Location) -> None:
    """Remove a hidden version for good. Errors: OSError."""
    if hidden.is_remote:
        hidden.delete_folder()
        return
    folder = Path(hidden)
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def settle(registry: Location) -> None:
    """Wait until renames are on the disk. Errors: OSError."""
    if not registry.is_remote:
        sync(Path(registry))
