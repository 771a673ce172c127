"""Where files lie: a folder of this machine, or object storage through pyarrow's filesystems.

    event-log, /data/events.parquet      a path on this machine
    s3://bucket/folder                   also gs:// and abfs://; options of pyarrow in the query, for example
                                         ?region=eu-central-1

A `Location` has the handful of operations that Eddy needs, the same for both. Every operation raises OSError,
as Python's own do, also where pyarrow or an SDK would say it otherwise.

What is written is there whole or not at all: on this machine by a rename (eddy.models.atomic_files), on
object storage because an object appears when its upload is complete. Nothing can be renamed there, and
nothing is locked, so what belongs together is bound by one object that is written last.

Credentials come from the environment or the machine's role, as the SDKs read them; a URI that holds a secret
is refused, because URIs appear in logs and announcements.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from eddy.models.atomic_files import atomic_write, make_folder
from eddy.models.errors import EddyError
from eddy.models.machine_cache import cache_folder
from eddy.models.storage_uris import filesystem_of, one_line, path_of_file


class FileEntry(NamedTuple):
    """A file below a folder."""

    location: "Location"
    folders: tuple[str, ...]
    """names of the folders that lead to it, from the folder that was listed"""
    bytes: int
    modified_ms: int


@dataclass(frozen=True)
class Location:
    """A file or a folder, which may or may not be there. Make it with `located`."""

    uri: str
    """as settings and messages name it"""
    path: str
    """on this machine, or within the filesystem: bucket/key"""
    filesystem: Any = field(default=None, compare=False, repr=False)
    """pyarrow's; None on this machine"""

    def __str__(self) -> str:
        return self.uri

    def __fspath__(self) -> str:
        """The path of a local location. Errors: TypeError for object storage."""
        if self.is_remote:
            raise TypeError(f"{self} is no path on this machine")
        return self.path

    def __truediv__(self, name: str) -> "Location":
        if not self.is_remote:
            return located(Path(self.path) / name)
        before, mark, query = self.uri.partition("?")
        uri = f"{before.rstrip('/')}/{name}{mark}{query}"
        return Location(uri, f"{self.path.rstrip('/')}/{name}", self.filesystem)

    @property
    def is_remote(self) -> bool:
        """Whether it is on object storage."""
        return self.filesystem is not None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name if self.is_remote else Path(self.path).name

    @property
    def parent(self) -> "Location":
        """The folder that it is in."""
        if not self.is_remote:
            return located(Path(self.path).parent)
        before, mark, query = self.uri.partition("?")
        uri = f"{before.rpartition('/')[0]}{mark}{query}"
        return Location(uri, self.path.rpartition("/")[0], self.filesystem)

    @property
    def suffixes(self) -> list[str]:
        """As those of a path: [".jsonl", ".gz"]."""
        return PurePosixPath(self.name).suffixes

    @property
    def advice(self) -> str:
        """What to look at when it cannot be read or written."""
        return "bucket, credentials and network" if self.is_remote else "space and permissions"

    @cached_property
    def work_folder(self) -> Path:
        """The folder on this machine for what has to be local: locks, unfinished work, copies. It is the
        location itself or, for object storage, a folder in the cache whose name follows from the URI.
        """
        if not self.is_remote:
            return Path(self.path)
        key = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        return cache_folder() / "storage" / key

    def absolute(self) -> "Location":
        """The same, whatever the working folder."""
        return self if self.is_remote else located(Path(self.path).resolve())

    # Questions.

    def is_folder(self) -> bool:
        """Whether there is a folder; on object storage, whether any object lies below it."""
        if not self.is_remote:
            return Path(self.path).is_dir()
        with _as_os_error():
            return bool(self.filesystem.get_file_info(self.path).type == _types().Directory)

    def is_file(self) -> bool:
        """Whether there is a file."""
        if not self.is_remote:
            return Path(self.path).is_file()
        with _as_os_error():
            return bool(self.filesystem.get_file_info(self.path).type == _types().File)

    def children(self) -> list[str]:
        """Names of the files and folders in this folder, sorted; none when it is not there."""
        if not self.is_remote:
            with suppress(FileNotFoundError):
                return sorted(entry.name for entry in Path(self.path).iterdir())
            return []
        return sorted(info.base_name for info in self._listed(recursive=False))

    def files(self) -> list[FileEntry]:
        """All files below this folder, sorted by the names on their way; none when it is not there."""
        if not self.is_remote:
            return _local_files(Path(self.path))
        types, prefix = _types(), len(self.path.rstrip("/")) + 1
        listed = [
            (info.path[prefix:].split("/"), info) for info in self._listed(True) if info.type == types.File
        ]
        entries = []
        for names, info in sorted(listed, key=lambda pair: pair[0]):
            location = self
            for name in names:
                location = location / name
            modified = info.mtime_ns // 1_000_000 if info.mtime_ns else 0
            entries.append(FileEntry(location, tuple(names[:-1]), info.size, modified))
        return entries

    def _listed(self, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        with _as_os_error():
            listed = self.filesystem.get_file_info(
                FileSelector(self.path, allow_not_found=True, recursive=recursive)
            )
        return list(listed)

    # Reading.

    def read(self, limit: int | None = None) -> bytes:
        """The content of a file, or its first bytes."""
        with _as_os_error(), self.opened() as file:
            return bytes(file.read() if limit is None else file.read(limit))

    def opened(self) -> Any:
        """An open file with random access; a context manager."""
        if not self.is_remote:
            import pyarrow as pa

            return pa.OSFile(self.path, "rb")
        with _as_os_error():
            return self.filesystem.open_input_file(self.path)

    def stream(self, compression: str | None) -> Any:
        """An open stream of the decompressed content; a context manager."""
        if not self.is_remote:
            import pyarrow as pa

            return pa.input_stream(self.path, compression=compression)
        with _as_os_error():
            return self.filesystem.open_input_stream(self.path, compression=compression)

    # Writing.

    def make_folder(self) -> None:
        """Make the folder; there are none on object storage."""
        if not self.is_remote:
            make_folder(Path(self.path))

    def write(self, content: bytes) -> None:
        """Write or replace a file."""
        with self.writing() as target, _as_os_error():
            target.write(content)

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Let the body write to an open stream; the file is there, whole, when the body has ended. A killed
        process leaves a draft on this machine, whose name begins with a dot, and nothing on object storage.
        """
        if not self.is_remote:
            import pyarrow as pa

            path = Path(self.path)
            draft_path = path.with_name(f".{path.name}.writing")
            with atomic_write(path, draft_path) as draft, pa.OSFile(str(draft), "wb") as stream:
                yield stream
                stream.close()  # before it is synced and renamed
            return
        with _as_os_error():
            stream = self.filesystem.open_output_stream(self.path, compression=None)
            try:
                yield stream
            except BaseException:
                # Closing completes the upload, and so does forgetting the stream.
                with suppress(Exception):
                    stream.close()
                    self.filesystem.delete_file(self.path)
                raise
            stream.close()

    def copy_to(self, other: "Location") -> None:
        """Copy a file within its filesystem."""
        if not self.is_remote:
            other.write(self.read())
            return
        with _as_os_error():
            self.filesystem.copy_file(self.path, other.path)

    def delete(self) -> None:
        """Remove a file, if it is there."""
        if not self.is_remote:
            Path(self.path).unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError), _as_os_error():
            self.filesystem.delete_file(self.path)

    def delete_folder(self) -> None:
        """Remove a folder on object storage with all that is below it, if it is there."""
        with suppress(FileNotFoundError), _as_os_error():
            self.filesystem.delete_dir(self.path)


Place = Location | Path | str
"""What can be made a location."""


def located(place: Place) -> Location:
    """The location that a path or a URI names. Nothing is read.

    Errors: EddyError for an empty path, for a URI with a secret in it, or that pyarrow cannot use, and for a
    name that is not UTF-8, by which pyarrow opens no file.
    """
    if isinstance(place, Location):
        return place
    text = str(place)
    if not text:  # of a variable that is not set, most likely; it would be the working folder
        raise EddyError("an empty path: name a file or a folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EddyError(f"{text!r}: the name is not UTF-8; rename it") from None
    scheme, mark, _ = text.partition("://")
    if not mark or isinstance(place, Path):
        return Location(text, text)
    if scheme == "file":
        return located(path_of_file(text))
    filesystem, path = filesystem_of(text)
    before, mark, query = text.partition("?")
    # One place has one URI, so that processes which name it with and without a slash share its locks.
    return Location(f"{before.rstrip('/')}{mark}{query}", path, filesystem)


def _types() -> Any:
    from pyarrow.fs import FileType

    return FileType


def raise_unless_gone(error: OSError) -> None:
    """What a walk does where a folder cannot be listed: by itself it would pass over all that is in it. One
    that is not there, or no longer, has nothing in it.
    """
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _local_files(root: Path) -> list[FileEntry]:
    """All files below a folder of this machine, as of about now: others may add and remove some meanwhile."""
    walk = os.walk(root, onerror=raise_unless_gone)
    paths = sorted(Path(folder, name) for folder, _, names in walk for name in names)
    entries = []
    for path in paths:
        with suppress(FileNotFoundError):  # removed since
            if path.is_file():
                entries.append(_entry_of(path, root))
    return entries


def _entry_of(path: Path, root: Path) -> FileEntry:
    status = path.stat()
    folders = path.relative_to(root).parts[:-1]
    return FileEntry(located(path), folders, status.st_size, status.st_mtime_ns // 1_000_000)


@contextmanager
def _as_os_error() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise OSError(one_line(error)) from None


__all__ = ["FileEntry", "Location", "Place", "located", "one_line", "raise_unless_gone"]
