"""Where the columns of an event log lie: in memory up to a limit, beyond it in files.

Whoever makes an array with an element per event asks a store for it, and works on it a slice at a time. So
the memory of a process has a bound, however long the log is.

The files have no name: the kernel frees them with the last array that lies in them, also when the process is
killed. Their pages are the kernel's to write back and to drop. A page for which there is no room on the disk
would end the process without a word when it is written back, so that room is reserved first.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eddy.models.errors import EddyError

SLICE_ROWS = 1 << 20
"""Events that are worked on at a time: temporary arrays take some 10 MB each."""


def slices(length: int, rows: int | None = None, begin: int = 0) -> Iterator[slice]:
    """Cut begin … length - 1 into slices of so many rows, SLICE_ROWS by default."""
    rows = rows or SLICE_ROWS
    for start in range(begin, length, rows):
        yield slice(start, min(start + rows, length))


COLUMNS_SHARE = 0.5
"""Share of a process's memory that columns may take. The rest is for libraries and temporary arrays (about
1 GB), names (the bytes of the users' and items' ids), some 150 bytes per user, and the model.
"""


def bounded_store(memory_gb: float | None, folder: Path) -> "ColumnStore":
    """The store of a process that may take so much memory, in 2^30 bytes; None = as much as it needs."""
    if memory_gb is None:
        return IN_MEMORY
    return ColumnStore(int(memory_gb * (1 << 30) * COLUMNS_SHARE), folder / "columns")


class ColumnStore:
    """Makes arrays of one process."""

    def __init__(self, limit_bytes: int | None = None, folder: Path | None = None) -> None:
        """limit_bytes: of the arrays that lie in memory; None = no limit. folder: for the files."""
        self.limit_bytes = limit_bytes
        self._folder = folder
        self._in_memory = 0

    @property
    def is_limited(self) -> bool:
        """Whether arrays may lie in files."""
        return self.limit_bytes is not None

    def empty(self, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """An array [length] whose values are still to be written.

        Errors: EddyError when it should lie in a file, and there is no room for one.
        """
        size = length * np.dtype(dtype).itemsize
        if self.limit_bytes is None or not size:
            return np.empty(length, dtype)
        if self._in_memory + size > self.limit_bytes:
            with self.open_file() as file, self.room_errors():
                _reserve(file, size)
                return _mapped(file, dtype)
        array = np.empty(length, dtype)
        self._in_memory += size
        weakref.finalize(array, self._release, size)
        return array

    def filled(self, length: int, dtype: DTypeLike, values: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        """An array [length] of what `values` gives for each of its slices, in order."""
        array = self.empty(length, dtype)
        for part in slices(length):
            array[part] = values(part)
        return array

    def growing(self, dtype: DTypeLike) -> "GrowingColumn":
        """An array whose length is not known before all values are."""
        return GrowingColumn(self, dtype)

    def _release(self, size: int) -> None:
        self._in_memory -= size

    def open_file(self) -> IO[bytes]:
        """A new file without a name."""
        with self.room_errors():
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._folder)

    @contextmanager
    def room_errors(self) -> Iterator[None]:
        """Turn what writing to a full disk raises into an EddyError that says what to do."""
        try:
            yield
        except OSError as error:
            raise EddyError(
                f"{self._folder or tempfile.gettempdir()}: the event log does not fit into the memory that "
                f"training may take, and cannot be put there ({error.strerror or error}); make room, name "
                "another folder (EDDY_CACHE_DIR), or allow more memory (EDDY_TRAINING_MEMORY_GB)"
            ) from None


def _reserve(file: IO[bytes], size: int) -> None:
    """Make a file so long that all of its pages have their places on the disk."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)
    for begin in range(0, size, len(zeros)):
        file.write(zeros[: size - begin])
    file.flush()


class GrowingColumn:
    """Values that are appended, and then taken as one array. In a store with a limit they go to a file."""

    def __init__(self, store: ColumnStore, dtype: DTypeLike) -> None:
        self._store = store
        self._dtype = np.dtype(dtype)
        self._chunks: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None

    def append(self, values: NDArray[Any]) -> None:
        """Errors: EddyError when there is no room for the file."""
        values = np.ascontiguousarray(values, self._dtype)
        if not self._store.is_limited:
            self._chunks.append(values)
            return
        if self._file is None:
            self._file = self._store.open_file()
            weakref.finalize(self, _close, self._file)
        with self._store.room_errors():
            self._file.write(values.data.cast("B"))

    def finish(self) -> NDArray[Any]:
        """All values; nothing can be appended any more."""
        if self._file is None:
            chunks, self._chunks = self._chunks, []
            return np.concatenate(chunks) if chunks else np.empty(0, self._dtype)
        with self._store.room_errors(), self._file as file:
            file.flush()
            return _mapped(file, self._dtype)


def _close(file: IO[bytes]) -> None:
    """Give up a file whose column nobody wants any more; on a full disk its last bytes are lost."""
    with suppress(OSError):
        file.close()


def _mapped(file: IO[bytes], dtype: DTypeLike) -> NDArray[Any]:
    """The bytes of a file as an array that can be written to."""
    if not os.fstat(file.fileno()).st_size:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(file, dtype, "r+"))


IN_MEMORY = ColumnStore()
