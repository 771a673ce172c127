"""How programs that start many processes end when they are asked to."""

import signal


def end_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does: whoever has started processes ends them. By itself it would end this
    process alone.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
