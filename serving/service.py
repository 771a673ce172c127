"""The service behind the HTTP API: keeps the view up to date with Kafka, and answers from it.

Everything that touches the view, scoring included, is done by one at a time (`eddy.serving.view_owner`);
questions that come meanwhile are scored together. Versions are read and built on another thread, while the
first goes on to answer; they go live by the exchange of a pointer. Guarantee: when a record, a version or,
for a while, the cluster cannot be read, that is reported, and the service answers from what it had before.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from aiokafka import TopicPartition

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.serving.admission import AnswerQueue
from eddy.serving.catalogue.item_service import ItemService
from eddy.serving.event_writer import EventWriter, Position
from eddy.serving.inside.dynamics import MeasuredDynamics
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.live.dead_letters import KEPT
from eddy.serving.live.installation import Installation, Situation, ViewFacts
from eddy.serving.live.person import PersonSource, RowWatches
from eddy.serving.live.streams import Streams
from eddy.serving.loop_lag import LoopLag
from eddy.serving.metrics import ServerMetrics
from eddy.serving.read_your_writes import Commits, ReadYourWrites
from eddy.serving.recommend import answer
from eddy.serving.request_context import current
from eddy.serving.row_traces import RowTraces
from eddy.serving.score_updates import ScoreUpdates
from eddy.serving.stored_user import StoredUser, stored_user
from eddy.serving.versions.answers import Versions
from eddy.serving.versions.overview import overview
from eddy.serving.versions.registry import RegistryReader
from eddy.serving.view import MaterialisedView, ScoresUpdate, VersionAt
from eddy.serving.view_owner import ViewOwner
from eddy.serving.warm_up import warm_up
from eddy.stream.engine.numbering import numbering_steps
from eddy.stream.kafka.login_watch import LoginWatch
from eddy.stream.kafka.reader import Follower, Records, Take
from eddy.stream.kafka.versions import decode_announcement, open_version
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.schema import Share
from eddy.stream.records.settings import Settings
from eddy.stream.tracing import link

log = logging.getLogger("eddy.serving")
T = TypeVar("T")

RETRY_S = 5.0
"""The time between two attempts to follow a topic, or to read a version's files."""

