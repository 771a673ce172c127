"""Chunks through Faust: what Faust would do by itself is left undone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.transport import BatchConsumer


def test_a_full_buffer_leaves_no_partition_out() -> None:
    tp = TP("events", 0)
    consumer: Any = BatchConsumer.__new__(BatchConsumer)
    consumer.app = SimpleNamespace(in_recovery=False)
    consumer._active_partitions, consumer._buffered_partitions = {tp}, set()
    consumer.on_buffer_full(tp)
    assert consumer._active_partitions == {tp}
    driver.Consumer.on_buffer_full(consumer, tp)
    assert consumer._active_partitions == set(), "Faust goes about it in another way: look into it again"
