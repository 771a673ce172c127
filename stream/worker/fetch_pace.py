"""How long the broker may hold back the answer to a fetch.

A chunk of a few records costs about as much as a chunk of hundreds. On a busy stream the broker therefore
answers when it has many records, or after a moment. On a quiet stream it answers each event at once, and
holds the fetch of an idle worker until there is an event. With 100 events/s that takes the time from an event
to its list from 18 to 4 ms (tests/bench/README.md).
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

BUSY_PER_S = 200.0
"""Records per second from which on fetches wait for more. At this rate, chunks of one record each would keep
a worker about half busy.
"""

MEMORY_S = 0.5
"""How far back the rate looks: a record from so long ago counts 1/e."""


class Patience(NamedTuple):
    """The broker answers a fetch when it has `min_bytes`, and in any case after `wait_ms`."""

    min_bytes: int
    wait_ms: int


AT_ONCE = Patience(1, 100)
"""A fetch that waits also delays a seek or a rebalance, so it waits for at most 100 ms."""

IN_CHUNKS = Patience(64 << 10, 20)
"""Compared with Faust's defaults, this halves the median time to an answer at 5,000 events/s."""


class FetchPace:
    """Measures the rate of records."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at, self._count = clock(), 0.0

    def after(self, records: int) -> Patience:
        """How the next fetch shall wait, after one that brought so many records."""
        now = self._clock()
        self._count = self._count * math.exp((self._at - now) / MEMORY_S) + records
        self._at = now
        return IN_CHUNKS if self._count / MEMORY_S > BUSY_PER_S else AT_ONCE
