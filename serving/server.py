"""A server process: its socket, its signals, and the ASGI server between them and the application."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import ProcessCollector

from eddy.models.c_heap import keep_large_blocks_apart
from eddy.models.garbage import keep_out_of_collections
from eddy.serving.app import new_app
from eddy.serving.listening import BACKLOG, GRACE_S, listen, url_of
from eddy.serving.process_metrics import ProcessMetrics
from eddy.serving.protocol import protocol_with
from eddy.serving.service import Service
from eddy.stream.kafka.preparing import ToldToEnd, told_by_signals, unless_told_to_end
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings
from eddy.stream.tracing import start_tracing

log = logging.getLogger("eddy.serving")

_LOOK_EVERY_S = 0.1

_LAST_SPANS_S = 2.0
"""How long the end of a server may wait for its last spans to be exported."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run_server`: uvicorn would raise them again after its shutdown."""
        yield


def run_with_fast_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a server on uvloop where there is one (not on PyPy)."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ModuleNotFoundError):
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


async def run_server(settings: Settings, on_start: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; returns when the requests under way are answered.

    `on_start` is called with the URL as soon as it answers. Errors: EddyError when the port is taken or the
    cluster does not answer, and whatever ended the service.
    """
    # The port first: everything else would have to be undone if it were taken.
    with listen(settings) as listening:
        await serve_on(listening, settings, on_start)


async def serve_on(
    listening: socket.socket,
    settings: Settings,
    on_start: Callable[[str], None] = lambda _: None,
    metrics: ProcessMetrics | None = None,
    when_ready: bool = False,
) -> None:
    """As `run_server`, on a socket that has its address. metrics: how processes on one port tell theirs.
    when_ready: take no connection before the server is ready, since others can answer meanwhile.
    """
    keep_large_blocks_apart()
    tracer = start_tracing("eddy-serve")
    service = Service(settings, traced=tracer is not None)
    try:
        if metrics is not None:
            service.metrics.of_all_processes = await metrics.publish(service.metrics.registry)
        server = _Server(_config(new_app(service, tracer), settings))
        await _run(service, server, listening, on_start, when_ready)
    finally:
        await service.stop()
        if tracer is not None:
            await asyncio.to_thread(tracer.close, _LAST_SPANS_S)


async def _run(
    service: Service,
    server: _Server,
    listening: socket.socket,
    on_start: Callable[[str], None],
    when_ready: bool,
) -> None:
    """Answer until a signal or a failure of the service, which the caller stops."""
    settings, loop, told = service.settings, asyncio.get_running_loop(), asyncio.Event()
    ProcessCollector(registry=service.metrics.registry)

    # A signal ends the server: /readyz says so at once, and a balancer has time to see it. A second signal
    # ends that time.
    def end() -> None:
        drain_s = 0 if service.ending else settings.http_drain_s
        service.ending = True
        told.set()
        service.streams.end()
        loop.call_later(drain_s, setattr, server, "should_exit", True)

    with told_by_signals(end):
        # 1. Create missing topics, and follow them.
        try:
            await unless_told_to_end(partial(prepare_topics, settings, "serve"), told.wait())
        except ToldToEnd:
            return
        await service.start()
        service.serve_others()
        service.failed.add_done_callback(lambda _: service.streams.end())
        service.failed.add_done_callback(lambda _: setattr(server, "should_exit", True))
        settling = asyncio.create_task(_settle(service))
        # 2. Answer.
        try:
            while when_ready and service.not_ready() and not server.should_exit:
                await asyncio.sleep(_LOOK_EVERY_S)
            url = url_of(listening)
            log.info("serving on %s", url)
            on_start(url)
            await server.serve(sockets=[listening])
        finally:
            settling.cancel()
        if service.failed.done():
            service.failed.result()


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves: with the limits and proxies of the settings, and without logs of its own."""
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        http=protocol_with(settings.http_max_connections),
        ws="none",
        root_path="/" + settings.http_root_path.strip("/") if settings.http_root_path else "",
        proxy_headers=bool(settings.http_trusted_proxies),
        forwarded_allow_ips=settings.http_trusted_proxies,
        timeout_keep_alive=settings.http_keep_alive_s,  # type: ignore[arg-type]  # a timer takes any number
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )


async def _settle(service: Service) -> None:
    """Keep what was loaded at the start out of the garbage collector's way: a collection of it all would
    stop answers for as long as they may wait.
    """
    keep_out_of_collections()
    while service.not_ready():
        await asyncio.sleep(_LOOK_EVERY_S)
    keep_out_of_collections()
