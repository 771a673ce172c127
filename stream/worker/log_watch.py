"""Compares what a worker has read and committed with what is in the log."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from eddy.stream.kafka.reader import Follower
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import sweep_snapshots
from eddy.stream.worker.batch_loop import BatchLoop
from eddy.stream.worker.consumer import EventsConsumer
from eddy.stream.worker.liveness import StallWatch, Standing
from eddy.stream.worker.partition_set import PartitionSet
from eddy.stream.worker.restore import MAX_SNAPSHOT_AGE_MS
from eddy.stream.worker.transport import Reading

log = logging.getLogger("eddy.worker")

LOOK_S = 5.0
"""Between two looks at the log."""


class LogWatch:
    """Ends the worker when its commits stand still although the cluster answers and has more. Tells of
    records that were gone before they were read, and goes back for those that were lost on their way.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: PartitionSet,
        consumer: EventsConsumer,
        follower: Follower,
        batches: BatchLoop,
    ) -> None:
        """`follower`: of any topic; its consumer is asked where the log begins and ends."""
        self._settings, self._partitions, self._consumer = settings, partitions, consumer
        self._follower, self._batches = follower, batches

    async def run(self) -> None:
        """Look until cancelled. Errors: EddyError when commits have stood still for too long."""
        watch = StallWatch(self._settings.stall_s)
        unreceived: dict[int, Reading] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            sweep_snapshots(self._settings.cache_dir, self._settings.group, MAX_SNAPSHOT_AGE_MS)
            spans = await self._spans()
            if not self._partitions.settled:
                spans = {}
            standings = {
                number: Standing(task.committed, self._consumer.reading(number), *spans[number])
                for number, task in self._partitions.tasks.items()
                if number in spans
            }
            self._partitions.metrics.stalled.set(watch.stalled_seconds(standings))
            for number, standing in standings.items():
                self._note_gone(number, standing.start)
            before, unreceived = unreceived, self._unreceived(standings)
            for number, reading in unreceived.items():
                if before.get(number) == reading:  # at two looks: not just on its way
                    self._batches.read_again(number, reading.seeks)

    async def _spans(self) -> dict[int, tuple[int, int]]:
        """First and end offset of the owned partitions in the log; none when the cluster does not answer."""
        events = [TopicPartition(self._settings.topics.events, number) for number in self._partitions.tasks]
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                spans = await self._follower.spans(events)
                return {tp.partition: span for tp, span in spans.items()}
        return {}

    def _note_gone(self, number: int, start: int) -> None:
        gone = self._consumer.take_gone(number, start)
        if gone:
            log.warning(
                "%s partition %d: %d offsets before %d were gone (retention) before they were read",
                self._settings.topics.events, number, gone, start,
            )  # fmt: skip
            self._partitions.metrics.gone.inc(gone)
            # Committed next, so that no later owner tells of them again.
            self._partitions.tasks[number].applied_up_to(start)

    def _unreceived(self, standings: Mapping[int, Standing]) -> dict[int, Reading]:
        """Partitions whose last chunk was handed out but has not come, though nothing is on its way."""
        readings = {number: standing.reading for number, standing in standings.items()}
        return {
            number: reading
            for number, reading in readings.items()
            if reading is not None
            and not self._batches.inbox.events
            and (reading.handed or 0) > (self._partitions.tasks[number].received or 0)
        }
