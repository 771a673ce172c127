"""The installation as a server sees it: what it follows of `metrics` and `dead-letters`, put together once a
second with what its view holds. It is told to whoever has a stream open, and kept for ten minutes.

All of it is of bounded size, and none of it is needed to answer questions: a server is ready without it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from aiokafka import TopicPartition

from eddy.models.untrusted import Unreadable
from eddy.serving.live.answers import HttpNow, Now, Percentiles, VersionNow
from eddy.serving.live.attention import Seen, attention
from eddy.serving.live.dead_letters import DeadLetterTail
from eddy.serving.live.ranks import Ranks, live_ranks, popularity_ranks
from eddy.serving.live.streams import Latest, event
from eddy.serving.live.workers import Interval, Workers, without_worker
from eddy.serving.metrics import ServerMetrics
from eddy.serving.view import VersionAt
from eddy.stream.kafka.reader import Follower, Records
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.rank_counts import RankedBy, decode_ranks
from eddy.stream.records.schema import Share
from eddy.stream.records.worker_reports import decode_report, is_report, quantiles

log = logging.getLogger("eddy.serving")

INTERVAL_S = 1.0
"""The time between two looks."""

KEPT_POINTS = 600
"""Looks that are kept: ten minutes."""

_SMOOTHED = 5
"""Freshness and dead letters are those of so many looks, since reports come unevenly."""

_COUNT_EVERY_S = 10.0
"""The time between two questions for how many dead letters the topic holds."""

_PATIENCE_S = 5.0


@dataclass(frozen=True)
class ViewFacts:
    """What a view holds."""

    rows: int
    items: int
    stream_time: int
    rows_by_version: Mapping[VersionAt, int]
    loaded: int
    """versions, each at an epoch, that can score"""


@dataclass(frozen=True)
class Situation:
    """What the server knows beside its view."""

    announced: Mapping[VersionAt, Share]
    live: frozenset[VersionAt]
    not_ready: Sequence[str]
    problems: Sequence[str]


class Installation:
    """See the module."""

    def __init__(
        self,
        partitions: int,
        metrics: ServerMetrics,
        look_at_view: Callable[[], Awaitable[ViewFacts]],
        situation: Callable[[], Situation],
    ) -> None:
        self.workers, self.ranks, self.dead_letters = Workers(), Ranks(), DeadLetterTail()
        self.now = Latest()
        self._history: deque[bytes] = deque(maxlen=KEPT_POINTS)
        """points as JSON, oldest first"""
        self._lately: deque[Interval] = deque(maxlen=_SMOOTHED)
        self._partitions, self._metrics = partitions, metrics
        self._look_at_view, self._situation = look_at_view, situation
        self._letters: Follower | None = None
        self._letters_held = 0
        self.cut_off = False
        """whether Kafka did not answer this server when it was last asked"""

    # -- followed topics ----------------------------------------------------------------------------------

    def begin_metrics(self, _: Follower) -> None:
        """`metrics` is followed from its beginning, perhaps once more."""
        self.workers, self.ranks = Workers(), Ranks()

    async def take_metrics(self, tp: TopicPartition, records: Records) -> list[str]:
        """Take in records of `metrics`; returns a line for each that cannot be read."""
        unreadable = []
        newest_report = {record.key: record for record in records if is_report(record.key)}
        for record in [*newest_report.values(), *(each for each in records if not is_report(each.key))]:
            try:
                if is_report(record.key):
                    self.workers.take(decode_report(record.key, record.value), record.timestamp)
                else:
                    self.ranks.take(decode_ranks(record.key, record.value), record.timestamp)
            except Unreadable as reason:
                unreadable.append(f"offset {record.offset}: {reason}")
        return unreadable

    def begin_letters(self, follower: Follower) -> None:
        """`dead-letters` is followed by this follower, which begins with the last KEPT of them."""
        self._letters, self.dead_letters = follower, DeadLetterTail()

    async def take_letters(self, _: TopicPartition, records: Records) -> None:
        """Take in records of `dead-letters`."""
        for record in records:
            self.dead_letters.take(record)

    async def letters_held(self, topic: str) -> int:
        """How many dead letters the topic holds; when the cluster does not answer, as it was before."""
        if self._letters is not None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    spans = await self._letters.spans([TopicPartition(topic, 0)])
                self._letters_held = sum(end - start for start, end in spans.values())
                self.cut_off = False
            except Exception as error:  # a client that is being stopped raises whatever it likes
                self.cut_off = True
                log.warning("%s: how many there are is not known (%r)", topic, error)
        return self._letters_held

    async def count_letters(self, topic: str) -> None:
        """Look how many dead letters there are, now and then, until cancelled."""
        while True:
            await self.letters_held(topic)
            await asyncio.sleep(_COUNT_EVERY_S)

    # -- looks --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look every interval, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            point = msgspec.json.encode(await self.look())
            self._history.append(point)
            self.now.put(event("now", point))
            due = max(due + INTERVAL_S, loop.time())
            await asyncio.sleep(due - loop.time())

    def history(self, every: int = 1) -> bytes:
        """The last ten minutes: a `History` as JSON, whose points were encoded when they were told. every:
        of so many points one, the newest among them.
        """
        head = b'{"interval_ms":%d,"points":[' % round(every * INTERVAL_S * 1000)
        return head + b",".join(list(self._history)[::-every][::-1]) + b"]}"

    async def look(self) -> Now:
        """The installation now."""
        view, situation, wall = await self._look_at_view(), self._situation(), wall_ms()
        self._show(view, situation)
        workers = self.workers.now(wall)
        interval = self.workers.take_interval(wall)
        self._lately.append(interval)
        seconds = INTERVAL_S * len(self._lately)
        at_work = [worker for worker in workers if worker.state != "gone"]
        found = quantiles(np.sum([each.freshness for each in self._lately], axis=0), (0.5, 0.99))
        versions = self._versions(view, situation, wall)
        seen = Seen(
            workers=workers,
            without_worker=without_worker(workers, self._partitions),
            partitions=self._partitions,
            versions=versions,
            freshness_ms=None if found is None else Percentiles(*(round(value, 1) for value in found)),
            lag=sum(worker.lag for worker in at_work) if at_work else None,
            events_per_s=round(sum(worker.events_per_s or 0.0 for worker in at_work), 1),
            dead_letters_per_s=round(sum(each.dead for each in self._lately) / seconds, 2),
            cut_off=self.cut_off,
            not_ready=situation.not_ready,
            problems=situation.problems,
        )
        self._letters_held += interval.dead
        return Now(
            time=wall,
            events_per_s=seen.events_per_s,
            lag=seen.lag,
            freshness_ms=seen.freshness_ms,
            dead_letters_per_s=seen.dead_letters_per_s,
            dead_letters=self._letters_held,
            rows=view.rows,
            items=view.items,
            stream_time=view.stream_time,
            http=self._http(),
            versions=versions,
            workers=workers,
            partitions=self._partitions,
            partitions_without_worker=list(seen.without_worker),
            attention=attention(seen),
        )

    def _show(self, view: ViewFacts, situation: Situation) -> None:
        """Show the versions in the metrics."""
        self._metrics.versions_loaded.set(view.loaded)
        self._metrics.version_rows.clear()
        for at, rows in view.rows_by_version.items():
            share = situation.announced.get(at)
            name = f"{at.version:016x}" if share is None else share.version
            self._metrics.version_rows.labels(name, str(at.epoch)).set(rows)

    def _http(self) -> HttpNow:
        """What was answered since the last look."""
        recent = self._metrics.recent_seconds
        seconds = np.array(recent)
        recent.clear()
        if not len(seconds):
            return HttpNow(0.0, None, None)
        p50, p99 = (1000 * np.quantile(seconds, [0.5, 0.99])).round(2).tolist()
        return HttpNow(round(len(seconds) / INTERVAL_S, 1), p50, p99)

    def _versions(self, view: ViewFacts, situation: Situation, wall: int) -> list[VersionNow]:
        """The live versions, and those that rows are of, the newest first."""
        recent = self.ranks.recent(wall)
        shown = sorted(
            {*situation.live, *(at for at, rows in view.rows_by_version.items() if rows)}, reverse=True
        )
        versions = []
        for at in shown:
            share = situation.announced.get(at)
            if share is None:  # its announcement was withdrawn
                continue
            sums, live = recent.get(RankedBy(at.epoch, share.version)), at in situation.live
            versions.append(
                VersionNow(
                    version=share.version,
                    epoch=at.epoch,
                    share=share.percent / 100 if live else 0.0,
                    live=live,
                    rows=view.rows_by_version.get(at, 0),
                    prequential=live_ranks(sums),
                    popularity=popularity_ranks(sums),
                )
            )
        return versions


__all__ = ["INTERVAL_S", "Installation", "Situation", "ViewFacts"]
