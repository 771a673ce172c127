"""What an event log holds, as its readers see it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from eddy.models.logs.log_files import log_files
from eddy.models.logs.manifests import Part, newest_manifests
from eddy.models.storage import Place, located
from eddy.stream.event_log.table import SCHEMA


def logged(log: Place) -> pa.Table:
    """All events, as a table of SCHEMA."""
    if not any(stored.manifest.parts for stored in newest_manifests(located(log)).values()):
        return SCHEMA.empty_table()
    tables = []
    for file in log_files(log):
        with file.location.opened() as opened:
            tables.append(pq.ParquetFile(opened).read().cast(SCHEMA))
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
