"""Restores a partition: fences its former owner, then reads the snapshot and the changelog's tail, or the
whole changelog.
"""

import logging
import time
from collections.abc import Awaitable, Callable

import numpy as np
from aiokafka import TopicPartition

from eddy.models.errors import EddyError
from eddy.stream.engine.engine import Engine
from eddy.stream.kafka.producers import new_producer, stop_producers
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.kafka.topics import TOMBSTONE_DAYS
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import Journal, StatisticsReader
from eddy.stream.state.rows import RowFormatError, Rows
from eddy.stream.state.slab import CatalogueIndices
from eddy.stream.state.snapshots import Unusable, discard_snapshot, open_snapshot, snapshot_path
from eddy.stream.state.stored_rows import decode_newest
from eddy.stream.worker.background import OnThread
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask

log = logging.getLogger("eddy.worker")

MAX_SNAPSHOT_AGE_MS = TOMBSTONE_DAYS * 86_400_000 // 2
"""Half of the time that tombstones are kept, so that no snapshot can bring an erased user back."""

RESERVE_ROWS = 1 << 20
"""The most rows that room is made for before a changelog is read; how many it holds is not known yet."""

LOG_EVERY_S = 5.0

GOODBYE_S = 1.0
"""How long the producer of a partition that is not restored after all may take to close, while a revocation
may be waiting.
"""


class Restorer:
    """Brings the rows of partitions back into the engine's memory."""

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
        self._run = run
        self._spans: dict[int, tuple[int, int]] = {}
        self._logged_at = 0.0
        self._damaged: dict[bytes, str] = {}
        """users of the partition being restored whose newest row so far cannot be read, and the reason"""

    async def take_over(
        self, number: int, generation: int, caught_up: Callable[[], Awaitable[None]]
    ) -> PartitionTask:
        """Restore a partition. `caught_up` ends when the followed topics are read to their ends.

        1. Start the transactional producer, which fences former owners.
        2. Wait for the followed topics, so that items and statistics are complete.
        3. Read the snapshot, if there is one, and the changelog from there on.
        4. Prepare the journal of its item statistics.

        If this fails or is cancelled, nothing of the partition stays in memory.
        """
        started = self._logged_at = time.monotonic()
        producer = new_producer(self.settings, f"{self.settings.group}-{number}")
        try:
            # 1. From here on no former owner can write.
            await producer.start()
            # 2. and 3.
            await caught_up()
            position = await self._run(lambda: self._load_snapshot(number))
            topic = self.settings.topics.user_state
            self._damaged.clear()
            end = await read_to_end(self.settings, topic, [number], self._take, position, self._expect)
            self._require_readable(number)
        except BaseException:
            await stop_producers([producer], GOODBYE_S)
            await self._run(lambda: self.forget(number))
            self.metrics.drop_partition(number)
            raise
        self.metrics.restore_progress.labels(number).set(1)
        rows = sum(len(slots) for _, slots in self.engine.rows.of_partition(number))
        source = "the changelog" if position is None else "a snapshot and the changelog's tail"
        log.info("partition %d: %d rows from %s in %.1f s", number, rows, source, time.monotonic() - started)
        # 4.
        counted = self.statistics.offset.get(number, -1)
        self.engine.statistics_buffer.begin_partition(number, counted)
        # Where a record is missing, the next one must still be newer than all that others have read.
        sequence = self.statistics.seen.get(number, -1)
        journal = Journal(number, sequence, counted, known=self.statistics.sequence)
        return PartitionTask(number, producer, journal, generation, changelog_end=end[number])

    def _require_readable(self, number: int) -> None:
        """Errors: RowFormatError when a user's newest row cannot be read. Its events are committed, and so
        would be lost silently if the worker went on without the row.
        """
        if self._damaged:
            topic, (user, why) = self.settings.topics.user_state, next(iter(self._damaged.items()))
            raise RowFormatError(
                f"{topic} partition {number}, {len(self._damaged)} rows: {why}; to go on without the row, "
                f"write an empty value under the key {user!r} to this partition of {topic}"
            )

    def forget(self, number: int) -> None:
        """Drop a partition's rows, and its events that wait to be counted, from memory."""
        self.engine.forget_partition(number)

    def _load_snapshot(self, number: int) -> int | None:
        """Load the snapshot; returns the changelog offset to read on from, None without a usable snapshot."""
        path = snapshot_path(self.settings.cache_dir, self.settings.group, self.topic_id, number)
        progress = self.metrics.restored.labels(number)
        progress.set(0)
        try:
            with open_snapshot(path, self.topic_id, MAX_SNAPSHOT_AGE_MS) as snapshot:
                self.engine.rows.reserve(snapshot.rows)
                known = np.zeros(len(snapshot.items), np.int32)
                known[1:] = self.engine.names.catalogue.add(snapshot.items[1:])
                older = known + np.int32(1)
                older[0] = 0
                types = self.engine.names.catalogue.types.add(snapshot.types)
                for rows, place in snapshot.blocks():
                    self._load(
                        rows,
                        number,
                        CatalogueIndices(known[place.item], older[place.older], types[place.type]),
                    )
                    progress.inc(len(rows.user))
                return snapshot.position
        except FileNotFoundError:
            return None
        except Unusable as reason:
            log.warning("snapshot %s is discarded (%s); restoring from the changelog", path.name, reason)
            discard_snapshot(path)
            self.forget(number)
            progress.set(0)
            return None

    async def _expect(self, tp: TopicPartition, first: int, end: int) -> None:
        """Make room for the rows that the changelog may hold, and note how much there is to read."""
        self._spans[tp.partition] = (first, end)
        room = min(end - first, RESERVE_ROWS)
        await self._run(lambda: self.engine.rows.reserve(room))

    async def _take(self, tp: TopicPartition, records: Records) -> None:
        newest = {record.key: record.value for record in records if record.key is not None}
        await self._run(lambda: self._load_records(tp.partition, newest))
        self.metrics.restored.labels(tp.partition).inc(len(records))
        self._log_progress(tp.partition, records[-1].offset + 1)

    def _log_progress(self, number: int, position: int) -> None:
        first, end = self._spans[number]
        share = (position - first) / max(end - first, 1)
        self.metrics.restore_progress.labels(number).set(min(share, 1.0))
        if time.monotonic() - self._logged_at > LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("partition %d: %.0f %% of the changelog restored", number, 100 * share)

    def _load_records(self, number: int, newest: dict[bytes, bytes | None]) -> None:
        stored = decode_newest(newest)
        for key in stored.foreign:
            log.warning("partition %d: key %r is not UTF-8, so no user's; passed over", number, key)
        self._damaged = {user: why for user, why in self._damaged.items() if user not in newest}
        self._damaged |= stored.damaged
        self.engine.erase_users([(number, user) for user in stored.erased])
        if stored.erased:  # a crash must not find them again in an older snapshot
            group = self.settings.group
            discard_snapshot(snapshot_path(self.settings.cache_dir, group, self.topic_id, number))
        for rows in stored.rows:
            self._load(rows, number)

    def _load(self, rows: Rows, number: int, known: CatalogueIndices | None = None) -> None:
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
        self.engine.load_rows(rows, known)
