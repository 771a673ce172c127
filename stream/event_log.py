"""The event log: the valid events of `events` as Parquet files by day, for training and evaluation.

    day=2013-03-01/part-00000000.parquet    the columns of SCHEMA
    _position.json                          topic, topic id, next part number, next offset of each partition

Guarantee: a record is in the log at most once at any moment and exactly once when `export` has returned,
whatever was killed. What a tombstone covers is gone when `export` returns, or within FORGET_WITHIN_MS of its
being read while it follows. The offsets are stored beside the files: a part is there whole or not at all, and
the position moves after it; parts that the position does not cover (a crash came between) are removed before
anything is read again.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from numpy.typing import NDArray

from eddy.models.atomic_files import atomic_write
from eddy.models.errors import EddyError
from eddy.models.locks import locked_at_once
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import topic_ids
from eddy.stream.records.admission import Admission
from eddy.stream.records.clock import DAY_MS, wall_ms
from eddy.stream.records.decode import Record, accept_events, event_ids_of, types_of, values_of
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.event_log")

POSITION = "_position.json"
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
PART_RECORDS = 200_000
"""So many records are kept in memory before they become files; they take about 100 MB."""

FORGET_WITHIN_MS = 120_000
"""An export that follows without an end removes an erased user's events within this time, unless rewriting
the files that hold them would take more than FORGET_SHARE of its time.
"""

FORGET_SHARE = 0.1

_POLL_MS = 500
_FLUSH_MS = FORGET_WITHIN_MS // 2
"""An export that follows without an end writes a part at least this often."""


@dataclass(frozen=True)
class Position:
    """How far the log is: everything before `offsets` is in parts with numbers below `part`."""

    topic: str
    topic_id: str
    part: int
    offsets: dict[int, int]
    erasures: list[tuple[int, int, str]] = field(default_factory=list)
    """(partition, offset, user) of each tombstone whose user's earlier events are still to be removed"""


class EventLog:
    """Writes to a log's folder, one process at a time (see `opened`)."""

    def __init__(self, folder: Path, position: Position) -> None:
        self.folder = folder
        self.position = position
        for path in folder.glob("day=*/*part-*"):
            if path.suffix != ".parquet" or int(path.stem.removeprefix("part-")) >= position.part:
                path.unlink()

    def append(self, records: dict[int, list[Record]], admission: Admission) -> int:
        """Add records by partition, each in offset order from the position on; returns the number of
        events.
        """
        table, erasures = events_table(records, admission)
        day = pc.divide(table["timestamp"].cast(pa.int64()), DAY_MS)
        for number in pc.unique(day).sort().to_pylist() if table.num_rows else []:
            name = datetime.fromtimestamp(number * DAY_MS / 1000, UTC).date().isoformat()
            path = self.folder / f"day={name}" / f"part-{self.position.part:08d}.parquet"
            _write_part(table.filter(pc.equal(day, number)), path)
        following = {number: part[-1].offset + 1 for number, part in records.items() if part}
        position = Position(
            topic=self.position.topic,
            topic_id=self.position.topic_id,
            part=self.position.part + 1,
            offsets={**self.position.offsets, **following},
            erasures=[*self.position.erasures, *erasures],
        )
        self.position = _store(self.folder, position)
        return int(table.num_rows)

    def forget(self) -> int:
        """Write every part anew without the events that a tombstone covers; returns how many those were.

        1. A part is suspected when its column `user_id` names an erased user; most parts do not.
        2. Of a suspected part, a user's events before their tombstone's offset in the same partition are
           erased.
        3. The part is replaced by one with the other events.
        4. When all parts are done, the tombstones leave the position: a crash before leaves nothing behind.

        Errors: EddyError when a part cannot be read.
        """
        if not self.position.erasures:
            return 0
        removed = 0
        until = {(partition, user): offset for partition, offset, user in self.position.erasures}
        users = pa.array(sorted({user for _, user in until}))
        for path in sorted(self.folder.glob("day=*/part-*.parquet")):
            try:
                # 1. Which events are of erased users? This reads one column.
                suspect = np.flatnonzero(_is_in(path, users))  # row numbers
                if not len(suspect):
                    continue
                table = pq.read_table(path, schema=SCHEMA)
            except pa.ArrowException as error:
                raise EddyError(
                    f"{path}: cannot be read ({error}), and erased users may be in it; put an undamaged copy "
                    "in its place or remove it, then export again"
                ) from None
            # 2. Which of them come before the user's tombstone?
            events = table.take(suspect).select(["partition", "user_id", "offset"]).to_pylist()
            erased = [
                row
                for row, event in zip(suspect.tolist(), events, strict=True)
                if event["offset"] < until.get((event["partition"], event["user_id"]), 0)
            ]
            # 3. Keep the others.
            if erased:
                removed += len(erased)
                kept = np.ones(table.num_rows, bool)
                kept[erased] = False
                _write_part(table.filter(pa.array(kept)), path)
        # 4. Done with all parts.
        self.position = _store(self.folder, replace(self.position, erasures=[]))
        return removed

    def drop_days(self, keep_days: float) -> list[str]:
        """Remove the days that end more than so many days before the newest day of the log ends; returns
        their names.

        A day's newest part goes last, so that of a day that a killed process began to remove the next one
        finds the rest.
        """
        days = {
            date.fromisoformat(path.name.removeprefix("day=")): path for path in self.folder.glob("day=*")
        }
        newest = max(days, default=date.min)
        old = sorted(day for day in days if (newest - day).days > keep_days)
        for day in old:
            for part in sorted(days[day].iterdir()):
                part.unlink()
            days[day].rmdir()
        return [day.isoformat() for day in old]


