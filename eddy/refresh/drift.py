"""When to refresh: as soon as the live version's loss has risen for good.

The loss is 1 - MRR@20 of the events that workers rank before they apply them, as they tell on the topic
`metrics`. ADWIN (Bifet & Gavaldà, SDM 2007) keeps as many of the latest losses as agree with each other, and
says when older ones had another mean.
"""

import logging
import math
import time
from collections.abc import Callable

from kafka.errors import KafkaError
from river.drift import ADWIN

from eddy.models.errors import EddyError
from eddy.refresh.job import Say
from eddy.stream.kafka.live_ranks import RankReader
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.rank_counts import SUMS, Told
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.refresh")

EVENTS_OF_A_LOSS = 20
"""Ranked events whose mean loss is one value for the detector, at least. Its bound takes a value for anything
between 0 and 1, so means over more events would hide what they say.
"""

LOOK_S = 5.0
"""The time between two looks at `metrics`."""

_EVENTS, _RECIPROCAL = SUMS.index("events"), SUMS.index("reciprocal")


class DriftDetector:
    """Tells from what workers say, record by record, when the loss of what is live has risen."""

    def __init__(self) -> None:
        self._epoch = 0
        self._begin()

    def _begin(self) -> None:
        self._adwin = ADWIN()  # type: ignore[no-untyped-call]
        self._events = self._reciprocal = 0.0

    def take(self, told: Told) -> str | None:
        """Take in a record. Returns one sentence when the loss has risen; None when nothing is known to have
        changed, or it has fallen. Ranks of a newer epoch begin anew, and those of older ones do not count.
        """
        newest = max((by.epoch for by in told.sums), default=0)
        if newest > self._epoch:
            self._epoch = newest
            self._begin()
        risen = None
        for by, sums in told.sums.items():
            if by.epoch == self._epoch:
                for events, reciprocal in sums[[_EVENTS, _RECIPROCAL]].T.tolist():
                    risen = self._add(events, reciprocal) or risen
        return risen

    def _add(self, events: float, reciprocal: float) -> str | None:
        """Take in the ranks of one group of users."""
        self._events += events
        self._reciprocal += reciprocal
        if self._events < EVENTS_OF_A_LOSS:
            return None
        before = self._adwin.estimation
        self._adwin.update(1.0 - self._reciprocal / self._events)  # type: ignore[no-untyped-call]
        self._events = self._reciprocal = 0.0
        now = self._adwin.estimation
        if not self._adwin.drift_detected or now <= before:
            return None
        return f"MRR@20 of what is live fell from {1.0 - before:.4f} to {1.0 - now:.4f}"


class DriftWatch:
    """Waits for the next turn of a schedule, or until the loss rises."""

    def __init__(self, settings: Settings, say: Say, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings, self._say, self._sleep = settings, say, sleep
        self._detector = DriftDetector()
        self._reader: RankReader | None = None
        self._since_ms = wall_ms()

    def wait(self, seconds: float = math.inf) -> None:
        """Wait so long, or until the loss has risen. A cluster that is away, or does not let this process in,
        is waited for.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (reason := self._look()) is not None:
                self._say(f"drift: {reason}")
                return
            self._sleep(min(LOOK_S, left))

    def _look(self) -> str | None:
        """Read what was told since the last look; the last rise of the loss, if there was one."""
        risen = None
        try:
            if self._reader is None:
                self._reader = RankReader(self._settings, self._since_ms)
            for at_ms, told in self._reader.read_on():
                self._since_ms = at_ms + 1
                risen = self._detector.take(told) or risen
        except (KafkaError, OSError, EddyError) as error:  # a refused login, too, since it may be mended
            topic = self._settings.topics.metrics
            log.warning("the topic %s cannot be read at the moment (%r)", topic, error)
            if self._reader is not None:
                self._reader.close()
                self._reader = None
        return risen
