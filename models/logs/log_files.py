"""Which files a path of events or items stands for, local or on object storage, and what is known of each
before it is opened.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from eddy.models.errors import EddyError
from eddy.models.logs.formats.source import READABLE, path_error
from eddy.models.logs.manifests import EARLIER_STATE, newest_manifests
from eddy.models.storage import Location, Place, located, one_line, raise_unless_gone


@dataclass(frozen=True)
class LogFile:
    """A file of a log."""

    location: Location
    folders: tuple[str, ...] = ()
    """names of the folders that lead to it from the path that was given; "column=value" says a column"""
    bucket: int | None = None
    """the number of the partition whose users' events it holds, all of them and no other's; None: not
    known
    """
    rows: int | None = None
    earliest_ms: int | None = None
    latest_ms: int | None = None


class NoFiles(EddyError):
    """There is no file of events or items in a folder."""


def log_files(place: Place) -> list[LogFile]:
    """The file itself or, for a folder:

    - of an event log with manifests, or of a day or a bucket of it, the parts that the newest manifests list:
      by day, bucket and offset;
    - of any other folder, all files under it, also by links, sorted by path, except those whose name, or the
      name of a folder on their path, begins with . or _.

    Errors: NoFiles when a folder has none; EddyError when there is no such path, or the storage does not
    answer.
    """
    location = located(place)
    try:
        return _files(location)
    except OSError as error:
        raise path_error(location, f"cannot be listed ({one_line(error)}); check {location.advice}") from None


def _files(location: Location) -> list[LogFile]:
    if location.is_file():
        return [LogFile(location)]
    log, inside = _log_around(location)
    earlier = (log / EARLIER_STATE).is_file()
    manifests = {} if earlier else newest_manifests(log)
    if manifests:
        parts = [
            (part.day, bucket, part)
            for bucket, each in manifests.items()
            for part in each.manifest.parts
            if part.path.startswith(inside)
        ]
        files = [
            LogFile(
                log / part.path, tuple(part.path.removeprefix(inside).split("/")[:-1]), bucket, part.rows,
                part.earliest_ms, part.latest_ms,
            )
            for _, bucket, part in sorted(parts, key=lambda each: (*each[:2], each[2].first_offset))
        ]  # fmt: skip
    else:
        files = [
            LogFile(file, folders)
            for file, folders in _visible_files(location)
            # Of an earlier log that is being converted, the old files count.
            if not (earlier and any(name.startswith("bucket=") for name in folders))
        ]
    if not files and not location.is_folder():
        if not location.is_remote and Path(location).exists():
            raise path_error(location, "is a pipe or a device; write what comes from it to a file first")
        raise path_error(location, "no such file; check the path")
    if not files:
        why = "no event is in this log yet" if manifests else f"no file in this folder; give {READABLE}"
        raise NoFiles(f"{location}: {why}")
    return files


def _log_around(folder: Location) -> tuple[Location, str]:
    """The event log that a folder may be a day or a bucket of, and how paths of its parts begin there; the
    folder itself, where it is neither. Beside the parts that count, such a folder holds replaced ones.
    """
    if folder.name.startswith("day="):
        return folder.parent, f"{folder.name}/"
    if folder.name.startswith("bucket=") and folder.parent.name.startswith("day="):
        return folder.parent.parent, f"{folder.parent.name}/{folder.name}/"
    return folder, ""


def _visible_files(location: Location) -> list[tuple[Location, tuple[str, ...]]]:
    """The files under a folder, sorted, with the names of the folders that lead to each; on this machine also
    those to which links lead.

    Errors: EddyError for a link to nothing, whose events would be missing.
    """
    if location.is_remote:
        listed = [(file.location, file.folders) for file in location.files()]
        return [(file, names) for file, names in listed if not any(map(_is_hidden, (*names, file.name)))]
    root, paths = Path(location), list[Path]()
    for at, folders, names in os.walk(root, onerror=raise_unless_gone, followlinks=True):
        folder = Path(at)
        folders[:] = [name for name in folders if not (_is_hidden(name) or _leads_upwards(folder / name))]
        paths += [folder / name for name in names if not _is_hidden(name)]
    for path in paths:
        if not path.exists():
            raise path_error(located(path), "is a link to nothing; correct or remove it")
    return [(located(path), path.relative_to(root).parts[:-1]) for path in sorted(paths) if path.is_file()]


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _leads_upwards(folder: Path) -> bool:
    """Whether this is a link to a folder that it lies in, which has no end."""
    return folder.is_symlink() and any(folder.samefile(above) for above in folder.parents)