MAX_TOGETHER = 64
"""The most questions that are scored in one call."""


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
        self._builds = ThreadPoolExecutor(1, "eddy-versions", torch.set_num_threads, (1,))
        self._looks = ThreadPoolExecutor(1, "eddy-inside", torch.set_num_threads, (1,))
        self._updates = ScoreUpdates(self.view, self._view_owner, self._fail)
        self.dynamics = MeasuredDynamics(self)
        self.registry = RegistryReader(settings.registry)
        self.items = ItemService(self)
        topics = settings.topics
        self._reading = dict.fromkeys(
            (topics.items, topics.model_versions, topics.item_stats, topics.user_state),
            "not read to its end yet",
        )
        self._interrupted: dict[str, str] = {}
        self._announced: dict[VersionAt, Share] = {}
        self._live: set[VersionAt] = set()
        """the versions of the newest announcement"""
        self._failed: dict[VersionAt, str] = {}
        self._look_at_versions = asyncio.Event()
        self._first_version = asyncio.Event()
        self._lag = LoopLag()
        self._questions = AnswerQueue[Question, Answer](settings.http_max_wait_ms / 1000, self._lag.seconds)
        self._tasks: list[asyncio.Task[None]] = []
        self._followers: dict[str, Follower] = {}
        self.events = EventWriter(settings)
        self._commits = Commits(settings)
        self._login = LoginWatch(settings)
        self.read_your_writes = ReadYourWrites(self._row_includes, self._commits.read, self._followed_rows)
        self.streams = Streams(settings.http_max_streams)
        self.row_watches = RowWatches()
        self.installation = Installation(
            settings.partitions, self.metrics, lambda: self.on_thread(self._view_facts), self._situation
        )
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """done, with the exception, when the service cannot go on"""
        self.metrics.ready.set_function(lambda: not self.not_ready())
        self.metrics.streams.set_function(lambda: self.streams.open)
        self.ending = False
        """whether the process has been told to end"""

    async def start(self) -> None:
        """Begin to follow what answers need, and to answer; returns at once."""
        topics, partitions = self.settings.topics, range(self.settings.partitions)
        self._spawn(self._answer_questions())
        self._spawn(self._load_versions())
        self._spawn(self._follow(topics.items, [0], self._take_items))
        self._spawn(self._follow(topics.model_versions, [0], self._take_versions))
        self._spawn(self._follow(topics.user_state, partitions, self._take_rows))
        self._spawn(self._follow_statistics())

    def serve_others(self) -> None:
        """Begin with all that callers from outside may want beside answers: what the installation does,
        popularity over time, and events in.
        """
        topics, seen = self.settings.topics, self.installation
        self._spawn(self._follow(topics.metrics, [0], self._take_metrics, seen.begin_metrics))
        self._spawn(self._follow(topics.dead_letters, [0], seen.take_letters, seen.begin_letters, KEPT))
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
        self._questions.cancel()
        self._lag.stop()
        self._builds.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)
        self._updates.close()
        self._login.close()
        self._view_owner.close()

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Do work that takes its time on the thread that owns the view."""
        return await self._view_owner.do(work)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work that only looks, beside the thread that answers and beside that of new versions."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, work)

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do work of new versions beside the thread that answers."""
        return await asyncio.get_running_loop().run_in_executor(self._builds, work)

    # -- questions ----------------------------------------------------------------------------------------

    def is_overloaded(self) -> bool:
        """Whether a question that comes now would be refused."""
        return self._questions.is_full()

    async def recommend(self, question: Question) -> Answer:
        """The answer to a question as of now. Errors: Overloaded when it would come too late."""
        return await self._questions.ask(question)

    async def look_up(self, work: Callable[[MaterialisedView], T]) -> T:
        """What `work` makes of the view as it is now."""
        return await self.on_thread(lambda: work(self.view))

    def _answer(self, questions: Sequence[Question]) -> tuple[list[Answer], Sequence[ScoresUpdate]]:
        """The answers, and what is to be done afterwards so that later ones need not wait for it."""
        return answer(self.view, questions), self._updates.begin()

    async def _answer_questions(self) -> None:
        while True:
            batch = await self._questions.next_batch(MAX_TOGETHER)
            questions = [waiting.question for waiting in batch]
            self.metrics.batch.observe(len(batch))
            try:
                # An explanation reads the window once for each event: some ten times what a list takes.
                explained = any(question.explain for question in questions)
                expected_s = math.inf if explained else self._questions.expected_s(len(batch))
                answers, updates = await self._view_owner.do_soon(
                    partial(self._answer, questions), expected_s
                )
            except Exception as error:
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            finally:
                self._questions.done()
            for waiting, result in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(result)
            self._updates.run(updates)

    # -- users --------------------------------------------------------------------------------------------

    async def stored_user(self, user: str) -> StoredUser | None:
        """What is stored of a user; None where nothing is."""
        return await self.on_thread(lambda: stored_user(self.view, user))

    async def versions(self) -> Versions:
        """All versions: those of the registry, and those that are announced."""
        contents = await self.registry.contents()
        loaded = await self.look_up(lambda view: {ranker.live.version.id for ranker in view.rankers.values()})
        return overview(contents, self._situation(), self.installation.ranks, loaded, self._failed)

    def watch_person(self, question: Question) -> PersonSource:
        """What a stream about the question's user tells."""
        user = question.user_id
        return PersonSource(
            user, self.row_watches, lambda: self.recommend(question), lambda: self.stored_user(user)
        )

    async def _row_includes(self, user: str, position: Position) -> bool:
        return await self._view_owner.do_soon(lambda: self.view.row_includes(user, *position))

    def _followed_rows(self, partition: int) -> int:
        follower = self._followers.get(self.settings.topics.user_state)
        return -1 if follower is None else follower.position(partition)

    # -- readiness ----------------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Reasons not to send questions here yet; empty when ready."""
        reasons = ["the server is ending"] if self.ending else []
        reasons += [f"{topic}: {why}" for topic, why in self._reading.items() if why]
        if not self._first_version.is_set():
            reasons += list(self._failed.values()) or [
                "no model version is announced yet; make one with: eddy train"
            ]
        return reasons

    def problems(self) -> list[str]:
        """A line for each version that cannot be read, each topic that cannot be followed, each limit of
        metadata that was reached, for a login that the cluster refuses, and for a cluster that does not
        answer.
        """
        silence = ["Kafka does not answer: what came since is not known here"]
        return [*self._unreadable(), *(silence if self.installation.cut_off else [])]

    def _unreadable(self) -> list[str]:
        login = [self._login.problem] if self._login.problem else []
        return [*self._failed.values(), *self._interrupted.values(), *self.view.attributes.over_limit, *login]

    def _view_facts(self) -> ViewFacts:
        view = self.view
        rows = {at: len(slab) for at, slab in view.slabs.items()}
        return ViewFacts(len(view), len(view.catalogue), view.now(), rows, len(view.rankers))

    def _situation(self) -> Situation:
        return Situation(self._announced, frozenset(self._live), self.not_ready(), self._unreadable())

    # -- followed topics ----------------------------------------------------------------------------------

    async def _follow(
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
                self.metrics.behind.labels(topic).observe(max(wall_ms() - records[0].timestamp, 0) / 1000)

        while True:
            follower = self._followers[topic] = Follower(self.settings, topic, partitions, timed, last)
            self.metrics.followed_lag.labels(topic).set_function(follower.left)
            begin(follower)
            running = asyncio.create_task(follower.run())
            try:
                await follower.caught_up()
                read = True
                self._reading.pop(topic, None)
                self._interrupted.pop(topic, None)
                await running
            except Exception as error:
                log.warning("%s: cannot be followed (%r); trying again", topic, error)
                self._interrupted[topic] = f"{topic}: cannot be followed: {error!r}"
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(self._retry_s)

    def _report(self, topic: str, unreadable: Sequence[str]) -> None:
        if unreadable:
            self.metrics.unreadable.labels(topic).inc(len(unreadable))
            log.warning("%s: %d unreadable records left out; %s", topic, len(unreadable), unreadable[0])

    async def _take_items(self, tp: TopicPartition, records: Records) -> None:
        pairs = [(record.key, record.value) for record in records]
        self._report(tp.topic, await self.on_thread(lambda: self.view.take_items(pairs)))
        await self.on_thread(self.view.forget_items)

    async def _follow_statistics(self) -> None:
        await self._first_version.wait()  # it says how events are counted
        topic = self.settings.topics.item_stats
        await self._follow(topic, range(self.settings.partitions), self._take_statistics)

    async def _take_statistics(self, tp: TopicPartition, records: Records) -> None:
        pairs = [(record.key, record.value) for record in records]
        self._report(tp.topic, await self.on_thread(lambda: self.view.take_statistics(tp.partition, pairs)))
        await self.on_thread(self.view.forget_items)

    async def _take_rows(self, tp: TopicPartition, records: Records) -> None:
        newest = {record.key: record.value for record in records if record.key is not None}
        if self._row_traces is not None:
            self._row_traces.take(records, newest)  # before anybody can see that the rows include something
        unreadable, rows, missing = await self.on_thread(
            lambda: (
                self.view.take_rows(tp.partition, newest),
                len(self.view),
                self.view.without_model(self._live),
            )
        )
        self._report(tp.topic, unreadable)
        self.read_your_writes.wake(newest)
        self.row_watches.wake(newest)
        self.metrics.rows.set(rows)
        if missing - self._failed.keys():
            self._look_at_versions.set()

    def link_to_row(self, user: str) -> None:
        """Link the span of the request that is being answered to what last changed the user's row."""
        context, traces = current(), self._row_traces
        if context is not None and context.span is not None and traces is not None:
            trace = traces.of(user)
            if trace is not None:
                link(context.span, trace)

    async def _take_versions(self, tp: TopicPartition, records: Records) -> None:
        for record in records:
            if record.value is None:
                continue
            try:
                announcement = decode_announcement(record.value)
            except EddyError as error:
                self._report(tp.topic, [str(error)])
                continue
            shares = {
                VersionAt.of(share.version, announcement.epoch): share for share in announcement.every_share
            }
            self._announced |= shares
            newest = max(at.epoch for at in self._announced)
            self._live = {at for at in self._announced if at.epoch == newest}
        self._look_at_versions.set()

    async def _take_metrics(self, tp: TopicPartition, records: Records) -> None:
        self._report(tp.topic, await self.installation.take_metrics(tp, records))

    # -- model versions -----------------------------------------------------------------------------------

    async def _load_versions(self) -> None:
        while True:
            missing = await self.on_thread(lambda: self.view.without_model(self._live))
            wanted = sorted(missing & self._announced.keys(), reverse=True)
            self._failed = {at: why for at, why in self._failed.items() if at in wanted}
            for at in wanted:
                await self._load(at)
            for at in sorted(self._announced.keys() - set(wanted), reverse=True):
                if self._first_version.is_set():
                    break
                await self._load(at)  # better an older version than none
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s if self._failed else None):
                    await self._look_at_versions.wait()
            self._look_at_versions.clear()

    async def _load(self, at: VersionAt) -> None:
        share = self._announced[at]
        try:
            version = await self._beside(partial(open_version, share, self.settings.registry))
            for step in numbering_steps(version, self.view.names):
                await self.on_thread(step)
            while not await self._build_and_put(version, at.epoch):
                pass
        except Exception as error:
            why = f"epoch {at.epoch}, version {share.version}: {error}"
            if self._failed.get(at) != why:
                log.warning("cannot be used: %s", why)
            self._failed[at] = why
            return
        log.info("epoch %d: version %s", at.epoch, version.id)
        self.metrics.epoch.set(await self.on_thread(lambda: max(self.view.rankers).epoch))
        self._failed.pop(at, None)  # last: whoever sees the problem gone sees the epoch that went live
        if not self._first_version.is_set():
            await self.on_thread(partial(warm_up, self.view))
        self._first_version.set()

    async def _build_and_put(self, version: Version, epoch: int) -> bool:
        """Whether the view has taken the version: not if its items have got other numbers meanwhile."""
        new = await self.on_thread(partial(self.view.new_version, version, epoch))
        ranker = await self._beside(new.build)
        return await self.on_thread(partial(self.view.put_version, new, ranker))
