"""The service behind the HTTP API: keeps the view up to date with Kafka, and answers from it.

Everything that touches the view, scoring included, is done by one at a time (`eddy.serving.view_owner`).
Three parts work on it: `eddy.serving.following` reads the topics whose records go there,
`eddy.serving.versions.loading` puts model versions there, and `eddy.serving.answering` makes lists.
Guarantee: when a record, a version or, for a while, the cluster cannot be read, that is reported, and the
service answers from what it had before.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from aiokafka import TopicPartition

from eddy.serving.admission import Turns
from eddy.serving.answering import Answering
from eddy.serving.catalogue.item_service import ItemService
from eddy.serving.event_writer import EventWriter, Position
from eddy.serving.following import Following
from eddy.serving.inside.dynamics import MeasuredDynamics
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.live.dead_letters import KEPT
from eddy.serving.live.installation import Installation, Situation, ViewFacts
from eddy.serving.live.person import PersonSource, RowWatches
from eddy.serving.live.streams import Streams
from eddy.serving.metrics import ServerMetrics
from eddy.serving.read_your_writes import Commits, ReadYourWrites
from eddy.serving.request_context import current
from eddy.serving.row_traces import RowTraces
from eddy.serving.stored_user import StoredUser, stored_user
from eddy.serving.versions.answers import Versions
from eddy.serving.versions.loading import VersionLoader
from eddy.serving.versions.overview import overview
from eddy.serving.versions.registry import RegistryReader
from eddy.serving.view import MaterialisedView
from eddy.serving.view_owner import ViewOwner
from eddy.stream.kafka.login_watch import LoginWatch
from eddy.stream.kafka.reader import Records
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.settings import Settings
from eddy.stream.tracing import link

log = logging.getLogger("eddy.serving")
T = TypeVar("T")

RETRY_S = 5.0
"""The time between two attempts to follow a topic, or to read a version's files."""

LOOKS = 2
"""Threads for work that only looks: what a version's dynamics take, which are measured once, holds up no
search.
"""


