"""Tells on `metrics` what a worker's ranks add up to, so that any process can add up those of all workers."""

import asyncio
import logging
import secrets

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eddy.stream.engine.prequential import Prequential
from eddy.stream.kafka.producers import send_all
from eddy.stream.records.messages import Message
from eddy.stream.records.rank_counts import encode_ranks
from eddy.stream.records.schema import MAX_RANKED

log = logging.getLogger("eddy.worker")

INTERVAL_S = 10.0
"""The time between two records; none is written when no rank was finished meanwhile."""


class RankPublisher:
    """Writes the ranks that were finished since its last record, one record at a time.

    Guarantee: no rank is counted twice. A record that the cluster did not confirm is sent again as it is,
    under the same key, before there is another; meanwhile ranks add up in memory, to a few numbers per
    version, and the stream waits for nothing.

    What a crash costs: a worker that is killed takes with it the ranks of the interval that it has not told
    of, and of a record that the cluster never got. Events that it had ranked and told of since its last
    checkpoint are applied again by the next owner, and so ranked once more, by the same rule and from the
    same rows.
    """

    def __init__(self, prequential: Prequential, producer: AIOKafkaProducer, topic: str) -> None:
        self._prequential, self._producer, self._topic = prequential, producer, topic
        self._instance = secrets.token_hex(16)
        self._interval = 0
        self._unconfirmed: Message | None = None

    async def run(self) -> None:
        """Write a record every interval until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.publish()

    async def publish(self) -> None:
        """Write what is to be told now, if anything is. What the cluster refuses is sent again next time."""
        if self._unconfirmed is None:
            sums = self._prequential.take(MAX_RANKED)
            if not sums:
                return
            self._interval += 1
            self._unconfirmed = encode_ranks(self._instance, self._interval, sums)
        try:
            await asyncio.gather(*await send_all(self._producer, self._topic, 0, [self._unconfirmed]))
        except KafkaError as error:
            log.warning("counts of ranks are not written to %s (%r); trying again", self._topic, error)
            return
        self._unconfirmed = None

    async def publish_last(self, within_s: float) -> None:
        """Write what is left as the worker ends, if that takes no longer than `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self.publish()
        except TimeoutError:
            log.warning("the last counts of ranks are not written to %s: no answer", self._topic)
