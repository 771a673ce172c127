"""The Faust app of a worker: group membership, rebalancing, flow control, and one agent that takes whole
chunks.

Only this file and eddy.stream.worker.transport know Faust.
"""

import asyncio
import logging
from functools import partial
from typing import Any, cast
from uuid import UUID

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.auth import OAuthCredentials
from faust.types import TP

from eddy.models.c_heap import keep_large_blocks_apart
from eddy.models.errors import EddyError
from eddy.models.garbage import keep_out_of_collections
from eddy.stream.kafka.clients import admin_client, require_servers
from eddy.stream.kafka.login_watch import LoginWatch
from eddy.stream.kafka.preparing import ToldToEnd, told_by_signals, unless_told_to_end
from eddy.stream.kafka.security.credentials import for_aiokafka
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topic_watch import TopicWatch, require_same_rows
from eddy.stream.kafka.topics import ensure_topics, topic_ids, topic_specs
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import discard_those_of_another_changelog
from eddy.stream.tracing import Tracer, start_tracing
from eddy.stream.worker.joining import tell_of_refusals
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.probes import serve_metrics
from eddy.stream.worker.static_member import NameTaken, keep_out_of_the_way, name_is_taken
from eddy.stream.worker.transport import CHUNK_CODEC, BatchConsumer, BatchTransport, Reading
from eddy.stream.worker.worker import Worker

log = logging.getLogger("eddy.worker")

FETCH_RECORDS = 4096
BUFFERED_CHUNKS = 4
HEARTBEAT_S = 0.3
"""A member hears of a rebalance by its heartbeat, and all wait for the last one to hear of it."""

REBALANCE_TIMEOUT_S = 60.0
"""How long the group waits at least for its members to join again. A longer session makes it longer, since
the last flush before that may take a share of the session (see eddy.stream.worker.worker).
"""

REQUEST_MARGIN_S = 30.0
"""How much longer than a rebalance a request may take: joining is a request that waits for the other members.
"""

WATCH_S = 2.0
METADATA_AGE_S = 10
LAST_SPANS_S = 2.0
"""How long the end of a worker may wait for its last spans to be exported."""


def _credentials(settings: Settings) -> Any:
    """The settings' security in Faust's own form, which Faust turns back into aiokafka's arguments."""
    config = for_aiokafka(settings)
    context = config.get("ssl_context")
    match config.get("sasl_mechanism"):
        case None:
            return faust.SSLCredentials(context) if context else None
        case "OAUTHBEARER":
            return OAuthCredentials(oauth_cb=config["sasl_oauth_token_provider"], ssl_context=context)
        case mechanism:
            return faust.SASLCredentials(
                mechanism=mechanism,
                username=config["sasl_plain_username"],
                password=config["sasl_plain_password"],
                ssl_context=context,
            )


def new_app(settings: Settings, note: str) -> faust.App:
    """A Faust app of the worker's group; `note` is committed beside offsets. `connect` gives it a worker."""
    folder = settings.cache_dir / "faust"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # Faust makes the last folder only
    except OSError as error:
        raise EddyError(f"{folder}: cannot be made ({error}); set EDDY_CACHE_DIR to another folder") from None
    rebalance_timeout = max(REBALANCE_TIMEOUT_S, settings.session_timeout_s)
    app = faust.App(
        settings.group,
        broker=[f"aiokafka://{server}" for server in require_servers(settings).split(",")],
        broker_credentials=_credentials(settings),
        store="memory://",
        datadir=str(folder),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_request_timeout=rebalance_timeout + REQUEST_MARGIN_S,
        broker_rebalance_timeout=rebalance_timeout,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_max_poll_records=FETCH_RECORDS,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.worker_id,
        # A group whose leader joined while a broker was starting may have seen no topic and dealt nothing:
        # it joins again when it sees the topic, in Faust's default after five minutes.
        consumer_metadata_max_age_ms=1000 * METADATA_AGE_S,
        stream_buffer_maxsize=BUFFERED_CHUNKS,
        stream_wait_empty=False,
    )
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    app.transport.note = note
    return app


class GroupConsumer:
    """The app's consumer of `events`, by the numbers of partitions; see `EventsConsumer`."""

    def __init__(self, app: faust.App, topic: str) -> None:
        self._app, self._topic = app, topic

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self._app.consumer)

    def start_reading(self, number: int) -> None:
        self._consumer.start_reading(TP(self._topic, number))

    def stop_reading(self, number: int) -> None:
        self._consumer.stop_reading(TP(self._topic, number))

    async def commit(self, offsets: dict[int, int]) -> bool:
        committed = {TP(self._topic, number): offset for number, offset in offsets.items()}
        return await self._consumer.commit_durable(committed)

    async def read_again(self, seeks: int) -> None:
        await self._consumer.read_again(seeks)

    def reading(self, number: int) -> Reading | None:
        return self._consumer.reading(TP(self._topic, number))

    def take_gone(self, number: int, start: int) -> int:
        return self._consumer.take_gone(TP(self._topic, number), start)


