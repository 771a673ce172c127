"""Which records an installation takes from `events`, beyond what `eddy.stream.records.schema.Event` asks of
their form.

Guarantee: whether a record is taken is decided from the record alone, never from the moment of reading or
from what was read before. So workers, exports and everything else that reads `events` agree, today and at the
next restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from eddy.models.event_limits import EARLIEST_MS
from eddy.stream.records.partitioner import Partitioner, partition_of

MAX_AHEAD_MS = 3_600_000
"""Event times further ahead of their record's append time are refused: they would drag the stream clock with
them. `eddy.stream.kafka.topics` makes brokers stamp the append time, so no producer chooses it.
"""

_NO_MILLISECONDS = 10**14
"""The year 5138: a greater number counts micro- or nanoseconds."""


@dataclass(frozen=True)
class Admission:
    """The rule of one installation."""

    partitions: int = 1
    """of `events`"""
    partitioner: Partitioner = "murmur2"
    earliest: int = EARLIEST_MS
    """ms since 1970"""

    def misplaced(self, keys: Sequence[bytes], partition: int) -> dict[int, str]:
        """Which keys do not belong into the partition that their records lie in: reasons by index of the
        key.
        """
        if self.partitions == 1 and partition == 0:
            return {}
        home = partition_of(keys, self.partitions, self.partitioner)
        return {
            i: f"in the wrong partition: {partition}, but {self.partitioner} (EDDY_PARTITIONER) puts the key "
            f"into {home[i]} of {self.partitions}: use user_id as key and that partitioner"
            for i in np.flatnonzero(home != partition).tolist()
        }

    def mistimed(self, time: NDArray[np.int64], appended: NDArray[np.int64]) -> dict[int, str]:
        """Which event times [n] (ms) are impossible, given when their records were appended [n] (ms): reasons
        by index.
        """
        reasons = {
            i: f"timestamp {time[i]} is more than an hour ahead of the record's append time "
            f"({appended[i]} ms)"
            for i in np.flatnonzero(time - MAX_AHEAD_MS > appended).tolist()
        }
        for i in reasons:
            if time[i] > _NO_MILLISECONDS:
                reasons[i] += ": micro- or nanoseconds where milliseconds are meant?"
        return reasons | {
            i: f"timestamp {time[i]} is {date_of(int(time[i]))} in ms, before {date_of(self.earliest)}: "
            "seconds where milliseconds are meant? (EDDY_EARLIEST_EVENT says what is too early)"
            for i in np.flatnonzero(time < self.earliest).tolist()
        }


def date_of(ms: int) -> str:
    """The day of a time in ms since 1970, for messages to people."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
