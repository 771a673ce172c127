"""Peer: the same job as a hand-written loop: confluent-kafka, batched torch, state in memory only.

    python handwritten.py BOOTSTRAP EVENTS_TOPIC RESULTS_TOPIC FOLDER

What a competent engineer writes for throughput alone: `consume` takes a batch, one decoder call per value,
waves of distinct users (the k-th events of all users are one GRU step on a slab of states), scores in tiles
by one product and `torch.topk`, messages encoded by msgspec and handed to librdkafka, which batches them in
its own thread. No durability: a restart begins with empty states. Batch and tile sizes are the best of those
tried (256 to 4,096 and 64 to 1,024). Frozen: it may only be made faster.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: librdkafka's threads want the cores, too

import msgspec
import numpy as np
import torch
from confluent_kafka import Consumer, Producer

HIDDEN, ITEMS, K, THREADS = 128, 10_000, 10, 2
BATCH, TILE = 2_048, 256


class Event(msgspec.Struct, gc=False):
    user_id: str
    item_id: str
    timestamp: int


class Ranked(msgspec.Struct, gc=False):
    item_id: str
    score: float


class Answer(msgspec.Struct, gc=False):
    user_id: str
    items: list[Ranked]
    timestamp: int


class Model:
    """States of all users in one growing tensor; `step` moves them and `best` ranks."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.cell = torch.nn.GRUCell(HIDDEN, HIDDEN)
        self.items = torch.randn(ITEMS, HIDDEN) * 0.3
        self.columns = self.items.T.contiguous()
        self.names = [f"item-{i}" for i in range(ITEMS)]
        self.index_of = {name: i for i, name in enumerate(self.names)}
        self.slot_of: dict[str, int] = {}
        self.states = torch.zeros(1 << 15, HIDDEN)

    def step(self, events: Sequence[Event]) -> torch.Tensor:
        """Each user's state after each event: [n, H]."""
        slots = self.slot_of
        slot = np.array([slots.setdefault(event.user_id, len(slots)) for event in events])
        item = np.array([self.index_of[event.item_id] for event in events])
        if len(slots) > len(self.states):
            self.states = torch.cat((self.states, torch.zeros_like(self.states)))
        order = np.argsort(slot, kind="stable")
        ordered = slot[order]
        first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
        start = np.flatnonzero(first)
        rank = np.arange(len(order)) - np.repeat(start, np.diff(np.append(start, len(order))))
        by_rank = np.argsort(rank, kind="stable")
        inputs = self.items[torch.from_numpy(item)]
        after = torch.empty(len(events), HIDDEN)
        for wave in np.split(order[by_rank], np.cumsum(np.bincount(rank))[:-1]):
            at, users = torch.from_numpy(wave), torch.from_numpy(slot[wave])
            state = self.cell(inputs[at], self.states[users])
            self.states[users] = state
            after[at] = state
        return after

    def best(self, states: torch.Tensor) -> tuple[list[list[int]], list[list[float]]]:
        """The ten best items of each state and their scores."""
        index, score = [], []
        for tile in torch.split(states, TILE):
            values, found = torch.topk(tile @ self.columns, K)
            index += found.tolist()
            score += np.round(values.numpy().astype(np.float64), 4).tolist()
        return index, score


@torch.inference_mode()
def run(consumer: Any, producer: Any, topic: str) -> None:
    model, names = Model(), [f"item-{i}" for i in range(ITEMS)]
    decode, encode = msgspec.json.Decoder(Event).decode, msgspec.json.Encoder().encode
    while True:
        messages = consumer.consume(BATCH, 0.05)
        events = [decode(message.value()) for message in messages if message.error() is None]
        if not events:
            continue
        index, score = model.best(model.step(events))
        for event, items, scores in zip(events, index, score, strict=True):
            ranked = [Ranked(names[i], s) for i, s in zip(items, scores, strict=True)]
            value = encode(Answer(event.user_id, ranked, event.timestamp))
            while True:
                try:
                    producer.produce(topic, value, event.user_id)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    bootstrap, events_topic, results_topic, _ = sys.argv[1:5]
    torch.set_num_threads(THREADS)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{results_topic}",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "queued.max.messages.kbytes": 65_536,
        }
    )
    consumer.subscribe([events_topic])
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 500_000,
        }
    )
    try:
        run(consumer, producer, results_topic)
    finally:
        producer.flush(10)
        consumer.close()


if __name__ == "__main__":
    main()
