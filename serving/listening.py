"""The socket on which a server answers."""

import socket

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings

GRACE_S = 10
"""So long the requests under way have to be answered when a server ends."""

BACKLOG = 2048
"""Connections that the kernel completes before the server accepts them."""


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
    return url_at(*listening.getsockname()[:2])


def url_at(host: str, port: int) -> str:
    """Where something answers at a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
