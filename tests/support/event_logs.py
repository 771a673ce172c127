"""Event logs as tests write them, one of which is killed at every step, and as readers see them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models import atomic_files
from eddy.models.logs.log_files import log_files
from eddy.models.logs.manifests import Part, newest_manifests
from eddy.models.storage import Place, located
from eddy.stream.event_log.log import EventLog
from eddy.stream.event_log.log import opened as opened_log
from eddy.stream.event_log.table import SCHEMA
from eddy.stream.records.admission import Admission
from eddy.stream.records.decode import Record
from eddy.stream.records.schema import Event, encode

DAY_MS = 86_400_000
MARCH_1_2013 = 1_362_096_000_000
TOPIC_ID = "0b8a1f6e-0000-4000-8000-000000000001"
ONE_PARTITION, FOUR = Admission(), Admission(partitions=4)


def names_ada(content: bytes) -> bool:
    """Whether a file names the user ada; the letters may also be a part of some hexadecimal number."""
    return re.search(rb"(?<![0-9a-f])ada(?![0-9a-f])", content) is not None


def logged(log: Place) -> pa.Table:
    """All events, as a table of SCHEMA."""
    if not any(stored.manifest.parts for stored in newest_manifests(located(log)).values()):
        return SCHEMA.empty_table()
    tables = []
    for file in log_files(log):
        with file.location.opened() as part:
            tables.append(pq.ParquetFile(part).read().cast(SCHEMA))
    return pa.concat_tables(tables)


def places(log: Place) -> list[tuple[int, int]]:
    """Partition and offset of all events, sorted."""
    table = logged(log)
    return sorted(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


def parts(log: Place) -> list[Part]:
    """All parts, by partition, day and offset."""
    return [part for stored in newest_manifests(located(log)).values() for part in stored.manifest.parts]


def next_offsets(log: Place) -> dict[int, int]:
    """How far each partition is in the log."""
    return {bucket: stored.manifest.next_offset for bucket, stored in newest_manifests(located(log)).items()}


@dataclass
class Written:
    """A record as a consumer returns it."""

    offset: int
    value: bytes | None
    key: bytes | None = b"ada"
    timestamp: int = MARCH_1_2013 + 10 * DAY_MS
    """of its append"""


def event(
    offset: int, item: str = "heat", timestamp: int = MARCH_1_2013, user: str = "ada", **fields: object
) -> Record:
    """An event as a record of `events`."""
    value = encode(Event(user, item, timestamp, **fields))  # type: ignore[arg-type]
    return Written(offset, value, user.encode())


@contextmanager
def opened(
    folder: Place, partitions: Collection[int] = range(4), topic_id: str = TOPIC_ID
) -> Iterator[EventLog]:
    """The log in a folder, which only this process writes to."""
    with opened_log(folder, "events", topic_id, partitions) as event_log:
        yield event_log


def append(
    folder: Place, records: list[Record], partition: int = 0, admission: Admission = ONE_PARTITION
) -> int:
    """Add records to a log; returns how many of them are events."""
    with opened(folder) as event_log:
        return event_log.append({partition: records}, admission)


class Killed(BaseException):
    """Nothing is cleaned up behind it."""


@contextmanager
def killed_at_step(monkeypatch: pytest.MonkeyPatch, killed_at: int | None) -> Iterator[list[Path]]:
    """Every step of what the body does to files is made durable by a call, one of which ends the body (None:
    none does); gives the paths of all calls.
    """
    steps: list[Path] = []
    sync = atomic_files.sync

    def step(path: Path) -> None:
        steps.append(path)
        if len(steps) == killed_at:
            raise Killed
        sync(path)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(atomic_files, "sync", step)
        yield steps