def _write_part(table: pa.Table, path: Path) -> None:
    # Readers of a folder leave out names that begin with a dot, and no others.
    with atomic_write(path, draft=path.with_name(f".{path.stem}.writing")) as draft:
        pq.write_table(table, draft)


def _is_in(path: Path, users: pa.Array) -> NDArray[np.bool_]:
    """Which events of a part are of these users: bool[rows of the part]."""
    user_ids = pq.read_table(path, columns=["user_id"])["user_id"]
    return np.asarray(pc.is_in(user_ids, users).to_numpy())


@contextmanager
def opened(folder: Path, topic: str, topic_id: str) -> Iterator[EventLog]:
    """The log in this folder, which is created if it is missing, for this process alone.

    Errors: EddyError when another process writes to it, when it is the log of another topic, or when it
    cannot be read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refusal = f"event log {folder}: another export is writing to it; stop that one first"
        with locked_at_once(folder / "_lock", refusal):
            yield EventLog(folder, _position(folder, topic, topic_id))
    except OSError as error:
        raise EddyError(
            f"event log {folder}: cannot be written ({error}); check space and permissions"
        ) from None


def _position(folder: Path, topic: str, topic_id: str) -> Position:
    file = folder / POSITION
    if not file.exists():
        if any(folder.glob("day=*/part-*.parquet")):
            raise EddyError(f"event log {folder}: it has files but no {POSITION}; export to a new folder")
        return _store(folder, Position(topic, topic_id, 0, {}))
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        offsets = {int(number): int(offset) for number, offset in stored["offsets"].items()}
        erasures = [(int(number), int(offset), str(user)) for number, offset, user in stored["erasures"]]
        position = Position(stored["topic"], stored["topic_id"], int(stored["part"]), offsets, erasures)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EddyError(
            f"{file}: unreadable ({type(error).__name__}: {error}); export to a new folder"
        ) from None
    if position.topic_id != topic_id:
        raise EddyError(
            f"event log {folder}: it was exported from another topic ({position.topic}, id "
            f"{position.topic_id}; now {topic}, id {topic_id}); export to a new folder"
        )
    return position


def _store(folder: Path, position: Position) -> Position:
    with atomic_write(folder / POSITION) as draft:
        draft.write_text(json.dumps(asdict(position)), encoding="utf-8")
    return position


def events_table(
    records: dict[int, list[Record]], admission: Admission
) -> tuple[pa.Table, list[tuple[int, int, str]]]:
    """From records by partition: the events as a table of `SCHEMA`, and the tombstones (partition, offset,
    user).

    A record is an event if the workers accept it as one.
    """
    tables = [SCHEMA.empty_table()]
    erasures: list[tuple[int, int, str]] = []
    misplaced = 0
    for partition, part in records.items():
        events, accepted, erased, rejected = accept_events(part, partition, admission)
        erasures += [(partition, one.offset, one.user) for one in erased]
        misplaced += sum(one.misplaced for one in rejected)
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
        tables.append(pa.table(columns, SCHEMA))
    if misplaced:
        log.warning("%d records lie in a wrong partition: left out, as workers refuse them", misplaced)
    return pa.concat_tables(tables), erasures


def export(settings: Settings, folder: Path, until_end: bool = True) -> int:
    """Bring the log in `folder` up to the topic's end as of now, or follow the topic for ever.

    Returns how many events were added. Errors: EddyError when the cluster cannot be reached or read, and as
    `opened`.
    """
    topic = settings.topics.events
    with admin_client(settings) as admin:
        topic_id = str(topic_ids(admin, [topic])[topic])
    # As the workers do: what a transactional producer aborted never happened.
    consumer = KafkaConsumer(
        **client_config(settings),
        enable_auto_commit=False,
        group_id=None,
        auto_offset_reset="earliest",  # when retention overtakes us: the default skips all that is left
        isolation_level="read_committed",
    )
    try:
        with opened(folder, topic, topic_id) as event_log:
            return _export(consumer, event_log, until_end, settings.admission, settings.event_log_days)
    except KafkaError as error:
        raise EddyError(f"topic {topic} cannot be read: {type(error).__name__}: {error}") from None
    finally:
        consumer.close()


def _export(
    consumer: Any, event_log: EventLog, until_end: bool, admission: Admission, keep_days: float | None
) -> int:
    topic = event_log.position.topic
    tps = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    # The topic's own number of partitions counts, whatever this process was told.
    admission = replace(admission, partitions=len(tps))
    other_partitioner = OtherPartitioner(len(tps), admission.partitioner)
    consumer.assign(tps)
    beginning, end = consumer.beginning_offsets(tps), consumer.end_offsets(tps)
    for tp in tps:
        at = event_log.position.offsets.get(tp.partition, 0)
        if at < beginning[tp]:
            log.warning(
                "%s partition %d: offsets %d to %d were gone (retention) before they were exported",
                topic, tp.partition, at, beginning[tp] - 1,
            )  # fmt: skip
        consumer.seek(tp, max(at, beginning[tp]))
    added, began = 0, wall_ms()
    forget_from = 0.0  # at once: an earlier export may have ended between a tombstone and forgetting
    pending: dict[int, list[Record]] = {}
    while True:
        # 1. Write a part when there is enough for one, or it is time, or all is read.
        done = until_end and all(consumer.position(tp) >= end[tp] for tp in tps)
        count = sum(map(len, pending.values()))
        if count and (done or count >= PART_RECORDS or (not until_end and wall_ms() - began >= _FLUSH_MS)):
            for number, records in pending.items():
                if reason := other_partitioner.recognised([record.key or b"" for record in records], number):
                    raise EddyError(f"topic {topic}: {reason}; nothing was exported")
            added += event_log.append(pending, admission)
            pending, began = {}, wall_ms()
            if keep_days is not None and (dropped := event_log.drop_days(keep_days)):
                log.info("days that left the log: %s", ", ".join(dropped))
        # 2. Forget erased users: at the end, or now and then, for at most FORGET_SHARE of the time.
        if done:
            event_log.forget()
            return added
        if event_log.position.erasures and time.monotonic() >= forget_from:
            started = time.monotonic()
            removed = event_log.forget()
            forget_from = time.monotonic() + (time.monotonic() - started) / FORGET_SHARE
            log.info("%d events of erased users removed", removed)
        # 3. Read on.
        for tp, records in consumer.poll(timeout_ms=_POLL_MS, max_records=10_000).items():
            pending.setdefault(tp.partition, []).extend(records)
