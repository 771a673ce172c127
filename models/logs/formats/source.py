"""Which files there are under a path, of which kind each is, and its bytes without their compression.

The first bytes of a file say its kind; its name is asked only where they cannot.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from eddy.models.errors import EddyError

READABLE = "Parquet, CSV, JSON lines or a JSON array, in UTF-8, plain or compressed by gzip, zstd, bz2 or lz4"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_UNREAD = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\xfd7zXZ": "compressed by xz",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"ARROW1": "an Arrow IPC (Feather) file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
}
_HEAD_BYTES = 1 << 20


def path_error(path: Path, message: str) -> EddyError:
    """An EddyError about this file."""
    return EddyError(f"{path}: {message}")


def row_error(path: Path, row: int, message: str) -> EddyError:
    """An EddyError about a row of this file, counted from 1."""
    return path_error(path, f"row {row}: {message}")


def files_of(path: Path) -> list[Path]:
    """The file itself or, for a folder, all files under it sorted by path, except those whose name, or the
    name of a folder on their path, begins with . or _.

    Errors: EddyError when there is no file.
    """
    if not path.is_dir():
        if not path.exists():
            raise path_error(path, "no such file; check the path")
        return [path]
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    ]
    if not files:
        raise path_error(path, f"no file in this folder; give {READABLE}")
    return files


@dataclass(frozen=True)
class Source:
    """A file whose kind is known."""

    path: Path
    kind: Literal["parquet", "csv", "json lines", "json array"]
    compression: str | None
    head: bytes
    """the first bytes of its text, at most 1 MiB"""

    @contextmanager
    def opened(self) -> Iterator[pa.NativeFile]:
        """The bytes of the file, decompressed, without a byte-order mark."""
        with pa.input_stream(str(self.path), compression=self.compression) as stream:
            if self.head.startswith(_BYTE_ORDER_MARK):
                stream.read(len(_BYTE_ORDER_MARK))
            yield stream


def source_of(path: Path) -> Source:
    """Tell the kind of a file. Errors: EddyError for an empty file, and for a kind that is not read."""
    if path.suffix in (".parquet", ".pq"):
        return Source(path, "parquet", None, b"")
    with path.open("rb") as file:
        start = file.read(8)
    compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
    with pa.input_stream(str(path), compression=compression) as stream:
        head = stream.read(_HEAD_BYTES)
    for magic, description in _UNREAD.items():
        if head.startswith(magic):
            raise path_error(path, f"is {description}; give {READABLE}")
    if head.startswith(b"PAR1"):
        if compression:
            raise path_error(path, f"is a Parquet file inside of {compression}; decompress it")
        return Source(path, "parquet", None, b"")
    text = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if not text:
        raise path_error(path, "the file is empty")
    if b"\0" in head:
        raise path_error(path, f"is no text and no Parquet file; give {READABLE}")
    if text.startswith(b"["):
        return Source(path, "json array", compression, head)
    is_json = text.startswith(b"{") or ".jsonl" in path.suffixes or ".ndjson" in path.suffixes
    return Source(path, "json lines" if is_json else "csv", compression, head)
