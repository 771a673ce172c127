"""Local ports: whether a given one is free, and some port that is."""

import socket


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(_family(host)) as probe:
        # As servers do: a port whose old connections are still closing down counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str, but: int | None = None) -> int:
    """A port other than `but` on which nobody listens now; another program may still be faster to take it.

    Errors: OSError when the host is another machine, or none.
    """
    while True:
        with socket.socket(_family(host)) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port != but:
            return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
