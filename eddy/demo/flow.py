"""The demo, in the order in which things happen."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from eddy.demo import first_version
from eddy.demo.board import Board, Watched
from eddy.demo.children import Child, Children
from eddy.demo.data import EVENTS_FILE, generated, split, watched_user, write_events
from eddy.demo.feed import Feed
from eddy.demo.freshness import Freshness
from eddy.demo.plan import Plan
from eddy.demo.scrape import Scraper
from eddy.demo.summary import Summary
from eddy.models.decisions import Decision, read_decisions
from eddy.models.errors import EddyError
from eddy.models.logs.events import Events, Items
from eddy.refresh.endings import NOT_LIVE
from eddy.serving.listening import url_at
from eddy.stream.records.settings import Settings

_BEAT_S = 0.25
"""The monitor looks at worker and server this often."""

_SLICE_S = 5.0
"""The paced events of so much time are handed to the producer at once."""

_PATIENCE_S = 300.0
"""Something is wrong when nothing has happened for so long: on a busy machine a worker that has compiled
nothing yet takes minutes before its first event.
"""

_PERCENT = re.compile(r"\((\d+) %\)$")


class Flow:
    """One run of the demo; `run` goes through all of it."""

    def __init__(
        self, settings: Settings, plan: Plan, board: Board, children: Children, events: Events, items: Items
    ) -> None:
        self.settings, self.plan, self.board = settings, plan, board
        self.children, self.items = children, items
        history, live = split(events)
        if plan.history is not None:
            history = history.take(slice(len(history) - plan.history, len(history)))
        self.history = history
        self.live = live if plan.live is None else live.take(slice(0, plan.live))
        at_least = self.live.take(slice(0, int(plan.rate * plan.paced_s)))
        self.watched = Watched(watched_user(self.history, at_least), items.title)
        self.base = url_at(settings.host, settings.port)
        self.url = f"{self.base}/v1/users/{self.watched.user}/recommendations"
        self.feed = Feed(settings)
        self.lasting: list[Child] = []
        self.cached = False
        self.paced = self.generated = 0
        self.paced_quality: dict[str, float] = {}
        self.decision: Decision | None = None

    async def run(
        self, report: Callable[[Summary, int], None], keep: bool, tell: Callable[[str], None]
    ) -> None:
        """Run up to the report; with `keep` the system stays up afterwards, also when something has failed,
        until this is cancelled. tell: says what has failed.

        Errors: EddyError when a process ends, when nothing moves any more, and as `report`; with `keep` only
        when no process is left.
        """
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            assert self.settings.metrics_port is not None
            metrics = url_at(self.settings.host, self.settings.metrics_port)
            self.scraper = Scraper(client, f"{metrics}/metrics", self.board)
            try:
                await self._up_to(report)
            except EddyError as failure:
                if not keep:
                    raise
                await self._stay_up(failure, tell)
            else:
                if keep:
                    await self._stay_up(None, tell)

    async def _up_to(self, report: Callable[[Summary, int], None]) -> None:
        flow, monitor = asyncio.create_task(self._flow()), asyncio.create_task(self._monitor())
        try:
            done, _ = await asyncio.wait([flow, monitor], return_when=asyncio.FIRST_COMPLETED)
            if monitor in done:
                await monitor
            report(await flow, self.paced)
        finally:
            for task in (flow, monitor):
                task.cancel()
            await asyncio.gather(flow, monitor, return_exceptions=True)

    async def _stay_up(self, failure: EddyError | None, tell: Callable[[str], None]) -> None:
        """Watch what runs until this is cancelled. Errors: EddyError, the first failure, once no process is
        left.
        """
        failures: list[EddyError] = []

        def note(error: EddyError) -> None:
            if str(error) not in map(str, failures):
                failures.append(error)
                tell(str(error))

        if failure is not None:
            note(failure)
        self.board.begin("staying up, until Ctrl-C")
        while True:
            left = list(self.lasting)
            for child in self.lasting:
                try:
                    child.check()
                except EddyError as ended:
                    left.remove(child)
                    note(ended)
            if failures and not left:
                raise failures[0]
            await self._look()

    async def _monitor(self) -> None:
        """Watch processes, worker and server for ever. Errors: EddyError when a process has ended."""
        while True:
            for child in self.lasting:
                child.check()
            await self._look()

    async def _look(self) -> None:
        """Look at worker and server, then rest."""
        await self.scraper.worker()
        if not self.board.page and await self.scraper.answers(f"{self.base}/healthz"):
            self.board.page = f"{self.base}/"
        if self.board.url:
            await self.scraper.ask(self.url)
        await asyncio.sleep(_BEAT_S)

    async def _flow(self) -> Summary:
        # 1. Before: a first version, and the events that it was trained on.
        await self._first_version()
        await self._feed_history()
        # 2. Live, at a pace: freshness and quality are measured while a second version is trained and taken.
        rate, seconds = self.plan.rate, self.plan.paced_s
        self.board.begin(f"live: {rate:.0f} events/s, while a second version is trained", rate * seconds)
        freshness = Freshness(self.settings, self.watched.take)
        await asyncio.to_thread(freshness.start)
        await self._pace()
        await self._until_applied()
        await asyncio.to_thread(freshness.stop)
        # 3. As fast as it goes: throughput.
        throughput = await self._race()
        summary = await asyncio.to_thread(self._summary, throughput, freshness.milliseconds())
        summary.write()
        return summary

    # -- before -----------------------------------------------------------------------------------------

    async def _first_version(self) -> None:
        """Train a version, or take the one that an earlier demo trained from the same inputs, and announce
        it.
        """
        board, children, plan = self.board, self.children, self.plan
        folder = (
            self.settings.cache_dir / "demo" / f"first-version{'-quick' if plan.quick else ''}"
            / first_version.cache_key(EVENTS_FILE, plan.first)
        )  # fmt: skip
        self.cached = first_version.take_cached(folder, Path(self.settings.registry))
        if self.cached:
            board.begin("first version: trained by an earlier demo, used again")
            training = children.start("announce")
        else:
            board.begin(f"training a first version on {len(self.history):,} events", 100)
            file = children.folder / "history.parquet"
            write_events(self.history, file)
            training = children.start("train", "--events", str(file), *plan.first, "--announce")
        # Processes take seconds to start, so they start now and wait for the version.
        self.lasting += [children.start("worker"), children.start("serve")]
        await asyncio.gather(self.feed.items(self.items), self._follow(training, self._training_says))
        if not self.cached:
            first_version.keep(Path(self.settings.registry), folder)

    def _training_says(self, line: str) -> None:
        self.board.say(line)
        if percent := _PERCENT.search(line):
            self.board.done = float(percent[1])

    async def _follow(self, child: Child, say: Callable[[str], None]) -> None:
        """Wait for a command that ends by itself, passing on its last line. Errors: EddyError if it fails."""
        while not child.ended():
            say(child.last_line)
            await asyncio.sleep(_BEAT_S)

    async def _feed_history(self) -> None:
        """Feed the events that the first version was trained on, with which states and item statistics
        begin.
        """
        board = self.board
        board.begin(f"feeding the {len(self.history):,} events that come before", len(self.history))
        await self.feed.events(self.history)
        await self._until_applied(show=board)
        await self._until(self._ready, "worker or server are not ready")
        await self.scraper.worker()
        self.scraper.count_quality_from_here()
        board.url, board.watched = self.url, self.watched

    async def _ready(self) -> bool:
        return self.scraper.ready and await self.scraper.answers(f"{self.base}/readyz")

    # -- live -------------------------------------------------------------------------------------------

    async def _pace(self) -> None:
        """Feed events at the plan's rate, for its time and until the second version is live; judge the
        quality.
        """
        plan, live = self.plan, self.live
        await self.feed.malformed()
        refresh = asyncio.create_task(self._refresh())
        try:
            while self.paced < len(live) and (self.paced < plan.rate * plan.paced_s or not refresh.done()):
                if refresh.done():
                    await refresh
                until = min(self.paced + int(plan.rate * _SLICE_S), len(live))
                await self.feed.events(live.take(slice(self.paced, until)), plan.rate)
                self.board.done = self.paced = until
            await refresh
        finally:
            refresh.cancel()
        await self._until_applied()
        await self.scraper.worker()
        self.paced_quality = dict(self.board.quality)

    async def _refresh(self) -> None:
        """Train a second version on what is new and judge it, while the stream goes on; if it passes the
        gate, it goes live.
        """

        def say(line: str) -> None:
            self.board.refresh = line

        while self.paced < self.plan.new_events:
            say(f"waits for {self.plan.new_events:,} new events")
            await asyncio.sleep(_BEAT_S)
        refresh = self.children.start("refresh", *self.plan.second, nice=True, well=(0, NOT_LIVE))
        await self._follow(refresh, say)
        self.decision = read_decisions(self.settings.registry)[-1]
        if self.decision.kind == "went live":
            say("live; rows are encoded anew")
            await self._until(self._exchanged, "the second version is not live")
        say(f"{self.decision.kind}: {self.decision.reason}")

    async def _exchanged(self) -> bool:
        return self.board.epoch == 2 and not self.board.stale_rows

    async def _race(self) -> float:
        """Feed the rest as fast as it goes, and generated users' events if that is over too soon;
        events/s.
        """
        board, feed, live = self.board, self.feed, self.live
        rest = live.take(slice(self.paced, len(live)))
        board.begin("the rest, as fast as it goes")
        before, began = feed.sent, time.monotonic()
        await feed.events(rest)
        await self._until_applied()
        took = time.monotonic() - began
        await self.scraper.worker()
        self.scraper.counting = False
        if took < self.plan.measured_s:
            board.begin("generated users, as fast as it goes: the log was over too soon to measure")
            repetitions = 1 + int(self.plan.measured_s / max(took, 1) * len(rest) / len(live))
            began = time.monotonic()
            for repetition in range(1, repetitions + 1):
                await feed.events(generated(live, repetition))
            await self._until_applied()
            took += time.monotonic() - began
            self.generated = repetitions * len(live)
        return (feed.sent - before) / took

    # -- the end ----------------------------------------------------------------------------------------

    def _summary(self, throughput: float, fresh: NDArray[np.float64]) -> Summary:
        topics, board, count = self.settings.topics, self.board, self.feed.count
        quality = self.paced_quality
        if not len(fresh) or not quality or self.decision is None:
            raise EddyError(f"no recommendation could be measured (logs: {self.children.folder})")
        board.begin("counting")
        return Summary(
            events_in=count(topics.events, self.settings.partitions),
            events_applied=board.applied,
            events_generated=self.generated,
            dead_letters=count(topics.dead_letters, 1),
            recommendations_out=count(topics.recommendations, self.settings.partitions),
            mode="all",
            events_ranked=int(quality["events"]),
            recall_at_20=quality["recall_at_20"],
            mrr_at_20=quality["mrr_at_20"],
            popularity_recall_at_20=quality["popularity_recall_at_20"],
            popularity_mrr_at_20=quality["popularity_mrr_at_20"],
            with_backlog={name: round(value, 4) for name, value in board.quality.items()},
            model_versions=board.epoch,
            refresh=self.decision.kind,
            refresh_reason=self.decision.reason,
            throughput_events_per_s=throughput,
            p50_ms=float(np.percentile(fresh, 50)),
            p99_ms=float(np.percentile(fresh, 99)),
            freshness_events=len(fresh),
            http_answers=board.http_answers,
            http_failures=board.http_failures,
            watched_user=self.watched.user,
            watched_list_changes=self.watched.changes,
            quick=self.plan.quick,
            first_version_from_cache=self.cached,
            seconds=time.monotonic() - board.started,
            phases=board.phases,
        )

    # -- waiting ----------------------------------------------------------------------------------------

    async def _until_applied(self, show: Board | None = None) -> None:
        """Wait until everything that was sent is applied and ranked. Errors: EddyError when nothing moves."""
        board, log = self.board, self.children.folder / "worker.log"
        last, moved_at = -1, time.monotonic()
        while board.applied < self.feed.sent or board.unanswered:
            if board.applied != last:
                last, moved_at = board.applied, time.monotonic()
            if show is not None:
                show.done = board.applied
            if time.monotonic() - moved_at > _PATIENCE_S:
                raise EddyError(f"the worker stands still at {last} of {self.feed.sent} events (log: {log})")
            await asyncio.sleep(_BEAT_S / 5)

    async def _until(self, condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not await condition():
            if time.monotonic() > deadline:
                raise EddyError(f"{otherwise} after {_PATIENCE_S:.0f} s (logs: {self.children.folder})")
            await asyncio.sleep(_BEAT_S)
