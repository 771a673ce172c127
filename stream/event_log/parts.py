"""Parts: Parquet files of the events of one day and one partition, written once and never changed."""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.manifests import Part, bucket_name
from eddy.models.storage import FileEntry, Location, one_line
from eddy.stream.event_log.table import SCHEMA, as_schema

ROW_GROUP = 1 << 17
"""Rows that are encoded at a time, and that are in memory of a part that is written or merged."""

DAY = re.compile(r"day=\d{4,6}-\d\d-\d\d")
_NAME = re.compile(r"part-\d{12,18}-[0-9a-f]{8}\.parquet|\.part-\d{12,18}-[0-9a-f]{8}\.parquet\.writing")


class PartWriter:
    """Writes one part from tables of `SCHEMA` in offset order; see `new_part`."""

    def __init__(self, log: Location, bucket: int, day: str, files: ExitStack) -> None:
        self.part: Part | None = None
        """what was written; None before the end, and where there was no row"""
        self.path = ""
        """of a part that is written again; empty: a new name"""
        self._log, self._folder, self._files = log, f"day={day}/{bucket_name(bucket)}", files
        self._stream: Any = None
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._rows = self._first_offset = 0
        self._times: list[int] = []

    def add(self, table: pa.Table) -> None:
        """Append rows. Errors: OSError."""
        if not table.num_rows:
            return
        if not self._rows:
            self._first_offset = table["offset"][0].as_py()
        self._rows += table.num_rows
        limits = pc.min_max(table["timestamp"].cast(pa.int64()))
        self._times += [limits["min"].as_py(), limits["max"].as_py()]
        self._waiting.append(table)
        if sum(waiting.num_rows for waiting in self._waiting) >= ROW_GROUP:
            self._encode()

    def _encode(self) -> None:
        if self._writer is None:
            if not self.path:
                self.path = f"{self._folder}/part-{self._first_offset:012d}-{secrets.token_hex(4)}.parquet"
            self._stream = self._files.enter_context((self._log / self.path).writing())
            self._writer = self._files.enter_context(pq.ParquetWriter(self._stream, SCHEMA))
        self._writer.write_table(pa.concat_tables(self._waiting or [SCHEMA.empty_table()]), ROW_GROUP)
        self._waiting = []

    def finish(self) -> None:
        """Write what is left. Errors: OSError."""
        if self._waiting or (self.path and not self._rows):
            self._encode()
        if self._writer is not None:
            self._writer.close()
        if self._rows:
            self.part = Part(
                self.path, self._rows, self._stream.tell(), min(self._times), max(self._times),
                self._first_offset,
            )  # fmt: skip


@contextmanager
def new_part(log: Location, bucket: int, day: str) -> Iterator[PartWriter]:
    """Let the body write a part; the file is there when the body has ended without an error. A part without
    rows is no file at all.
    """
    with ExitStack() as files:
        writer = PartWriter(log, bucket, day, files)
        yield writer
        writer.finish()


def write_again(log: Location, path: str, without: NDArray[np.int64]) -> Part | None:
    """Replace a part by one without these rows, int64[k] in order, under the same name. None when no row is
    left: then it is a file without rows.

    Errors: EddyError when it cannot be read; OSError.
    """
    with ExitStack() as files:
        writer = PartWriter(log, 0, "", files)
        writer.path = path
        start = 0
        for table in read_part(log / path):
            kept = np.ones(table.num_rows, bool)
            kept[without[(without >= start) & (without < start + table.num_rows)] - start] = False
            writer.add(table.filter(pa.array(kept)))
            start += table.num_rows
        writer.finish()
    return writer.part


def write_part(log: Location, bucket: int, day: str, tables: Iterable[pa.Table]) -> Part | None:
    """Write the tables as one part; None when they have no rows. Errors: OSError."""
    with new_part(log, bucket, day) as writer:
        for table in tables:
            writer.add(table)
    return writer.part


def is_part(file: FileEntry) -> bool:
    """Whether a file of a log is named like a part, or like the draft of one."""
    return len(file.folders) == 2 and bool(
        DAY.fullmatch(file.folders[0])
        and file.folders[1].startswith("bucket=")
        and _NAME.fullmatch(file.location.name)
    )


def read_part(file: Location) -> Iterator[pa.Table]:
    """Yield a part's rows as tables of `SCHEMA`, at most ROW_GROUP at a time.

    Errors: EddyError when it cannot be read.
    """
    try:
        with file.opened() as opened, pq.ParquetFile(opened, pre_buffer=file.is_remote) as part:
            for batch in part.iter_batches(ROW_GROUP):
                yield as_schema(batch)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable(file, error) from None


def erased_rows(file: Location, until: Mapping[str, int]) -> tuple[NDArray[np.int64], int]:
    """The rows of a part, int64[k] in order, that are events of these users before these offsets, and how
    many rows it has. Where no such user is in it, one column is read.

    Errors: EddyError when it cannot be read.
    """
    users = pa.array(sorted(until))
    erased, start = [np.zeros(0, np.int64)], 0
    try:
        with file.opened() as opened, pq.ParquetFile(opened) as part:
            names = part.iter_batches(ROW_GROUP, columns=["user_id"])
            if not any(pc.any(pc.is_in(batch["user_id"], users)).as_py() for batch in names):
                return erased[0], part.metadata.num_rows
            for batch in part.iter_batches(ROW_GROUP, columns=["user_id", "offset"]):
                suspects = np.flatnonzero(pc.is_in(batch["user_id"], users))
                events = batch.take(pa.array(suspects)).to_pylist()
                before = [event["offset"] < until[event["user_id"]] for event in events]
                erased.append(suspects[np.array(before, bool)] + start)
                start += batch.num_rows
    except (OSError, pa.ArrowException, KeyError) as error:
        raise unreadable(file, error) from None
    return np.concatenate(erased), start


def delete_parts(log: Location, paths: Iterable[str]) -> None:
    """Remove parts of a log, and the folders that are empty then. Errors: OSError."""
    for path in paths:
        file = log / path
        file.delete()
        if not log.is_remote:
            folder = Path(file).parent
            with suppress(OSError):  # other parts are in it
                folder.rmdir()
                folder.parent.rmdir()


def unreadable(file: Location, error: BaseException) -> EddyError:
    """What to say of a part that cannot be read."""
    return EddyError(
        f"{file}: cannot be read ({one_line(error)}), and erased users may be in it; put an undamaged copy "
        "in its place, or export to a new folder"
    )
