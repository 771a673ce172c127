"""What a worker knows beside its own partitions: items, model versions and the item statistics of all
partitions. It follows their topics for as long as it runs.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec
import torch
from aiokafka import ConsumerRecord, TopicPartition

from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.untrusted import Unreadable, decoded
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.numbering import numbering_steps
from eddy.stream.kafka.reader import Follower, Records
from eddy.stream.kafka.versions import decode_announcement, open_version
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.schema import RULES_KEY, Announcement, DictionaryEntry
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_names import ItemNames, metadata
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.worker.announced import AnnouncedVersion
from eddy.stream.worker.background import OnThread

log = logging.getLogger("eddy.worker")

T = TypeVar("T")

_decode_named = msgspec.json.Decoder(DictionaryEntry).decode


class FollowedTopics:
    """The catalogue, its names, the item statistics, and the newest announced version."""

    def __init__(self, settings: Settings, run: OnThread) -> None:
        """Errors: EddyError when this machine does not have the device of the settings."""
        self.settings = settings
        self._device = torch.device(settings.torch_device)
        self.catalogue = Catalogue()
        self.names = ItemNames(self.catalogue, settings.item_idle_days * DAY_MS)
        self.version = AnnouncedVersion(self._load)
        self._run = run
        # One torch thread: the machine's other cores are the engine's.
        self._builds = ThreadPoolExecutor(1, "eddy-versions", torch.set_num_threads, (1,))
        self._statistics: StatisticsReader | None = None
        topics, partitions = settings.topics, range(settings.partitions)
        self.items = Follower(settings, topics.items, [0], self._take_items)
        self.versions = Follower(settings, topics.model_versions, [0], self._take_versions)
        self.item_stats = Follower(settings, topics.item_stats, partitions, self._take_stats)

    @property
    def statistics(self) -> StatisticsReader:
        """The reader of item statistics. Errors: RuntimeError before `count_for`."""
        if self._statistics is None:
            raise RuntimeError("no model version yet")
        return self._statistics

    def count_for(self, live: LiveShares) -> None:
        """Count the item statistics that the versions' scores need."""
        first, *others = (version.recommender.config for version in live.versions)
        statistics = Statistics(first.half_lives_ms, first.successors)
        for config in others:
            statistics.widen(config.half_lives_ms, config.successors)
        self._statistics = StatisticsReader(statistics, self.catalogue)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work of new versions on a thread of its own, beside the engine's."""
        return await asyncio.get_running_loop().run_in_executor(self._builds, work)

    def close(self) -> None:
        """End the thread on which versions are built, once it has finished what it builds."""
        self._builds.shutdown(wait=False, cancel_futures=True)

    async def _load(self, announcement: Announcement) -> LiveShares:
        """Load the version of each share."""
        shares = announcement.every_share
        # Nothing is taken of an announcement unless all of it can be.
        versions = [
            await self.beside(partial(open_version, share, self.settings.registry)) for share in shares
        ]
        await self._run(partial(self._widen_statistics, versions))
        live = [await self._number(version, announcement.epoch) for version in versions]
        return LiveShares(live, [share.percent for share in shares])

    async def _number(self, version: Version, epoch: int) -> LiveVersion:
        """Number a version's items on the engine's thread, some at a time, between which batches are
        applied.
        """
        for step in numbering_steps(version, self.names):
            await self._run(partial(self._number_some, step))
        live: LiveVersion = await self._run(lambda: self._live_version(version, epoch))
        return live

    def _number_some(self, step: Callable[[], None]) -> None:
        """Number some items, and prepare what messages say of them."""
        step()
        self.names.json_ids()

    def _widen_statistics(self, versions: Sequence[Version]) -> None:
        """Count what these versions ask for, too."""
        if self._statistics is not None:
            for config in (version.recommender.config for version in versions):
                self._statistics.statistics.widen(config.half_lives_ms, config.successors)

    def _live_version(self, version: Version, epoch: int) -> LiveVersion:
        log.info("epoch %d: version %s", epoch, version.id)
        return LiveVersion(version, epoch, self.catalogue, self._device)

    async def caught_up(self) -> None:
        """Wait until everything that the followed topics hold now has been taken in."""
        followers = (self.versions, self.items, self.item_stats)
        await asyncio.gather(*(follower.caught_up() for follower in followers))

    async def forget_statistics(self, partition: int) -> None:
        """Read a partition's statistics again: those in memory may count events that never became durable."""
        reader = self.statistics
        await self._run(lambda: reader.forget_partition(partition))
        await self.item_stats.rewind(partition)

    async def _take_items(self, _: TopicPartition, records: Records) -> None:
        ids = [item for record in records if (item := _item_id(record)) is not None]
        pairs = [(record.key, record.value) for record in records]
        features = metadata(pairs)

        def take() -> None:
            self.names.name_items(ids)
            self.names.take_availability(pairs)
            for item, own in features:
                self.catalogue.features.put(item, own)

        await self._run(take)

    async def _take_stats(self, tp: TopicPartition, records: Records) -> None:
        values = [(record.key, record.value) for record in records]
        for reason in await self._run(lambda: self.statistics.apply_records(tp.partition, values)):
            log.warning("%s; passed over", reason)

    async def _take_versions(self, tp: TopicPartition, records: Records) -> None:
        announcements = []
        for record in records:
            if record.value is not None:
                try:
                    announcements.append(decode_announcement(record.value))
                except Unreadable as reason:
                    log.error("%s offset %d: %s; passed over", tp.topic, record.offset, reason)
        await self.version.take(announcements)


def _item_id(record: ConsumerRecord[bytes, bytes]) -> str | None:
    """The item that a record of `items` names; None if the record cannot be read."""
    if record.value is None or record.key == RULES_KEY:
        return None
    try:
        return decoded(_decode_named, record.value).item_id
    except Unreadable as reason:
        log.warning("%s offset %d: not an item (%s); passed over", record.topic, record.offset, reason)
        return None
