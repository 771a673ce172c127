"""The event log: the valid events of `events` as Parquet files by day and partition.

    day=2013-03-01/bucket=0003/part-….parquet      the columns of `eddy.stream.event_log.table.SCHEMA`
    _manifest/bucket=0003/00000017-1a2b3c4d.json   which parts there are of partition 3, and its next offset

Guarantee: a record is in the log at most once at any moment and exactly once when `export` has returned,
whatever was killed. What a tombstone covers is gone when `export` returns, or within FORGET_WITHIN_MS of its
being read while it follows. Offsets and parts change together, by one manifest (eddy.models.logs.manifests).
A user's events are all in one bucket, so that several processes can write a log, or train on it, each for its
own users.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta

from eddy.models.errors import EddyError
from eddy.models.locks import locked, locked_at_once
from eddy.models.logs.manifests import EARLIER_STATE, Manifest, bucket_name, newest_manifests
from eddy.models.storage import Location, Place, located, one_line
from eddy.stream.event_log.bucket import KEPT_MS, Bucket, commit
from eddy.stream.event_log.earlier import convert, is_earlier_part, refuse_other_topic
from eddy.stream.event_log.parts import delete_parts, is_part
from eddy.stream.event_log.table import events_table
from eddy.stream.records.admission import Admission
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.decode import Record

LOCKS = "_locks"


class EventLog:
    """Writes to buckets of a log, for which it is the only writer (see `opened`)."""

    def __init__(self, buckets: Mapping[int, Bucket]) -> None:
        self.buckets = buckets

    @property
    def has_erasures(self) -> bool:
        """Whether users are still to be forgotten."""
        return any(bucket.manifest.erasures for bucket in self.buckets.values())

    def next_offset(self, partition: int) -> int:
        """Where the next record of a partition is read."""
        return self.buckets[partition].manifest.next_offset

    def append(self, records: Mapping[int, list[Record]], admission: Admission) -> int:
        """Add records by partition, each in offset order from its next offset on; returns the number of
        events.

        Errors: EddyError when another process writes to the same bucket; OSError.
        """
        added = 0
        for partition, of_partition in records.items():
            if of_partition:
                table, erasures = events_table(of_partition, partition, admission)
                self.buckets[partition].append(table, of_partition[-1].offset + 1, erasures)
                added += table.num_rows
        return added

    def forget(self) -> int:
        """Remove all events that a tombstone covers; returns how many those were. Errors: as
        `Bucket.forget`.
        """
        return sum(bucket.forget() for bucket in self.buckets.values())

    def drop_days(self, keep_days: float) -> list[str]:
        """Remove the days that end more than so many days before the newest day of these buckets ends;
        returns their names. Errors: EddyError, OSError.
        """
        days = [part.day for bucket in self.buckets.values() for part in bucket.manifest.parts]
        if not days:
            return []
        oldest = date.fromisoformat(max(days)) - timedelta(days=int(keep_days))
        return sorted(
            set[str]().union(*(bucket.drop_before(oldest.isoformat()) for bucket in self.buckets.values()))
        )

    def merge_once(self) -> int:
        """Merge small parts of one day and bucket; returns how many, 0 when there is nothing to merge.

        Errors: as `Bucket.merge_once`.
        """
        return next((merged for bucket in self.buckets.values() if (merged := bucket.merge_once())), 0)

    def tidy(self) -> None:
        """Remove replaced files whose time is over. Errors: EddyError, OSError."""
        for bucket in self.buckets.values():
            bucket.tidy()


@contextmanager
def opened(place: Place, topic: str, topic_id: str, partitions: Collection[int]) -> Iterator[EventLog]:
    """The buckets of these partitions in the log there, which is made if it is missing, for this process
    alone.

    1. One process at a time opens a log. A log of an earlier version of Eddy is converted first.
    2. A lock for each bucket keeps other processes of this machine away.
    3. Each bucket begins with a manifest, before it has a part.
    4. What killed processes left is removed.

    Errors: EddyError when another process writes to one of them, when it is the log of another topic, or when
    it cannot be read or written.
    """
    log = located(place)
    try:
        log.make_folder()
        locks = log.work_folder / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            # 1. and 2. Alone.
            with locked(log.work_folder / "_lock", "another export to open the event log"):
                if (log / EARLIER_STATE).is_file():
                    convert(log, topic, topic_id)
                refusal = f"event log {log}: another export is writing to it; stop that one first"
                for partition in partitions:
                    held.enter_context(locked_at_once(locks / bucket_name(partition), refusal))
                # 3. The state of each bucket.
                buckets = _buckets(log, topic, topic_id, partitions)
            # 4. Leftovers.
            _remove_leftovers(log, buckets)
            yield EventLog(buckets)
    except OSError as error:
        raise EddyError(
            f"event log {log}: cannot be written ({one_line(error)}); check {log.advice}"
        ) from None


def _buckets(log: Location, topic: str, topic_id: str, partitions: Collection[int]) -> dict[int, Bucket]:
    """Errors: EddyError, OSError."""
    stored = newest_manifests(log)
    if not stored and any(is_part(file) or is_earlier_part(file) for file in log.files()):
        raise EddyError(f"event log {log}: it has files but no manifest; export to a new folder")
    buckets = {}
    for partition in sorted(partitions):
        writer = secrets.token_hex(4)
        state = stored.get(partition)
        if state is None:
            state = commit(log, None, Manifest(partition, topic, topic_id, 0), writer)
        refuse_other_topic(log, state.manifest.topic, state.manifest.topic_id, topic, topic_id)
        buckets[partition] = Bucket(log, state, writer)
    return buckets


def _remove_leftovers(log: Location, buckets: Mapping[int, Bucket]) -> None:
    """Remove files of these buckets that their manifests do not know, and those of the earlier layout."""
    of_folder = {bucket_name(number): bucket.manifest for number, bucket in buckets.items()}
    known = {part.path for manifest in of_folder.values() for part in manifest.parts}
    known |= {replaced.path for manifest in of_folder.values() for replaced in manifest.replaced}
    for bucket in buckets.values():
        bucket.remove_older_manifests()
    for file in log.files():
        mine = is_part(file) and file.folders[1] in of_folder
        path = "/".join((*file.folders, file.location.name))
        if not (mine or is_earlier_part(file)) or path in known:
            continue
        if log.is_remote and wall_ms() - file.modified_ms < KEPT_MS:
            continue  # perhaps another process's that lists it in a moment
        delete_parts(log, [path])
