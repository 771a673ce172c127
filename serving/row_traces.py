"""Which trace led to a row: so that a list which waited for an event can be linked to what applied it."""

from collections.abc import Mapping
from operator import attrgetter

from eddy.stream.kafka.reader import Records
from eddy.stream.records.trace_context import TraceContext, trace_of_record

MOST = 10_000
"""Users of whom a trace is kept: those whose rows have changed last."""

_headers = attrgetter("headers")


class RowTraces:
    """The last trace of each user's row, as records of `user-state` name it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._traces: dict[bytes, TraceContext] = {}
        """by user, the last one last"""

    def take(self, records: Records, newest: Mapping[bytes, bytes | None]) -> None:
        """Take records of a partition in log order; `newest`: the value of each user's last one."""
        # 1. Whoever is erased here leaves nothing behind.
        for user in self._traces.keys() & newest.keys():
            if newest[user] is None:
                del self._traces[user]
        # 2. Few records have headers, and only those are looked at.
        for record in filter(_headers, records):
            trace = trace_of_record(record.headers)
            if trace is not None and newest.get(record.key) is not None:
                self._traces.pop(record.key, None)
                self._traces[record.key] = trace
        while len(self._traces) > self._most:
            del self._traces[next(iter(self._traces))]

    def of(self, user: str) -> TraceContext | None:
        """The span that last changed the user's row, as far as it is known here."""
        return self._traces.get(user.encode())
