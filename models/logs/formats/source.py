"""Of which kind a file is, and its bytes without their compression.

The first bytes of a file say its kind; its name is asked only where they cannot.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from eddy.models.errors import EddyError
from eddy.models.storage import Location

READABLE = "Parquet, CSV, JSON lines or a JSON array, in UTF-8, plain or compressed by gzip, zstd, bz2 or lz4"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
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
HEAD_BYTES = 1 << 20


def path_error(path: Location, message: str) -> EddyError:
    """An EddyError about this file."""
    return EddyError(f"{path}: {message}")


def row_error(path: Location, row: int, message: str) -> EddyError:
    """An EddyError about a row of this file, counted from 1."""
    return path_error(path, f"row {row}: {message}")


@dataclass(frozen=True)
class Source:
    """A file whose kind is known."""

    path: Location
    kind: Literal["parquet", "csv", "json lines", "json array"]
    compression: str | None
    head: bytes
    """the first bytes of its text, at most 1 MiB"""

    @contextmanager
    def opened(self) -> Iterator[pa.NativeFile]:
        """The bytes of the file, decompressed, without a byte-order mark."""
        with self.path.stream(self.compression) as stream:
            if self.head.startswith(BYTE_ORDER_MARK):
                stream.read(len(BYTE_ORDER_MARK))
            yield stream


def source_of(path: Location) -> Source:
    """Tell the kind of a file. Errors: EddyError for an empty file, and for a kind that is not read."""
    if path.suffixes[-1:] in ([".parquet"], [".pq"]):
        return Source(path, "parquet", None, b"")
    start = path.read(8)
    compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
    with path.stream(compression) as stream:
        head = stream.read(HEAD_BYTES)
    for magic, description in _UNREAD.items():
        if head.startswith(magic):
            raise path_error(path, f"is {description}; give {READABLE}")
    if head.startswith(b"PAR1"):
        if compression:
            raise path_error(path, f"is a Parquet file inside of {compression}; decompress it")
        return Source(path, "parquet", None, b"")
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not text:
        raise path_error(path, "the file is empty")
    if b"\0" in head:
        raise path_error(path, f"is no text and no Parquet file; give {READABLE}")
    if text.startswith(b"["):
        return Source(path, "json array", compression, head)
    is_json = text.startswith(b"{") or ".jsonl" in path.suffixes or ".ndjson" in path.suffixes
    return Source(path, "json lines" if is_json else "csv", compression, head)
