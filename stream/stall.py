"""Liveness that means something: progress of the committed offsets, not just a process that breathes.

Kafka consumers have been seen to go quiet for ever after a broker's outage while everything looks alive. A
worker whose committed offsets stand still although the log has more, and the cluster answers, ends itself
for its supervisor.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from kafka.errors import KafkaError as ClientError

from models.errors import EddyError
from stream.clients import admin_client
from stream.settings import Settings
from stream.topics import committed_offsets

LOOK_S = 5.0

MARKERS = 8
"""Offsets at a log's end that may be markers of other programs' transactions: nothing to read or commit."""


class StallWatch:
    """Feed it what was committed and where the log ends; it says how long nothing moved. Times in seconds."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._committed: dict[int, int] = {}
        self._since: float | None = None

    def observe(
        self, committed: Mapping[int, int | None], ends: Mapping[int, int], now: float | None = None
    ) -> float:
        """Seconds without progress although there is something to read; 0 while there is none.

        `ends`: log ends by owned partition, empty when the cluster did not answer (which is not a stall of
        ours). Errors: EddyError beyond the limit.
        """
        now = time.monotonic() if now is None else now
        known = {number: at for number, at in committed.items() if at is not None}
        behind = {number: end - known.get(number, 0) for number, end in ends.items()}
        behind = {number: records for number, records in behind.items() if records > MARKERS}
        if known != self._committed or not behind:
            self._committed, self._since = known, None
            return 0.0
        if self._since is None:
            self._since = now
        stalled = now - self._since
        if stalled > self.limit_s:
            raise EddyError(
                f"committed offsets have not moved for {stalled:.0f} s although partitions "
                f"{sorted(behind)} have {sum(behind.values())} records more; ending, to be restarted by a "
                "supervisor"
            )
        return stalled


async def progress(
    settings: Settings,
    committed: Callable[[], Mapping[int, int | None]],
    ends: Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]],
) -> AsyncIterator[float]:
    """Look every LOOK_S at what this worker committed, None where it has not yet, and at the log's ends;
    gives `StallWatch.observe` each time, and ends as that does.
    """
    watch = StallWatch(settings.stall_s)
    while True:
        await asyncio.sleep(LOOK_S)
        own = dict(committed())
        found: dict[int, int] = {}
        with contextlib.suppress(KafkaError, TimeoutError, EddyError):
            async with asyncio.timeout(LOOK_S):
                if None in own.values():  # nothing new since it was restored: ask the group
                    known = await asyncio.to_thread(_committed_by_group, settings)
                    own = {number: known.get(number) if at is None else at for number, at in own.items()}
                at_end = await ends([TopicPartition(settings.topics.events, number) for number in own])
                found = {tp.partition: end for tp, end in at_end.items()}
        yield watch.observe(own, found)


def _committed_by_group(settings: Settings) -> dict[int, int]:
    with admin_client(settings) as admin, contextlib.suppress(ClientError):
        return committed_offsets(admin, settings.group, settings.topics.events)
    return {}
