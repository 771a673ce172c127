"""One partition's part of the event log: its manifests and parts, for one writer at a time.

Every change is written in one order: new parts, then the manifest that lists them, then what it no longer
lists is removed. So at any moment the newest manifest is a whole and consistent state, and whatever kills the
process, what is lost is work. On object storage nothing is locked: a writer that finds another's manifest
beside its own takes its own back, and ends.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from eddy.models.errors import EddyError
from eddy.models.logs.manifests import (
    Manifest,
    Part,
    Replaced,
    Stored,
    encode_manifest,
    manifest_location,
    numbered_manifests,
)
from eddy.models.storage import Location
from eddy.stream.event_log.merging import parts_to_merge
from eddy.stream.event_log.parts import delete_parts, read_part, rows_of, write_part
from eddy.stream.event_log.table import by_day
from eddy.stream.records.clock import wall_ms

KEPT_MS = 3_600_000
"""So long a file stays that a merge has replaced, for those who are reading the log; and one that nobody
lists on object storage, where it may be another writer's that will be listed in a moment.
"""


class Bucket:
    """Reads and writes the state of one bucket of a log."""

    def __init__(self, log: Location, stored: Stored, writer: str) -> None:
        self.log, self._stored, self._writer = log, stored, writer

    @property
    def manifest(self) -> Manifest:
        """The newest."""
        return self._stored.manifest

    def append(self, table: pa.Table, next_offset: int, erasures: Sequence[tuple[int, str]]) -> None:
        """Add events, in offset order, from the manifest's next offset on. Errors: EddyError, OSError."""
        new = [
            part
            for day, events in by_day(table)
            if (part := write_part(self.log, self.manifest.bucket, day, [events]))
        ]
        self._commit(
            parts=_in_order([*self.manifest.parts, *new]),
            next_offset=next_offset,
            erasures=(*self.manifest.erasures, *erasures),
        )

    def forget(self) -> int:
        """Replace every part with events that a tombstone covers by one without them; returns how many those
        were.

        1. Only parts that begin before the last tombstone are looked at, and of these only those whose column
           `user_id` names an erased user are read.
        2. Of these, a user's events before their tombstone's offset are left out.
        3. A manifest lists the new parts and, as replaced, the old ones; the tombstones are still in it.
        4. The old parts are removed, and those that merges replaced, in which the users may be as well.
        5. A manifest without the tombstones ends it: killed before, it is done again.

        Errors: EddyError when a part cannot be read; OSError.
        """
        if not self.manifest.erasures:
            return 0
        until: dict[str, int] = {}
        for offset, user in self.manifest.erasures:
            until[user] = max(offset, until.get(user, 0))
        users, last = pa.array(sorted(until)), max(until.values())
        kept: list[Part] = []
        old: list[Replaced] = []
        removed = 0
        for part in self.manifest.parts:
            # 1. and 2. Which of its rows are erased?
            erased = self._erased_rows(part, users, until) if part.first_offset < last else []
            if not len(erased):
                kept.append(part)
                continue
            removed += len(erased)
            if new := self._without(part, erased):
                kept.append(new)
            old.append(Replaced(part.path, 0))
        # 3. The new state.
        if old:
            self._commit(parts=tuple(kept), replaced=(*self.manifest.replaced, *old))
        # 4. and 5. The old files, and the end.
        delete_parts(self.log, [each.path for each in self.manifest.replaced])
        self._commit(erasures=(), replaced=())
        return removed

    def _erased_rows(self, part: Part, users: pa.Array, until: dict[str, int]) -> list[int]:
        suspects = rows_of(self.log / part.path, users)
        if not len(suspects):
            return []
        erased: list[int] = []
        start = 0
        for table in read_part(self.log / part.path):
            within = suspects[(suspects >= start) & (suspects < start + table.num_rows)] - start
            events = table.select(["user_id", "offset"]).take(pa.array(within)).to_pylist()
            erased += [
                start + int(row)
                for row, event in zip(within, events, strict=True)
                if event["offset"] < until[event["user_id"]]
            ]
            start += table.num_rows
        return erased

    def _without(self, part: Part, erased: list[int]) -> Part | None:
        """The part again, without these rows."""
        kept = np.ones(part.rows, bool)
        kept[erased] = False

        def tables() -> Iterable[pa.Table]:
            start = 0
            for table in read_part(self.log / part.path):
                yield table.filter(pa.array(kept[start : start + table.num_rows]))
                start += table.num_rows

        return write_part(self.log, self.manifest.bucket, part.day, tables())

    def drop_before(self, day: str) -> set[str]:
        """Remove the parts of earlier days than this one; returns those days. Errors: EddyError, OSError."""
        old = [part for part in self.manifest.parts if part.day < day]
        if old:
            self._commit(parts=tuple(part for part in self.manifest.parts if part.day >= day))
            delete_parts(self.log, [part.path for part in old])
        return {part.day for part in old}

    def merge_once(self) -> int:
        """Merge small parts of one day into one; returns how many, 0 when there is nothing to merge. The old
        files stay for KEPT_MS. Rows are read and written a row group at a time.

        Errors: EddyError when a part cannot be read; OSError.
        """
        run = parts_to_merge(self.manifest.parts)
        if not run:
            return 0
        tables = (table for part in run for table in read_part(self.log / part.path))
        merged = write_part(self.log, self.manifest.bucket, run[0].day, tables)
        others = [part for part in self.manifest.parts if part not in run]
        replaced = [Replaced(part.path, wall_ms()) for part in run]
        self._commit(
            parts=_in_order([*others, *([merged] if merged else [])]),
            replaced=(*self.manifest.replaced, *replaced),
        )
        return len(run)

    def tidy(self) -> None:
        """Remove replaced files whose time is over. Errors: EddyError, OSError."""
        over = [each for each in self.manifest.replaced if wall_ms() - each.at_ms >= KEPT_MS]
        if over:
            delete_parts(self.log, [each.path for each in over])
            self._commit(replaced=tuple(each for each in self.manifest.replaced if each not in over))

    def remove_older_manifests(self) -> None:
        """Remove manifests that a killed writer had no time to remove: they may name erased users."""
        bucket = self.manifest.bucket
        for number, location in numbered_manifests(self.log, bucket).get(bucket, []):
            if number < self._stored.number:
                location.delete()

    def _commit(self, **changes: object) -> None:
        manifest = msgspec.structs.replace(self.manifest, **changes)
        self._stored = commit(self.log, self._stored, manifest, self._writer)


def commit(log: Location, before: Stored | None, manifest: Manifest, writer: str) -> Stored:
    """Write a bucket's next manifest, and remove the earlier ones.

    Errors: EddyError when another process writes to this bucket, after which its state is the other's;
    OSError.
    """
    number = before.number + 1 if before else 1
    location = manifest_location(log, manifest.bucket, number, writer)
    location.write(encode_manifest(manifest))
    earlier = before.number if before else 0
    mine = {location.name} | ({before.location.name} if before else set())
    there = numbered_manifests(log, manifest.bucket).get(manifest.bucket, [])
    if any(found >= earlier and other.name not in mine for found, other in there):
        location.delete()
        raise EddyError(
            f"event log {log}: another export is writing to it (partition {manifest.bucket}); stop that "
            "one first"
        )
    for _, other in there:
        if other.name != location.name:
            other.delete()
    return Stored(number, location, manifest)


def _in_order(parts: Sequence[Part]) -> tuple[Part, ...]:
    by_place: Callable[[Part], tuple[str, int]] = lambda part: (part.day, part.first_offset)  # noqa: E731
    return tuple(sorted(parts, key=by_place))
