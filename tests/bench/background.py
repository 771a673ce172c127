"""Work beside a measurement: a load, or something that happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def meanwhile(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Do work on a thread while the block lasts; at its end the event is set, upon which the work must end.

    Errors: those of the work. What was measured beside a load that had stopped is not what it says.
    """
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work, ended)
        try:
            yield
        finally:
            ended.set()
        working.result()