class Service:
    """See the module. Use as: `await start()`, `await recommend(…)`, `await stop()`."""

    def __init__(
        self, settings: Settings, retry_s: float = RETRY_S, threads: int = 1, traced: bool = False
    ) -> None:
        """threads: that score side by side; a few questions at a time are answered faster by one. traced:
        whether requests have spans, to which those of rows can be linked.
        """
        self.settings = settings
        self._row_traces = RowTraces() if traced else None
        self.metrics = ServerMetrics()
        self.view = MaterialisedView(wall_ms, threads)
        self._retry_s = retry_s
        self._view_owner = ViewOwner()
        self._beside = ThreadPoolExecutor(LOOKS, "eddy-look", torch.set_num_threads, (1,))
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """done, with the exception, when the service cannot go on"""
        self.ending = False
        """whether the process has been told to end"""
        # 1. What answers need.
        topics = settings.topics
        self._answering = Answering(
            self.view, self._view_owner, self.metrics, settings.http_max_wait_ms / 1000, self._fail
        )
        needed = (topics.items, topics.model_versions, topics.item_stats, topics.user_state)
        self._following = Following(settings, self.metrics, needed, retry_s)
        self._loader = VersionLoader(self.view, self._view_owner, settings.registry, self.metrics, retry_s)
        # 2. What callers may want beside answers; what grows with the catalogue takes turns.
        self.looks, self.searches = (Turns(settings.http_max_wait_ms / 1000) for _ in range(2))
        self.dynamics = MeasuredDynamics(self)
        self.registry = RegistryReader(settings.registry)
        self.items = ItemService(self)
        self.events = EventWriter(settings)
        self._commits = Commits(settings)
        self._login = LoginWatch(settings)
        self.read_your_writes = ReadYourWrites(
            self._row_includes,
            self._commits.read,
            partial(self._following.position, topics.user_state),
            max(1, settings.http_max_concurrent // 4),  # while workers stand still, others need not wait
        )
        self.streams = Streams(settings.http_max_streams)
        self.row_watches = RowWatches()
        self.installation = Installation(
            settings.partitions, self.metrics, lambda: self.on_thread(self._view_facts), self._situation
        )
        self.metrics.ready.set_function(lambda: not self.not_ready())
        self.metrics.streams.set_function(lambda: self.streams.open)

    async def start(self) -> None:
        """Begin to follow what answers need, and to answer; returns at once."""
        topics, partitions = self.settings.topics, range(self.settings.partitions)
        follow = self._following.follow
        self._spawn(self._answering.run())
        self._spawn(self._loader.run())
        self._spawn(follow(topics.items, [0], self._take_items))
        self._spawn(follow(topics.model_versions, [0], self._take_versions))
        self._spawn(follow(topics.user_state, partitions, self._take_rows))
        self._spawn(self._follow_statistics())

    def serve_others(self) -> None:
        """Begin with all that callers from outside may want beside answers: what the installation does,
        popularity over time, and events in.
        """
        topics, seen, follow = self.settings.topics, self.installation, self._following.follow
        self._spawn(follow(topics.metrics, [0], self._take_metrics, seen.begin_metrics))
        self._spawn(follow(topics.dead_letters, [0], seen.take_letters, seen.begin_letters, KEPT))
        self._spawn(self._again_and_again(seen.run))
        self._spawn(self._again_and_again(partial(seen.count_letters, topics.dead_letters)))
        self._spawn(self._again_and_again(self.items.watch_popularity))
        self._spawn(self._again_and_again(lambda: asyncio.to_thread(self._login.look)))
        self.events.start()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._fail(error)

        self._tasks.append(asyncio.create_task(guarded()))

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _again_and_again(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do work that no answer needs: when it fails, that is reported, and it begins anew."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("something that no answer needs has failed; trying again")
            await asyncio.sleep(self._retry_s)

    async def stop(self) -> None:
        """Stop following and answering; questions that still wait are cancelled."""
        self.read_your_writes.close()
        self.streams.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self.events.stop(), self._commits.close(), return_exceptions=True)
        self._answering.close()
        self._loader.close()
        self._beside.shutdown(wait=False, cancel_futures=True)
        self._login.close()
        self._view_owner.close()

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do work that takes its time on the thread that owns the view."""
        return await self._view_owner.do(work)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work that only looks, beside the thread that answers and beside that of new versions."""
        return await asyncio.get_running_loop().run_in_executor(self._beside, work)

    # -- questions ----------------------------------------------------------------------------------------

    def is_overloaded(self) -> bool:
        """Whether a question that comes now would be refused."""
        return self._answering.is_overloaded()

    async def recommend(self, question: Question) -> Answer:
        """The answer to a question as of now. Errors: Overloaded when it would come too late."""
        return await self._answering.ask(question)

    async def look_up(self, work: Callable[[MaterialisedView], T]) -> T:
        """What `work` makes of the view as it is now."""
        return await self.on_thread(lambda: work(self.view))

    # -- users --------------------------------------------------------------------------------------------

    async def stored_user(self, user: str) -> StoredUser | None:
        """What is stored of a user; None where nothing is."""
        return await self.on_thread(lambda: stored_user(self.view, user))

    async def versions(self) -> Versions:
        """All versions: those of the registry, and those that are announced."""
        contents = await self.registry.contents()
        loaded = await self.look_up(lambda view: {ranker.live.version.id for ranker in view.rankers.values()})
        return overview(contents, self._situation(), self.installation.ranks, loaded, self._loader.failed)

    def watch_person(self, question: Question) -> PersonSource:
        """What a stream about the question's user tells."""
        user = question.user_id
        return PersonSource(
            user, self.row_watches, lambda: self.recommend(question), lambda: self.stored_user(user)
        )

    async def _row_includes(self, user: str, position: Position) -> bool:
        return await self._view_owner.do_soon(lambda: self.view.row_includes(user, *position))

    # -- readiness ----------------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Reasons not to send questions here yet; empty when ready."""
        reasons = ["the server is ending"] if self.ending else []
        reasons += [f"{topic}: {why}" for topic, why in self._following.unread.items()]
        if not self._loader.first.is_set():
            reasons += self._loader.waits_for()
        return reasons

    def stuck(self) -> str | None:
        """Why it will not be ready unless somebody does something; None where it is, or may soon be."""
        unread = self.settings.topics.model_versions in self._following.unread
        return None if unread else self._loader.stuck

    def problems(self) -> list[str]:
        """A line for each version that cannot be read, each topic that cannot be followed, each limit of
        metadata that was reached, for a login that the cluster refuses, and for a cluster that does not
        answer.
        """
        silence = ["Kafka does not answer: what came since is not known here"]
        return [*self._unreadable(), *(silence if self.installation.cut_off else [])]

    def _unreadable(self) -> list[str]:
        login = [self._login.problem] if self._login.problem else []
        failed, interrupted = self._loader.failed.values(), self._following.interrupted.values()
        return [*failed, *interrupted, *self.view.attributes.over_limit, *login]

    def _view_facts(self) -> ViewFacts:
        view = self.view
        rows = {at: len(slab) for at, slab in view.slabs.items()}
        return ViewFacts(len(view), len(view.catalogue), view.now(), rows, len(view.rankers))

    def _situation(self) -> Situation:
        announced, live = self._loader.announced, frozenset(self._loader.live)
        return Situation(announced, live, self.not_ready(), self._unreadable())

    # -- followed topics ----------------------------------------------------------------------------------

    async def _take_items(self, tp: TopicPartition, records: Records) -> None:
        pairs = [(record.key, record.value) for record in records]
        self._following.report(tp.topic, await self.on_thread(lambda: self.view.take_items(pairs)))
        await self.on_thread(self.view.forget_items)

    async def _follow_statistics(self) -> None:
        await self._loader.first.wait()  # it says how events are counted
        topic = self.settings.topics.item_stats
        await self._following.follow(topic, range(self.settings.partitions), self._take_statistics)

    async def _take_statistics(self, tp: TopicPartition, records: Records) -> None:
        pairs = [(record.key, record.value) for record in records]
        self._following.report(
            tp.topic, await self.on_thread(lambda: self.view.take_statistics(tp.partition, pairs))
        )
        await self.on_thread(self.view.forget_items)

    async def _take_rows(self, tp: TopicPartition, records: Records) -> None:
        newest = {record.key: record.value for record in records if record.key is not None}
        if self._row_traces is not None:
            self._row_traces.take(records, newest)  # before anybody can see that the rows include something
        unreadable, rows, missing = await self.on_thread(
            lambda: (
                self.view.take_rows(tp.partition, newest),
                len(self.view),
                self.view.without_model(self._loader.live),
            )
        )
        self._following.report(tp.topic, unreadable)
        self.read_your_writes.wake(newest)
        self.row_watches.wake(newest)
        self.metrics.rows.set(rows)
        self._loader.rows_came(missing)

    def link_to_row(self, user: str) -> None:
        """Link the span of the request that is being answered to what last changed the user's row."""
        context, traces = current(), self._row_traces
        if context is not None and context.span is not None and traces is not None:
            trace = traces.of(user)
            if trace is not None:
                link(context.span, trace)

    async def _take_versions(self, tp: TopicPartition, records: Records) -> None:
        self._following.report(tp.topic, self._loader.take_announcements(records))

    async def _take_metrics(self, tp: TopicPartition, records: Records) -> None:
        self._following.report(tp.topic, await self.installation.take_metrics(tp, records))
