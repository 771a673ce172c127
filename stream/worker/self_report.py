"""Tells on `metrics` how a worker is doing, so that any process can show all workers."""

import asyncio
import logging
import os
import secrets
import socket

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge
from prometheus_client.samples import Sample

from eddy.stream.kafka.producers import send_all
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.settings import Settings
from eddy.stream.records.worker_reports import WorkerReport, encode_report
from eddy.stream.worker.partition_set import PartitionSet

log = logging.getLogger("eddy.worker")

INTERVAL_S = 1.0
"""The time between two reports."""

MAX_HOST = 200
"""Characters of the host's name in a worker's name."""


class SelfReport:
    """Writes the worker's report, one record at a time, under a key of its own. It is made of the worker's
    metrics, on the event loop, so that the engine never waits for it.

    What the cluster does not take is not kept: the next report says more. A worker that ends leaves a
    tombstone. One that is killed leaves its last report, which readers know by its age.
    """

    def __init__(self, settings: Settings, partitions: PartitionSet, producer: AIOKafkaProducer) -> None:
        self._partitions, self._producer = partitions, producer
        self._topic = settings.topics.metrics
        self._instance = secrets.token_hex(16)
        self.worker = settings.worker_id or (
            f"{socket.gethostname()[:MAX_HOST]}-{os.getpid()}-{self._instance[:4]}"
        )
        """its name, which a restart keeps only where the settings give it"""
        self._told = False

    async def run(self) -> None:
        """Write a report every interval until cancelled."""
        while True:
            await self._write(self.report())
            await asyncio.sleep(INTERVAL_S)

    async def end(self, within_s: float) -> None:
        """Say that the worker has ended, if that takes no longer than `within_s`."""
        if not self._told:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._write(None)
        except TimeoutError:
            log.warning("%s does not say that this worker has ended: no answer", self._topic)

    async def _write(self, report: WorkerReport | None) -> None:
        self._told = True
        try:
            message = encode_report(self.worker, report)
            await asyncio.gather(*await send_all(self._producer, self._topic, 0, [message]))
        except KafkaError as error:
            log.warning("the worker's report is not written to %s (%r); trying again", self._topic, error)

    def report(self) -> WorkerReport:
        """The worker now."""
        partitions, metrics = self._partitions, self._partitions.metrics
        rows, stale = round(_value(metrics.rows)), round(_value(metrics.stale_rows))
        swapping = partitions.settled and partitions.engine.rows.may_be_stale and stale > 0
        owned = sorted(partitions.assigned | set(partitions.tasks))
        progress = None
        if swapping:
            progress = max(0.0, 1 - stale / max(rows, stale))
        elif not partitions.settled and owned:
            restored = {
                int(sample.labels["partition"]): sample.value for sample in _samples(metrics.restore_progress)
            }
            shares = [1.0 if number in partitions.tasks else restored.get(number, 0.0) for number in owned]
            progress = min(sum(shares) / len(shares), 1.0)
        return WorkerReport(
            instance=self._instance,
            told_at=wall_ms(),
            state="swapping" if swapping else "running" if partitions.settled else "restoring",
            progress=progress,
            partitions=owned,
            applied=round(_value(metrics.applied)),
            dead=round(_value(metrics.dead)),
            lag=round(sum(max(sample.value, 0.0) for sample in _samples(metrics.lag))),
            rows=rows,
            rows_of_older_epochs=stale,
            epoch=round(_value(metrics.epoch)),
            freshness=metrics.freshness.counts.tolist(),
        )


def _samples(metric: Counter | Gauge) -> list[Sample]:
    (family,) = metric.collect()
    return list(family.samples)


def _value(metric: Counter | Gauge) -> float:
    """The value of a metric without labels."""
    return float(_samples(metric)[0].value)
