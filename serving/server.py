"""A server process: its socket, its signals, and the ASGI server between them and the application."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from prometheus_client import ProcessCollector

from eddy.models.errors import EddyError
from eddy.serving.app import new_app
from eddy.serving.process_metrics import ProcessMetrics
from eddy.serving.protocol import protocol_with
from eddy.serving.service import Service
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")

GRACE_S = 10
"""So long the requests under way have to be answered when the server ends."""

BACKLOG = 2048
"""Connections that the kernel completes before the server accepts them."""


_LOOK_EVERY_S = 0.1


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


def listen(settings: Settings) -> socket.socket:
    """A listening socket. Errors: EddyError when the port is taken or the address is another machine's."""
    listening = bind(settings)
    listening.listen(BACKLOG)
    return listening


def bind(settings: Settings, shared: bool = False) -> socket.socket:
    """A socket that has the server's address. shared: other sockets may have it as well, and the kernel gives
    each connection to one of those that listen (`SO_REUSEPORT`).

    Errors: EddyError when the port is taken or the address is another machine's.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, which `socket.create_server` does not do: only then does asyncio set TCP_NODELAY
    # on the connections that it accepts. Without it headers and body, two writes, wait 40 ms for each other.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise EddyError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another port with "
            "EDDY_PORT (0: any free one) or another address with EDDY_HOST"
        ) from None
    return bound


def url_of(listening: socket.socket) -> str:
    """Where a socket answers."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
    # 1. The application and the server around it.
    service = Service(settings)
    ProcessCollector(registry=service.metrics.registry)
    if metrics is not None:
        service.metrics.of_all_processes = await metrics.publish(service.metrics.registry)
    config = uvicorn.Config(
        new_app(service),
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
    server = _Server(config)

    # 2. From here on a signal ends the server: /readyz says so at once, and a balancer has time to see it. A
    #    second signal ends that time.
    loop = asyncio.get_running_loop()

    def end() -> None:
        drain_s = 0 if service.ending else settings.http_drain_s
        service.ending = True
        loop.call_later(drain_s, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    # 3. Create missing topics, follow them, and answer until a signal or a failure of the service.
    await asyncio.to_thread(prepare_topics, settings)
    await service.start()
    service.failed.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        while when_ready and service.not_ready() and not server.should_exit:
            await asyncio.sleep(_LOOK_EVERY_S)
        url = url_of(listening)
        log.info("serving on %s", url)
        on_start(url)
        await server.serve(sockets=[listening])
        if service.failed.done():
            service.failed.result()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await service.stop()