def connect(app: faust.App, settings: Settings, worker: Worker) -> None:
    """Have the app hand its chunks to a worker, and tell it of partitions gained and lost."""
    topic = settings.topics.events
    loop = asyncio.get_running_loop()

    def end(reason: EddyError) -> None:  # called on the consumer's thread
        loop.call_soon_threadsafe(worker.background.fail, reason)

    def prepare(consumer: AIOKafkaConsumer) -> None:
        tell_of_refusals(consumer, settings, end)
        if settings.worker_id is not None:
            keep_out_of_the_way(
                consumer,
                lambda member_id: name_is_taken(settings, member_id),
                lambda: end(NameTaken(settings)),
            )

    cast(BatchTransport, app.transport).prepare = prepare

    @app.agent(app.topic(topic, value_serializer=CHUNK_CODEC, key_serializer="raw"))
    async def take_chunks(stream: Any) -> None:
        # Not acknowledged here: a chunk is done when a checkpoint has made it durable (see
        # eddy.stream.worker.transport).
        async for event in stream.noack().events():
            await worker.put(event.value)

    def numbers_of(partitions: set[TP]) -> set[int]:
        return {tp.partition for tp in partitions if tp.topic == topic}

    async def on_assigned(app: Any, assigned: set[TP], **_: Any) -> None:
        await worker.assigned(numbers_of(assigned), app.consumer_generation_id)

    async def on_revoked(app: Any, revoked: set[TP], **_: Any) -> None:
        await worker.revoked(numbers_of(revoked))

    app.on_partitions_assigned.connect(cast(Any, on_assigned))
    app.on_partitions_revoked.connect(cast(Any, on_revoked))


async def run_worker(settings: Settings, on_step: Any = lambda _: None) -> None:
    """Run a worker until SIGTERM or SIGINT, and return after a last flush.

    Errors: EddyError, or whatever ended the worker.
    """
    keep_large_blocks_apart()
    stop = asyncio.Event()
    with told_by_signals(stop.set):
        try:
            ids = await unless_told_to_end(partial(_prepare, settings), stop.wait())
        except ToldToEnd:
            return
        tracer = start_tracing("eddy-worker")
        try:
            await _work(settings, ids, stop, on_step, tracer)
        finally:
            if tracer is not None:
                await asyncio.to_thread(tracer.close, LAST_SPANS_S)


async def _work(
    settings: Settings, ids: dict[str, UUID], stop: asyncio.Event, on_step: Any, tracer: Tracer | None
) -> None:
    """Join the group and work until the worker is to stop. ids: of the topics. Errors: see `run_worker`."""
    names = settings.topics
    metrics = WorkerMetrics()
    if settings.metrics_port is not None:
        serve_metrics(settings, settings.metrics_port, metrics.registry)
    discard_those_of_another_changelog(
        settings.cache_dir, settings.group, ids[names.events].bytes, ids[names.user_state].bytes
    )
    app = new_app(settings, ids[names.user_state].hex)
    consumer = GroupConsumer(app, names.events)
    stopping = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(
        Worker.start(settings, ids[names.events].bytes, consumer, metrics, on_step, tracer)
    )
    first: list[asyncio.Future[Any]] = [starting, stopping]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    worker = await starting
    connect(app, settings, worker)
    keep_out_of_collections()
    joining = asyncio.ensure_future(app.start())  # until the group gives it partitions, if ever
    login = LoginWatch(settings, limit_s=settings.stall_s)
    watching = asyncio.ensure_future(_watch(TopicWatch(settings, ids), login))
    try:
        await until_the_end(app, joining, stopping, watching, worker.background.failed)
        await _no_more(joining)
        app.consumer.stop_flow()
        await worker.stop(app.stop)
    except KafkaError as error:
        if (refused := await asyncio.to_thread(login.behind, error)) is None:
            raise
        raise refused from error
    finally:
        watching.cancel()
        await _no_more(joining)
        await app.stop()


async def until_the_end(
    app: faust.App, joining: "asyncio.Future[None]", stopping: "asyncio.Future[Any]",
    *failures: "asyncio.Future[Any]",
) -> None:  # fmt: skip
    """Wait until the worker is asked to stop. Errors: those of `failures`, and when Faust ended KafkaError
    with a client's reason, or EddyError.
    """
    ends = [stopping, *failures]
    await asyncio.wait([joining, *ends], return_when=asyncio.FIRST_COMPLETED)
    if joining.done():
        joining.result()
        ends.append(asyncio.ensure_future(app.wait_until_stopped()))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for failure in failures:
        if failure.done():
            failure.result()
    if not stopping.done():
        if isinstance(app.crash_reason, KafkaError):
            raise app.crash_reason
        raise EddyError(f"the Kafka consumer stopped: {app.crash_reason!r}")


async def _no_more(joining: "asyncio.Future[None]") -> None:
    """Leave off joining, if that is still under way."""
    joining.cancel()
    await asyncio.gather(joining, return_exceptions=True)


def _prepare(settings: Settings) -> dict[str, UUID]:
    """Create the topics that are missing; returns the ids of all topics."""
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "worker")
        ensure_topics(admin, settings)
        ids = topic_ids(admin, [spec.name for spec in topic_specs(settings)])
        require_same_rows(admin, settings, ids[settings.topics.user_state])
        return ids


async def _watch(*watches: TopicWatch | LoginWatch) -> None:
    """Look again and again until cancelled. Errors: those of the watches."""
    try:
        while True:
            await asyncio.sleep(WATCH_S)
            for watch in watches:
                await asyncio.to_thread(watch.look)
    finally:
        for watch in watches:
            watch.close()
