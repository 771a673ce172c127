"""What a new version's item statistics lack is counted from `events`, beside the engine, before it goes live.

A version may ask for half-lives that nobody has counted with so far, and for more successors of each item.
The owner of a partition then does this:

1. Note the offset up to which the engine has counted, and keep what it counts from now on, too.
2. Read the partition's `events` up to there, as far back as they still matter, and count them apart.
3. Between two batches, add what the engine counted meanwhile, and take the sums over: no event is counted
   twice, and none is left out.
4. Write the partition's statistics whole, so that peers, servers and later owners hold the same.

Until then the partition lacks them (`Statistics.lacking`). More successors need no reading: see
`PartitionStatistics.add_successors`.

A partition that moves on the way begins anew at its next owner, who sees that its base lacks something. The
engine leaves out re-sent events while their ids are in a user's window; here rows are not known, and such
events count again.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes, type_hashes
from eddy.models.rules import MOVES, NEGATIVE, EventRules
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue, HashIndex
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.kafka.reader import Records, read_since
from eddy.stream.records.admission import MAX_AHEAD_MS
from eddy.stream.records.columns import join_columns
from eddy.stream.records.decode import EventColumns, decode_events
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import Counted
from eddy.stream.worker.background import OnThread
from eddy.stream.worker.partition_set import PartitionSet

log = logging.getLogger("eddy.worker")

HALF_LIVES_BACK = 30
"""How far back events are read: an older one counts less than 2^-30 of one that happens now."""

LOOK_S = 1.0
"""How often own partitions are looked at; one that was taken over may lack something."""

WAIT_SHARE = 0.5
"""The share of EDDY_STALL_S that a version waits for its statistics. A partition that another worker has
moved to the version waits for it here, and EDDY_STALL_S is how long it may.
"""


class FilledHalfLives:
    """Popularity by half-lives that a partition lacks, counted from its `events` by the rules of a version.
    It has items in numbers of its own, so that it may be filled on any thread.
    """

    def __init__(self, half_lives_ms: tuple[int, ...], rules: EventRules) -> None:
        self._catalogue = Catalogue()
        self._statistics = Statistics(half_lives_ms, successors=1)
        self._rules, row_of = rules.table()
        self._types = HashIndex(type_hashes(list(row_of)))
        self._row_of_type = np.array([*row_of.values(), len(self._rules) - 1])  # the last one: any other type
        self.first_offset: int | None = None
        """of the first record that was read"""
        self.first_appended = 0
        """ms, when it was appended"""
        self.events = 0
        """how many were counted"""

    def take_records(self, records: Records, partition: int, settings: Settings) -> None:
        """Count the events among consumed records, which follow those of the calls before."""
        if records and self.first_offset is None:
            self.first_offset, self.first_appended = records[0].offset, records[0].timestamp
        self.count_events(decode_events(records, partition, settings.admission).events)

    def count_events(self, events: EventColumns) -> None:
        """Count those of the events that move states and do not speak against their item."""
        row = self._row_of_type[self._types.find(events.type)]
        flags = self._rules[row, events.value.view(np.uint16)]
        counted = np.flatnonzero(((flags & MOVES) > 0) & ((flags & NEGATIVE) == 0))
        self._count(item_hashes([events.item[i] for i in counted.tolist()]), events.time[counted])

    def count_tapped(self, tapped: Sequence[Counted], hashes: NDArray[np.uint64]) -> None:
        """Count what the engine counted; hashes[N] are those of its catalogue."""
        if tapped:
            counted = join_columns(tapped)
            stayed = counted.item >= 0
            self._count(hashes[counted.item[stayed]], counted.time[stayed])

    def _count(self, item: NDArray[np.uint64], timestamp: NDArray[np.int64]) -> None:
        self.events += len(item)
        none = np.zeros((len(item), 0), np.int64)
        self._statistics.count_events(0, self._catalogue.add(item), timestamp, none)

    def move_into(self, statistics: Statistics, partition: int, catalogue: Catalogue, since: float) -> None:
        """Give the sums to a partition of the engine's statistics, for good. `since`: see
        `PartitionStatistics.add_half_lives`.
        """
        arrays = self._statistics.export_partition(0, self._catalogue.hashes)
        statistics.fill_partition(partition, arrays, catalogue, since)


class StatisticsFill:
    """Keeps the own partitions' item statistics as wide as the loaded versions ask for."""

    def __init__(
        self,
        settings: Settings,
        partitions: PartitionSet,
        rules: EventRules,
        run: OnThread,
    ) -> None:
        """rules: of the live version, which say what counts."""
        self._settings, self._partitions = settings, partitions
        self._rules, self._run = rules, run
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()
        self._problem = ""

    @property
    def _statistics(self) -> Statistics:
        return self._partitions.engine.statistics

    async def run(self) -> None:
        """Fill in what own partitions lack, whenever they lack something, until cancelled."""
        while True:
            for number in list(self._partitions.tasks):
                try:
                    await self._widen(number)
                    self._problem = ""
                except KafkaError as error:
                    self._report(f"partition {number}: `events` cannot be read ({error!r}); trying again")
            async with self._looked:
                self._looked.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wanted.wait()
            self._wanted.clear()

    async def until_filled(self, live: LiveShares) -> None:
        """Wait until own partitions lack nothing that versions ask for, but not for ever: what is missing
        after a share of EDDY_STALL_S comes while they are live. The rules of the first say what counts.
        """
        first = live.versions[0].version
        self._rules = first.rules
        self._wanted.set()
        wait_s = WAIT_SHARE * self._settings.stall_s
        try:
            async with asyncio.timeout(wait_s), self._looked:
                await self._looked.wait_for(lambda: not self._lacking())
        except TimeoutError:
            log.warning(
                "epoch %d: version %s goes live although the item statistics of partitions %s are not filled "
                "in after %g s; by its new half-lives nothing is popular there until then",
                live.epoch, first.id, self._lacking(), wait_s,
            )  # fmt: skip

    def _lacking(self) -> list[int]:
        return [number for number in sorted(self._partitions.tasks) if self._statistics.lacking(number)]

    def _report(self, problem: str) -> None:
        if self._problem != problem:
            self._problem = problem
            log.warning("item statistics, %s", problem)

    async def _widen(self, number: int) -> None:
        """Bring one own partition's statistics up to what is asked for, if they lack something."""
        if self._statistics.lacks_successors(number):
            await self._run(lambda: self._add_successors(number))
        half_lives_ms = self._statistics.lacking(number)
        if half_lives_ms:
            await self._fill(number, half_lives_ms)

    def _add_successors(self, number: int) -> None:
        task = self._partitions.tasks.get(number)
        if task is not None:
            self._statistics.add_successors(number)
            task.rewrite_statistics()

    async def _fill(self, number: int, half_lives_ms: tuple[int, ...]) -> None:
        """Fill in half-lives, by the steps of the module. Errors: KafkaError when `events` cannot be read."""
        began, settings = time.monotonic(), self._settings
        # 1. Where the engine is.
        counted, now = await self._run(lambda: self._begin(number))
        # 2. What lies before. No event is more than MAX_AHEAD_MS ahead of the time at which it was appended.
        filled = FilledHalfLives(half_lives_ms, self._rules)
        since = now - HALF_LIVES_BACK * max(half_lives_ms)

        async def take(_: TopicPartition, records: Records) -> None:
            await asyncio.to_thread(filled.take_records, records, number, settings)

        await read_since(settings, settings.topics.events, number, since - MAX_AHEAD_MS, counted + 1, take)
        # 3. and 4. What came meanwhile.
        if await self._run(lambda: self._exchange(number, filled, since)):
            log.info(
                "partition %d: item statistics by %d more half-lives, of %d events, in %.1f s",
                number, len(half_lives_ms), filled.events, time.monotonic() - began,
            )  # fmt: skip

    def _begin(self, number: int) -> tuple[int, int]:
        """Step 1, on the engine's thread: the last offset that is counted, and the stream's now in ms."""
        engine = self._partitions.engine
        return engine.statistics_buffer.begin_tap(number), engine.clock.now(engine.wall())

    def _exchange(self, number: int, filled: FilledHalfLives, since: int) -> bool:
        """Steps 3 and 4, on the engine's thread; False when the partition has moved meanwhile."""
        engine, task = self._partitions.engine, self._partitions.tasks.get(number)
        tapped = engine.statistics_buffer.end_tap(number)
        if task is None or tapped is None:
            return False
        catalogue = engine.names.catalogue
        filled.count_tapped(tapped, catalogue.hashes)
        filled.move_into(self._statistics, number, catalogue, _complete_since(filled, since))
        task.rewrite_statistics()
        return True


def _complete_since(filled: FilledHalfLives, since: int) -> float:
    """The time (ms) from which on no event is missing, where events were read from `since` on or from where
    the log begins.
    """
    if filled.first_offset == 0:
        return -np.inf
    return float(max(since, filled.first_appended + MAX_AHEAD_MS))
