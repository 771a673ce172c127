"""One partition's part of the event log: its manifests and parts, for one writer at a time.

Every change is written in one order: new parts, then the manifest that lists them, then what it no longer
lists is removed. So at any moment the newest manifest is a whole and consistent state, and whatever kills the
process, what is lost is work. Only files that a merge has replaced, which no reader looks for, go before
their manifest forgets them: an erasure must find every file that there is. On object storage nothing is
locked: a writer that finds another's manifest beside its own takes its own back, and ends.
"""

from collections.abc import Callable, Sequence

import msgspec
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
from eddy.stream.event_log.parts import delete_parts, erased_rows, read_part, write_again, write_part
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
        """Remove the events that a tombstone covers; returns how many those were.

        1. Every part, and every file that a merge has replaced, is searched: only those that begin before the
           last tombstone, and of these, but for the column `user_id`, only those that name an erased user.
        2. A file with events before their user's tombstone is written again without them, under its name: who
           is reading the log finds either what was there or what is there now.
        3. A manifest without the tombstones ends it: killed before, it is done again.

        Errors: EddyError when a part cannot be read; OSError.
        """
        if not self.manifest.erasures:
            return 0
        until: dict[str, int] = {}
        for offset, user in self.manifest.erasures:
            until[user] = max(offset, until.get(user, 0))
        removed, kept, emptied = 0, list[Part](), list[Replaced]()
        for part in self.manifest.parts:
            if part.first_offset >= max(until.values()):
                kept.append(part)
                continue
            erased, rows = erased_rows(self.log / part.path, until)
            new: Part | None = part
            # After a kill a file may be written already, and the manifest not.
            if len(erased) or rows != part.rows:
                new = write_again(self.log, part.path, erased)
            removed += len(erased)
            if new:
                kept.append(new)
            else:
                emptied.append(Replaced(part.path, wall_ms()))
        for replaced in self.manifest.replaced:
            file = self.log / replaced.path
            if not file.is_file():
                continue  # `tidy` was killed after it had removed this
            erased, _ = erased_rows(file, until)
            if len(erased):
                write_again(self.log, replaced.path, erased)
        self._commit(parts=tuple(kept), erasures=(), replaced=(*self.manifest.replaced, *emptied))
        return removed

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
        """Remove manifests, and drafts of them, that a killed writer left: they may name erased users."""
        bucket = self.manifest.bucket
        for number, location in numbered_manifests(self.log, bucket).get(bucket, []):
            if number < self._stored.number:
                location.delete()
        for file in self._stored.location.parent.files():
            if file.location.name.startswith(".") and not self.log.is_remote:
                file.location.delete()

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
