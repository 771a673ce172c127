"""Restores partitions: fences their former owners, then brings their rows in memory up to the end of the
changelog, from a copy that is still in memory, a snapshot, or the whole changelog.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from eddy.models.errors import EddyError
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.reader import Records, read_on, read_to_end
from eddy.stream.kafka.starting import started
from eddy.stream.kafka.topics import TOMBSTONE_DAYS
from eddy.stream.records.columns import select_entries
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.state.catalogue_indices import CatalogueIndices
from eddy.stream.state.item_statistics import Journal, StatisticsReader
from eddy.stream.state.rows import RowFormatError, Rows
from eddy.stream.state.snapshots import (
    SnapshotReader,
    Unusable,
    discard_snapshot,
    open_snapshot,
    snapshot_path,
)
from eddy.stream.state.stored_rows import StoredRows, decode_newest
from eddy.stream.worker.background import OnThread
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask

log = logging.getLogger("eddy.worker")

MAX_SNAPSHOT_AGE_MS = TOMBSTONE_DAYS * 86_400_000 // 2
"""Half of the time that tombstones are kept, so that no snapshot can bring an erased user back."""

RESERVE_ROWS = 1 << 20
"""The most rows that room is made for before a changelog is read; how many it holds is not known yet."""

LOG_EVERY_S = 5.0

LOAD_ROWS = 1024
"""Rows that are loaded at once: the engine applies events of other partitions in between."""


@dataclass
class RowCopy:
    """The rows of a partition that this worker does not work on: in memory as the changelog has them."""

    position: int | None = None
    """offset on `user-state` up to which everything is in memory; None: nothing is, not even a snapshot"""
    source: str = "the changelog"
    """where the rows come from, in words"""
    damaged: dict[bytes, str] = field(default_factory=dict)
    """users whose newest row so far cannot be read, and the reason"""
    newer: NewerRows | None = None
    """why nothing more is taken in: rows from `position` on wait for a model version"""
    began: float = 0.0
    """when it was last taken up, on the monotonic clock"""


class Restorer:
    """Brings the rows of partitions into the engine's memory. A restore that is cancelled leaves what it has
    read as a copy, and the next one goes on from there.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        engine: Engine,
        statistics: StatisticsReader,
        metrics: WorkerMetrics,
        run: OnThread,
    ) -> None:
        self.settings, self.topic_id = settings, topic_id
        self.engine, self.statistics, self.metrics = engine, statistics, metrics
        self.copies: dict[int, RowCopy] = {}
        """by partition; see `RowCopy`"""
        self._run = run
        self._shown: set[int] = set()
        """partitions whose restore is shown in the metrics: those that are to be worked on"""
        self._spans: dict[int, tuple[int, int]] = {}
        self._logged_at = 0.0

    async def fence(self, number: int) -> AIOKafkaProducer:
        """Start the partition's transactional producer: from here on no former owner can write."""
        return await started(lambda: new_producer(self.settings, f"{self.settings.group}-{number}"))

    async def read(
        self, numbers: Collection[int], complete: Callable[[int, int], Awaitable[None]] | None = None
    ) -> dict[int, NewerRows]:
        """Bring the copies of partitions up to the end of the changelog, side by side. `complete` is called
        with a partition's number and that end as soon as its copy is complete; call `fence` before, or more
        may come. Returns the partitions that hold rows for which a model version is missing: they are not
        complete.

        Errors: EddyError for rows that this worker must not take, and for a partition that is to be
        `complete`, but holds a row that cannot be read.
        """
        self._logged_at = time.monotonic()
        # 1. Snapshots of partitions of which nothing is in memory.
        copies = {number: self.copies.setdefault(number, RowCopy()) for number in numbers}
        self._shown = set() if complete is None else set(numbers)
        for number in self._shown:
            self.metrics.restored.labels(number).set(0)
        for number, copy in copies.items():
            copy.newer, copy.began = None, time.monotonic()
            if copy.position is None:
                await self._load_snapshot(number, copy)
        # 2. The changelog from there on.

        async def ended(tp: TopicPartition, end: int) -> None:
            copy = copies[tp.partition]
            if copy.newer is None:
                copy.position = end
                if complete is None:
                    copy.source = "a stand-by copy and the changelog's tail"
                else:
                    self._require_readable(tp.partition, copy)
                    self.metrics.restore_progress.labels(tp.partition).set(1)
                    await complete(tp.partition, end)

        topic = self.settings.topics.user_state
        await read_to_end(
            self.settings, topic, numbers, self._take, self._positions(numbers), self._expect, ended
        )
        return {number: copy.newer for number, copy in copies.items() if copy.newer is not None}

    async def follow(self, numbers: Collection[int], reached: Callable[[int], Awaitable[None]]) -> None:
        """Keep copies of partitions that others work on as the changelog has them, until cancelled. `reached`
        waits until the model version of an epoch is there.
        """
        while newer := await self.read(numbers):
            await reached(max(rows.epoch for rows in newer.values()))

        async def take(tp: TopicPartition, records: Records) -> None:
            await self._take(tp, records)
            while (newer := self.copies[tp.partition].newer) is not None:
                await reached(newer.epoch)
                self.copies[tp.partition].newer = None
                await self._take(tp, records)

        topic = self.settings.topics.user_state
        await read_on(self.settings, topic, numbers, take, self._positions(numbers))

    def _positions(self, numbers: Collection[int]) -> dict[int, int]:
        """Where on the changelog the copies of these partitions are, of those that have begun."""
        return {number: at for number in numbers if (at := self.copies[number].position) is not None}

    async def begin_task(
        self, number: int, generation: int, producer: AIOKafkaProducer, end: int
    ) -> PartitionTask:
        """Begin to work on a partition whose copy is complete up to `end`; the followed topics must have been
        read since its former owner was fenced.
        """
        copy = self.copies[number]
        counted = self.statistics.offset.get(number, -1)

        def begin() -> int:
            self.engine.statistics_buffer.begin_partition(number, counted)
            return sum(len(slots) for _, slots in self.engine.rows.of_partition(number))

        rows, took = await self._run(begin), time.monotonic() - copy.began
        del self.copies[number]
        log.info("partition %d: %d rows from %s in %.1f s", number, rows, copy.source, took)
        # Where a record is missing, the next one must still be newer than all that others have read.
        sequence = self.statistics.seen.get(number, -1)
        journal = Journal(number, sequence, counted, known=self.statistics.sequence)
        return PartitionTask(number, producer, journal, generation, changelog_end=end)

    async def forget(self, number: int) -> None:
        """Drop a partition's rows, and its events that wait to be counted, from memory."""
        self.copies.pop(number, None)

        def forget() -> None:
            self.engine.rows.forget_partition(number)
            self.engine.statistics_buffer.forget_partition(number)

        await self._run(forget)

    # -- snapshots --------------------------------------------------------------------------------------

    def _snapshot_path(self, number: int) -> Path:
        return snapshot_path(self.settings.cache_dir, self.settings.group, self.topic_id, number)

    async def _load_snapshot(self, number: int, copy: RowCopy) -> None:
        """Load the snapshot, if there is a usable one, block after block beside the engine's other work."""
        path = self._snapshot_path(number)
        try:
            with open_snapshot(path, self.topic_id, MAX_SNAPSHOT_AGE_MS) as snapshot:
                await self._load_blocks(snapshot, number)
                copy.position, copy.source = snapshot.position, "a snapshot and the changelog's tail"
        except FileNotFoundError:
            pass
        except NewerRows:  # it is read again, or the changelog, once their version is there
            await self._forget_rows(number)
        except Unusable as reason:
            log.warning("snapshot %s is discarded (%s); restoring from the changelog", path.name, reason)
            discard_snapshot(path)
            await self._forget_rows(number)
        except BaseException:  # cancelled, among others: what was loaded has no position on the changelog
            await self._forget_rows(number)
            raise

    async def _load_blocks(self, snapshot: SnapshotReader, number: int) -> None:
        def look_up() -> CatalogueIndices:
            catalogue = self.engine.names.catalogue
            self.engine.rows.reserve(snapshot.rows)
            item = np.zeros(len(snapshot.items), np.int32)
            item[1:] = catalogue.add(snapshot.items[1:])
            older = item + np.int32(1)
            older[0] = 0
            return CatalogueIndices(item, older, catalogue.types.add(snapshot.types), catalogue.renumbered)

        of_place: CatalogueIndices = await self._run(look_up)
        blocks = snapshot.blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            rows, place = block
            indices = of_place._replace(
                item=of_place.item[place.item],
                older=of_place.older[place.older],
                type=of_place.type[place.type],
            )
            await self._load(rows, number, indices)
            if number in self._shown:
                self.metrics.restored.labels(number).inc(len(rows.user))

    async def _forget_rows(self, number: int) -> None:
        await self._run(lambda: self.engine.rows.forget_partition(number))
        if number in self._shown:
            self.metrics.restored.labels(number).set(0)

    # -- the changelog ----------------------------------------------------------------------------------

    async def _expect(self, tp: TopicPartition, first: int, end: int) -> None:
        """Make room for the rows that the changelog may hold, and note how much there is to read.

        Rows that are ahead of the changelog are forgotten: it has lost its end, and other records will take
        these offsets.
        """
        number, copy = tp.partition, self.copies[tp.partition]
        if copy.position is not None and copy.position > end:
            log.warning(
                "%s partition %d ends at offset %d, before %d, up to which it was read: the cluster has lost "
                "records; restoring from its beginning", tp.topic, number, end, copy.position,
            )  # fmt: skip
            discard_snapshot(self._snapshot_path(number))
            await self._forget_rows(number)
            copy.position, copy.source, copy.damaged = None, RowCopy.source, {}
        self._spans[number] = (first, end)
        room = min(end - first, RESERVE_ROWS)
        await self._run(lambda: self.engine.rows.reserve(room))

    async def _take(self, tp: TopicPartition, records: Records) -> None:
        copy = self.copies[tp.partition]
        if copy.newer is not None:
            return
        newest = {record.key: record.value for record in records if record.key is not None}
        stored = await asyncio.to_thread(decode_newest, newest)
        try:
            await self._load_stored(tp.partition, stored)
        except NewerRows as newer:
            copy.newer = newer
            return
        for key in stored.foreign:
            log.warning("partition %d: key %r is not UTF-8, so no user's; passed over", tp.partition, key)
        copy.damaged = {user: why for user, why in copy.damaged.items() if user not in newest}
        copy.damaged |= stored.damaged
        copy.position = records[-1].offset + 1
        if tp.partition in self._shown:
            self.metrics.restored.labels(tp.partition).inc(len(records))
            self._show_progress(tp.partition, copy.position)

    def _show_progress(self, number: int, position: int) -> None:
        first, end = self._spans[number]
        share = (position - first) / max(end - first, 1)
        self.metrics.restore_progress.labels(number).set(min(share, 1.0))
        if time.monotonic() - self._logged_at > LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("partition %d: %.0f %% of the changelog restored", number, 100 * share)

    async def _load_stored(self, number: int, stored: StoredRows) -> None:
        if stored.erased:
            await self._run(lambda: self.engine.erase_users([(number, user) for user in stored.erased]))
            # A crash must not find them again in an older snapshot.
            discard_snapshot(self._snapshot_path(number))
        for rows in stored.rows:
            await self._load(rows, number)

    async def _load(self, rows: Rows, number: int, indices: CatalogueIndices | None = None) -> None:
        if rows.topic_id != self.topic_id or np.any(rows.partition != number):
            names = self.settings.topics
            raise EddyError(
                f"rows on {names.user_state} partition {number} come from another topic or partition than "
                f"{names.events} now has: it was recreated, or its partition count changed by hand; "
                "run `eddy repartition`, or give the new stream its own EDDY_TOPIC_PREFIX"
            )
        settings = self.settings
        home = partition_of(rows.user, settings.partitions, settings.partitioner)
        if np.any(home != number):
            raise EddyError(
                f"{(home != number).sum()} of {len(home)} rows on {settings.topics.user_state} partition "
                f"{number} are of users whom EDDY_PARTITIONER={settings.partitioner} puts elsewhere: set it "
                "to what it was when they were written, or move them with "
                f"`eddy repartition --partitions {settings.partitions}`"
            )
        for start in range(0, len(rows.user), LOAD_ROWS):
            part = slice(start, start + LOAD_ROWS)
            of_part = None if indices is None else select_entries(indices, part)
            await self._run(partial(self.engine.load_rows, select_entries(rows, part), of_part))

    def _require_readable(self, number: int, copy: RowCopy) -> None:
        """Errors: RowFormatError when a user's newest row cannot be read. Its events are committed, and so
        would be lost silently if the worker went on without the row.
        """
        if copy.damaged:
            topic, (user, why) = self.settings.topics.user_state, next(iter(copy.damaged.items()))
            raise RowFormatError(
                f"{topic} partition {number}, {len(copy.damaged)} rows: {why}; to go on without the row, "
                f"write a record without a value (null) under the key {user!r} to this partition of {topic}"
            )
