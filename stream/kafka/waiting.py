"""Waiting for what the cluster does in its own time."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], within_s: float, every_s: float) -> bool:
    """Ask `holds` every `every_s` seconds until it is true; returns whether that came within `within_s`."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
