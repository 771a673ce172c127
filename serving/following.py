"""Follows topics for ever, and says how far they are read.

A topic that cannot be followed for a while, or a record that cannot be read, is reported; what was taken
before stays as it is.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from aiokafka import TopicPartition

from eddy.serving.metrics import ServerMetrics
from eddy.stream.kafka.reader import Follower, Records, Take
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")


class Following:
    """See the module. It is used from the event loop."""

    def __init__(
        self, settings: Settings, metrics: ServerMetrics, needed: Iterable[str], retry_s: float
    ) -> None:
        """needed: the topics without which nothing can be answered. retry_s: the time between two
        attempts.
        """
        self._settings, self._metrics, self._retry_s = settings, metrics, retry_s
        self._followers: dict[str, Follower] = {}
        self.unread = dict.fromkeys(needed, "not read to its end yet")
        """by topic: why it cannot be relied on yet"""
        self.interrupted: dict[str, str] = {}
        """by topic: why it cannot be followed now"""

    async def follow(
        self,
        topic: str,
        partitions: Sequence[int],
        take: Take,
        begin: Callable[[Follower], None] = lambda _: None,
        last: int | None = None,
    ) -> None:
        """Follow a topic for ever; after a failure anew, since repeated records change nothing. `begin` is
        called whenever a follower begins; last: as of `Follower`.
        """
        read = False

        async def timed(tp: TopicPartition, records: Records) -> None:
            await take(tp, records)
            if read:
                behind_s = max(wall_ms() - records[0].timestamp, 0) / 1000
                self._metrics.behind.labels(topic).observe(behind_s)

        while True:
            follower = self._followers[topic] = Follower(self._settings, topic, partitions, timed, last)
            self._metrics.followed_lag.labels(topic).set_function(follower.left)
            self._metrics.unreadable.labels(topic)  # told at 0: what begins at 1 has not increased
            begin(follower)
            running = asyncio.create_task(follower.run())
            try:
                await follower.caught_up()
                read = True
                self.unread.pop(topic, None)
                self.interrupted.pop(topic, None)
                await running
            except Exception as error:
                log.warning("%s: cannot be followed (%r); trying again", topic, error)
                self.interrupted[topic] = f"{topic}: cannot be followed: {error!r}"
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(self._retry_s)

    def position(self, topic: str, partition: int) -> int:
        """The offset up to which a partition was taken; -1 before its topic is followed."""
        follower = self._followers.get(topic)
        return -1 if follower is None else follower.position(partition)

    def report(self, topic: str, unreadable: Sequence[str]) -> None:
        """Report records that could not be read, a line for each."""
        if unreadable:
            self._metrics.unreadable.labels(topic).inc(len(unreadable))
            log.warning("%s: %d unreadable records left out; %s", topic, len(unreadable), unreadable[0])
