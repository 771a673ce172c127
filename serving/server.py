"""A server process: its socket, its signals, and the ASGI server between them and the application."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from eddy.models.errors import EddyError
from eddy.serving.app import new_app
from eddy.serving.protocol import ProblemProtocol
from eddy.serving.service import Service
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")

_GRACE_S = 10


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run_server`: uvicorn would raise them again after its shutdown."""
        yield


def listen(settings: Settings) -> socket.socket:
    """A listening socket. Errors: EddyError when the port is taken or the address is another machine's."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, which `socket.create_server` does not do: only then does asyncio set TCP_NODELAY
    # on the connections that it accepts. Without it headers and body, two writes, wait 40 ms for each other.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise EddyError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another port with "
            "EDDY_PORT (0: any free one) or another address with EDDY_HOST"
        ) from None
    return listening


async def run_server(settings: Settings, on_start: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT; returns when the questions under way are answered.

    `on_start` is called with the URL as soon as it answers. Errors: EddyError when the port is taken or the
    cluster does not answer, and whatever ended the service.
    """
    # 1. Take the port first: everything else would have to be undone if it were taken.
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        service = Service(settings)
        config = uvicorn.Config(
            new_app(service),
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            http=ProblemProtocol,
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(config)
        # 2. From here on a signal ends the server.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        # 3. Create missing topics, follow them, and answer until a signal or a failure of the service.
        await asyncio.to_thread(prepare_topics, settings)
        await service.start()
        service.failed.add_done_callback(lambda _: setattr(server, "should_exit", True))
        try:
            log.info("serving on %s", url)
            on_start(url)
            await server.serve(sockets=[listening])
            if service.failed.done():
                service.failed.result()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await service.stop()
