"""Records of one partition of `events` as rows of the event log."""

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from eddy.stream.records.admission import Admission
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.decode import Record, accept_events, event_ids_of, types_of, values_of

log = logging.getLogger("eddy.event_log")

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "timestamp": pa.timestamp("ms", "UTC"),
        "event_type": pa.string(),
        "value": pa.float32(),
        "event_id": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
    }
)
"""Every part's columns. A log that another tool writes needs the first three, and of these only user_id and
item_id must be there.
"""


def events_table(
    records: list[Record], partition: int, admission: Admission
) -> tuple[pa.Table, list[tuple[int, str]]]:
    """From one partition's records in offset order: the events as a table of `SCHEMA`, and the tombstones
    (offset, user).

    A record is an event if the workers accept it as one.
    """
    events, accepted, erased, rejected = accept_events(records, partition, admission)
    if misplaced := sum(rejection.misplaced for rejection in rejected):
        log.warning("%d records lie in a wrong partition: left out, as workers refuse them", misplaced)
    columns = {
        "user_id": [event.user_id for event in events],
        "item_id": [event.item_id for event in events],
        "timestamp": [event.timestamp for event in events],
        "event_type": types_of(events),
        "value": pa.array(values_of(events).astype(np.float32), from_pandas=True),
        "event_id": event_ids_of(events),
        "partition": np.full(len(events), partition, np.int32),
        "offset": [record.offset for record in accepted],
    }
    return pa.table(columns, SCHEMA), [(erasure.offset, erasure.user) for erasure in erased]


def by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The events of each day, such as 2013-03-01, in the order that they have in the table."""
    days = np.asarray(table["timestamp"].cast(pa.int64()).to_numpy()) // DAY_MS
    order = np.argsort(days, kind="stable")
    names, starts = np.unique(days[order], return_index=True)
    if len(names) > 1:
        table = table.take(pa.array(order))
    for day, start, end in zip(names.tolist(), starts, np.append(starts, len(days))[1:], strict=True):
        yield str(np.datetime64(day, "D")), table.slice(start, end - start)


def as_schema(batch: pa.RecordBatch) -> pa.Table:
    """Rows of a part as a table of `SCHEMA`; earlier parts have times as numbers."""
    return pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
