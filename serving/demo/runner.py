"""`eddy demo`, in the order in which things happen; every process that it starts ends with it."""

import asyncio
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console

from models.errors import EddyError
from models.events import Events, Items, read_events, read_items
from serving.demo import first_version
from serving.demo.board import Board, Watched
from serving.demo.children import Child, Children
from serving.demo.data import EVENTS_FILE, ITEMS_FILE, generated, split, watched_user, write_events
from serving.demo.display import display
from serving.demo.freshness import Freshness
from serving.demo.plan import FULL, MALFORMED, QUICK, Plan
from serving.demo.scrape import Scraper
from serving.demo.summary import FILE, Summary
from stream.broker import broker_or_local
from stream.clients import admin_client, client_config
from stream.disk import require_disk
from stream.producers import new_producer, send_all
from stream.replay import replay
from stream.schema import Item, encode
from stream.settings import Settings
from stream.topics import ensure_topics, topic_specs

_FREE_BYTES = 2 << 30
_BEAT_S = 0.25
_SLICE_S = 5.0
_START_S = 120.0
_OLD_S = 7 * 86_400.0


def run_demo(settings: Settings, keep: bool = False, quick: bool = False) -> None:
    """Run the demo to its end. Errors: EddyError when something fails, or when a promise does not hold."""
    plan = QUICK if quick else FULL
    console, board = Console(), Board()
    events, items = read_events(EVENTS_FILE), read_items(ITEMS_FILE)
    require_disk(settings.cache_dir, _FREE_BYTES)
    with _folder(settings.cache_dir) as folder, display(board, console):
        with broker_or_local(settings, board.say) as servers, _topics(settings, servers, folder) as own:
            with Children(folder, _environment(own)) as children:
                run = _Demo(own, plan, board, children, events, items)
                summary = asyncio.run(run.run(console if keep else None))
    _report(console, summary, run)


def _report(console: Console, summary: Summary, run: "_Demo") -> None:
    console.print(summary.table())
    console.print(f"These figures: {FILE.absolute()}", soft_wrap=True)
    failures = summary.failures(len(MALFORMED), run.paced)
    if failures:
        raise EddyError(f"the demo ran to its end, but: {'; '.join(failures)}")


@contextmanager
def _folder(cache: Path) -> Iterator[Path]:
    """The run's files: registry, event log, logs. They stay only when something fails, for a week."""
    runs = cache / "demo" / "runs"
    folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    try:
        (folder / "registry").mkdir(parents=True)
    except OSError as error:
        raise EddyError(
            f"{folder}: cannot be made ({error}); set EDDY_CACHE_DIR to a folder of yours"
        ) from None
    for old in runs.iterdir():
        if time.time() - old.stat().st_mtime > _OLD_S:
            shutil.rmtree(old, ignore_errors=True)
    try:
        yield folder
    except EddyError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _topics(settings: Settings, servers: str, folder: Path) -> Iterator[Settings]:
    """Settings with topics of the demo's own; on a cluster that is not the demo's they are deleted at the end."""
    guest = settings.bootstrap_servers is not None
    name = f"eddy-demo-{secrets.token_hex(4)}"
    own = settings.replace(
        bootstrap_servers=servers,
        topic_prefix=f"{name}." if guest else "",
        group=name,
        registry=folder / "registry",
        event_log=folder / "event-log",
        port=_port(settings),
        metrics_port=_free_port(settings.host),
        prequential_sample=1.0,
    )
    try:
        with admin_client(own) as admin:
            ensure_topics(admin, own)
        yield own
    finally:
        if guest:
            with suppress(Exception), admin_client(own) as admin:
                admin.delete_topics([spec.name for spec in topic_specs(own)])


def _environment(settings: Settings) -> dict[str, str]:
    """What the children need to know beside this process's own EDDY_* variables."""
    names = (
        "bootstrap_servers", "topic_prefix", "group", "registry", "event_log", "port", "metrics_port",
        "prequential_sample",
    )  # fmt: skip
    return {f"EDDY_{name.upper()}": str(getattr(settings, name)) for name in names}


def _port(settings: Settings) -> int:
    """The port that was asked for; without a wish 8000, or any free one when that is taken.

    Errors: EddyError when the port that was asked for is taken.
    """
    if settings.port and _is_free(settings.host, settings.port):
        return settings.port
    if settings.port and "port" in settings.model_fields_set and settings.port != DEFAULT_PORT:
        raise EddyError(
            f"port {settings.port} is taken: stop what listens there, or set EDDY_PORT to another one"
        )
    return _free_port(settings.host)


