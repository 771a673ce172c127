"""How long a fetch may wait at the broker: not at all while little comes, for more records while much does.

A chunk of a few records costs about as much as one of hundreds. So on a busy stream the broker answers a
fetch only when it has many records, or after a moment; on a quiet one each event is answered at once, and a
fetch of an idle worker rests at the broker until there is something to answer.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

BUSY_PER_S = 200.0
"""Records per second from which on fetches wait for more: with so many, chunks of one record each would keep
a worker about half busy.
"""

MEMORY_S = 0.5
"""How far back the rate looks: what came so long ago counts 1/e."""


class Patience(NamedTuple):
    """The broker answers a fetch when it has so many bytes, or after so long."""

    min_bytes: int
    wait_ms: int


AT_ONCE = Patience(1, 100)
"""A fetch also holds back the answer to a seek or a rebalance: it rests at the broker for no longer."""

IN_CHUNKS = Patience(64 << 10, 20)
"""At 5,000 events/s in slices of 5 ms this halves the median time to an answer."""


class FetchPace:
    """Follows the rate at which records come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at, self._count = clock(), 0.0

    def after(self, records: int) -> Patience:
        """How the next fetch waits, now that one has brought so many records."""
        now = self._clock()
        self._count = self._count * math.exp((self._at - now) / MEMORY_S) + records
        self._at = now
        return IN_CHUNKS if self._count / MEMORY_S > BUSY_PER_S else AT_ONCE