DEFAULT_PORT = 8000


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class _Demo:
    """One run, from topics to summary."""

    def __init__(
        self, settings: Settings, plan: Plan, board: Board, children: Children, events: Events, items: Items
    ) -> None:
        self.settings, self.plan, self.board, self.children = settings, plan, board, children
        known, live = split(events)
        self.known = known if plan.known is None else known.take(slice(len(known) - plan.known, len(known)))
        self.live = live if plan.live is None else live.take(slice(0, plan.live))
        self.items = items
        paced = self.live.take(slice(0, int(plan.rate * plan.paced_s)))
        self.watched = Watched(watched_user(self.known, paced), items.title)
        self.base = f"http://{settings.host}:{settings.port}"
        self.url = f"{self.base}/v1/users/{self.watched.user}/recommendations"
        self.sent = 0
        self.paced = 0
        self.cached = False
        self.lasting: list[Child] = []

    async def run(self, stay: Console | None) -> Summary:
        """Everything; with `stay` the system stays up afterwards until this is cancelled."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            metrics = f"http://{self.settings.host}:{self.settings.metrics_port}/metrics"
            self.scraper = Scraper(client, metrics, self.board)
            flow = asyncio.create_task(self._flow(stay))
            monitor = asyncio.create_task(self._monitor())
            try:
                await asyncio.wait([flow, monitor], return_when=asyncio.FIRST_COMPLETED)
                if monitor.done():
                    monitor.result()
                return flow.result()
            finally:
                for task in (flow, monitor):
                    task.cancel()
                await asyncio.gather(flow, monitor, return_exceptions=True)

    async def _monitor(self) -> None:
        """Watches processes, worker and server. Errors: EddyError when a process has ended."""

        while True:
            for child in self.lasting:
                child.check()
            await self.scraper.worker()
            if self.board.url:
                await self.scraper.ask(self.url)
            await asyncio.sleep(_BEAT_S)

    async def _flow(self, stay: Console | None) -> Summary:
        board, plan = self.board, self.plan
        await self._first_version()
        await self._send_known()
        board.begin(f"replaying live: {plan.rate:.0f} events/s, a second version on its way")
        freshness = Freshness(self.settings, self.watched.take)
        await asyncio.to_thread(freshness.start)
        await self._paced()
        await self._applied()
        freshness.stop()
        if freshness.failure is not None:
            raise EddyError(f"recommendations cannot be read: {freshness.failure!r}")
        throughput, quality = await self._unpaced()
        summary = await asyncio.to_thread(self._summary, throughput, quality, freshness.milliseconds())
        summary.write()
        if stay is not None:
            board.begin("staying up; Ctrl-C ends it")
            stay.print(summary.table())
            await asyncio.Event().wait()
        return summary

    async def _first_version(self) -> None:
        board, children, folder = self.board, self.children, self.children.folder
        place = (
            self.settings.cache_dir / "demo" / "first-version"
            / ("quick" if self.plan.quick else "full") / first_version.cache_key(EVENTS_FILE, self.plan.first)
        )  # fmt: skip
        self.cached = first_version.take_cached(place, self.settings.registry)
        if self.cached:
            board.begin("a first version: trained by an earlier demo, used again")
            training = children.start("announce")
        else:
            board.begin("training a first version on what is known", 100)
            file = folder / "known.parquet"
            write_events(self.known, file)
            training = children.start("train", "--events", str(file), *self.plan.first, "--announce")
        # Processes take seconds to start: they wait for the version, not the other way round.
        self.lasting += [children.start("worker"), children.start("serve")]
        sending = asyncio.create_task(self._send_items())
        await self._finish(training, board.say)
        await sending
        if not self.cached:
            first_version.keep(self.settings.registry, place)

    async def _finish(self, child: Child, say: Callable[[str], None]) -> None:
        """Wait for a command, showing its last line."""
        done = asyncio.create_task(child.finished())
        try:
            while not done.done():
                say(child.last_line)
                self.board.done = _percent(child.last_line) if self.board.of == 100 else self.board.done
                await asyncio.wait([done], timeout=_BEAT_S)
            done.result()
        finally:
            done.cancel()

    async def _send_items(self) -> None:
        items = self.items
        messages = [
            (item.encode(), encode(Item(item, title, items.genres.get(item, []))))
            for item, title in items.title.items()
        ]
        producer = new_producer(self.settings)
        await producer.start()
        try:
            await asyncio.gather(*await send_all(producer, self.settings.topics.items, 0, messages))
        finally:
            await producer.stop()

    async def _send_known(self) -> None:
        board = self.board
        board.begin(f"telling the system what is known: {len(self.known):,} events", len(self.known))
        await self._send(self.known)
        await self._applied(_START_S * 2)
        await self._until(lambda: self.scraper.ready, "the worker is not ready", _START_S)
        await self._until_up(f"{self.base}/readyz")
        self.scraper.forget_quality()
        board.url, board.watched = self.url, self.watched

    async def _send(self, events: Events, rate: float | None = None) -> None:
        self.sent += await replay(self.settings, events, rate)

    async def _paced(self) -> None:
        """The paced part: at least its time, and until the second version is live."""
        plan, live = self.plan, self.live
        self.board.watched = self.watched
        await self._send_malformed()
        refresh = asyncio.create_task(self._refresh())
        try:
            while self.paced < len(live) and (self.paced < plan.rate * plan.paced_s or not refresh.done()):
                if refresh.done():
                    refresh.result()
                until = min(self.paced + int(plan.rate * _SLICE_S), len(live))
                await self._send(live.take(slice(self.paced, until)), plan.rate)
                self.paced = until
            await refresh
        finally:
            refresh.cancel()

    async def _refresh(self) -> None:
        """A second version from the event log, then the exchange; the stream goes on meanwhile."""

        def say(line: str) -> None:
            self.board.refresh = line

        say("writing the event log")
        await self._finish(self.children.start("export", nice=True), say)
        log = str(self.settings.event_log)
        training = self.children.start("train", "--events", log, *self.plan.second, "--announce", nice=True)
        await self._finish(training, say)
        say("announced; rows are encoded anew")
        await self._until(
            lambda: self.board.epoch == 2 and not self.board.stale_rows,
            "the second version is not live",
            _START_S,
        )
        say("live")

    async def _send_malformed(self) -> None:
        producer = new_producer(self.settings)
        await producer.start()
        try:
            messages = [(b"1", value) for value in MALFORMED]
            await asyncio.gather(*await send_all(producer, self.settings.topics.events, 0, messages))
        finally:
            await producer.stop()

    async def _unpaced(self) -> tuple[float, dict[str, float]]:
        """The rest as fast as it goes: events per second, and the quality over all live events."""
        rest = self.live.take(slice(self.paced, len(self.live)))
        self.board.begin("the rest, as fast as it goes")
        before, began = self.sent, time.monotonic()
        if len(rest):
            await self._send(rest)
            await self._applied()
        took, quality = time.monotonic() - began, dict(self.board.quality)
        self.generated = 0
        if took < self.plan.measured_s:
            self.board.begin("generated users, as fast as it goes: the log was over too soon to measure")
            repetitions = 1 + int(self.plan.measured_s / max(took, 1) * len(rest) / len(self.live))
            began = time.monotonic()
            for repetition in range(1, repetitions + 1):
                await self._send(generated(self.live, repetition))
            await self._applied()
            took += time.monotonic() - began
            self.generated = repetitions * len(self.live)
        return (self.sent - before) / took, quality

    def _summary(
        self,
        throughput: float,
        quality: dict[str, float],
        fresh: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    ) -> Summary:
        topics, board = self.settings.topics, self.board
        board.begin("counting")
        return Summary(
            events_in=self._count(topics.events, self.settings.partitions),
            events_applied=board.applied,
            events_generated=self.generated,
            dead_letters=self._count(topics.dead_letters, 1),
            recommendations_out=self._count(topics.recommendations, self.settings.partitions),
            mode="all",
            events_ranked=int(quality["events"]),
            recall_at_20=quality["recall_at_20"],
            mrr_at_20=quality["mrr_at_20"],
            popularity_recall_at_20=quality["popularity_recall_at_20"],
            popularity_mrr_at_20=quality["popularity_mrr_at_20"],
            model_versions=board.epoch,
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

    def _count(self, topic: str, partitions: int) -> int:
        """Records in a topic, by its end offsets."""
        consumer = KafkaConsumer(**client_config(self.settings))
        try:
            return sum(
                consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)]).values()
            )
        finally:
            consumer.close()

    async def _applied(self, within_s: float = _START_S) -> None:
        """Wait until everything that was sent is applied; fails when nothing moves any more."""
        last, at = -1, time.monotonic()
        while self.board.applied < self.sent:
            if self.board.applied != last:
                last, at = self.board.applied, time.monotonic()
            if self.board.of:
                self.board.done = self.board.applied
            if time.monotonic() - at > within_s:
                raise EddyError(
                    f"the worker stands still at {last} of {self.sent} events (log: {self.children.folder}/worker.log)"
                )
            await asyncio.sleep(_BEAT_S / 2)

    async def _until(self, condition: Callable[[], bool], otherwise: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise EddyError(f"{otherwise} after {within_s:.0f} s (logs: {self.children.folder})")
            await asyncio.sleep(_BEAT_S / 2)

    async def _until_up(self, url: str) -> None:
        deadline = time.monotonic() + _START_S
        while not await self.scraper.is_up(url):
            if time.monotonic() > deadline:
                raise EddyError(
                    f"{url} is not ready after {_START_S:.0f} s (log: {self.children.folder}/serve.log)"
                )
            await asyncio.sleep(_BEAT_S)


def _percent(line: str) -> float:
    """Of a line like "network, epoch 1 (37 %)"; 0 when there is none."""
    head, sign, _ = line.rpartition(" %)")
    digits = head.rpartition("(")[2]
    return float(digits) if sign and digits.isdigit() else 0.0
