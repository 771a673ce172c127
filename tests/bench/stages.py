"""Stage ceilings: what each part of the path reaches alone, in one process, events per second.

    python -m tests.bench.stages BOOTSTRAP PREFIX REGISTRY PARTITIONS ROUNDS LIMIT_S CELL WHOLE PRECISION...

Needs an installation with a backlog. Stages: fetch (bytes only); fetch and decode into columns; cell step
(rows moved by `Engine.apply`: look-up, waves, step, windows; emission off); score and top-k (query, product,
mixture, exact top ten; a micro-batch of rows at a time); encode and produce (answers, confirmed); changelog
(rows encoded and written, one transaction per partition, rows per second). Rounds are interleaved, and none
is begun after LIMIT_S; prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy.models.registry import Version, load
from eddy.models.scoring.approximate_products import Precision
from eddy.stream.kafka.producers import new_producer
from eddy.stream.records.decode import EventColumns
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.worker.batch_loop import MAX_BATCH_EVENTS
from tests.bench import parts
from tests.bench.workload import STEP_MS

WARM_EVENTS, TIMED_EVENTS = 80_000, 40_000
SCORED_BATCHES = 6
CHANGELOG_ROWS, CHECKPOINTS = 3_000, 8
BARE_BATCH, BARE_STEPS = 2_048, 40


class Stages:
    """All stages on one backlog; each is called once per round."""

    def __init__(
        self, settings: Settings, versions: dict[str, Version], precisions: Sequence[Precision]
    ) -> None:
        self.settings, self.versions, self.precisions = settings, versions, precisions
        self.rates: dict[str, list[float]] = {}
        self._batches: list[list[EventColumns]] = []
        self._turn = 0

    async def prepare(self) -> None:
        """Decode the backlog once and fill engines with it."""
        chunks: list[EventColumns] = []
        await parts.read(
            self.settings, lambda number, records: chunks.append(parts.decode(self.settings, records, number))
        )
        self._batches = parts.micro_batches(chunks, self.settings.partitions)
        self.engines = {
            (score, precision): parts.engine(version, self.settings, "off", precision)
            for score, version in self.versions.items()
            for precision in self.precisions
        }
        for engine in self.engines.values():
            for batch in self._batches[: WARM_EVENTS // MAX_BATCH_EVENTS]:
                engine.apply(batch)

    async def round(self) -> None:
        """Every stage once."""
        self._turn += 1
        await self._note("fetch", self._fetch)
        await self._note("fetch_decode", self._fetch_decode)
        await self._note("cell_bare", self._bare)
        for score in self.versions:
            await self._note(f"cell_{score}", lambda score=score: self._cell(score))  # type: ignore[misc]
            for precision in self.precisions:
                await self._note(
                    f"score_{score}_{precision}",
                    lambda score=score, precision=precision: self._score(score, precision),  # type: ignore[misc]
                )
        await self._note("encode_produce", self._produce)
        await self._note("changelog_rows", self._changelog)

    async def _note(self, name: str, stage: Callable[[], Awaitable[float]]) -> None:
        self.rates.setdefault(name, []).append(await stage())

    async def _fetch(self) -> float:
        return await parts.read(self.settings, lambda number, records: None)

    async def _fetch_decode(self) -> float:
        return await parts.read(
            self.settings, lambda number, records: parts.decode(self.settings, records, number)
        )

    async def _bare(self) -> float:
        """`torch.nn.GRUCell` on a batch of 2,048 and nothing else."""
        cell = torch.nn.GRUCell(128, 128)
        inputs, state = torch.randn(BARE_BATCH, 128), torch.zeros(BARE_BATCH, 128)
        with torch.inference_mode():
            cell(inputs, state)
            started = time.perf_counter()
            for _ in range(BARE_STEPS):
                state = cell(inputs, state)
        return BARE_BATCH * BARE_STEPS / (time.perf_counter() - started)

    async def _cell(self, score: str) -> float:
        engine = self.engines[score, "float32"]
        last = int(max(batch.offset[-1] for batch in self._batches[-1])) + 1
        ms = sum(map(len, (part for batch in self._batches for part in batch))) * STEP_MS
        batches = [
            parts.later(batch, last * self._turn, ms * self._turn)
            for batch in self._batches[: TIMED_EVENTS // MAX_BATCH_EVENTS]
        ]
        started = time.perf_counter()
        applied = sum(engine.apply(batch).applied for batch in batches)
        seconds = time.perf_counter() - started
        assert applied == sum(len(part) for batch in batches for part in batch), "events were not applied"
        return applied / seconds

    async def _score(self, score: str, precision: Precision) -> float:
        engine = self.engines[score, precision]
        slots_by_batch = [parts.some_rows(engine, MAX_BATCH_EVENTS, seed) for seed in range(SCORED_BATCHES)]
        started = time.perf_counter()
        for slots in slots_by_batch:
            parts.lists(engine, slots)
        return sum(map(len, slots_by_batch)) / (time.perf_counter() - started)

    async def _produce(self) -> float:
        engine = self.engines["cell", "float32"]
        slots = parts.some_rows(engine, MAX_BATCH_EVENTS, 0)
        made = parts.lists(engine, slots)
        producer, futures = new_producer(self.settings), []
        await producer.start()
        try:
            started = time.perf_counter()
            for _ in range(SCORED_BATCHES):
                messages = parts.answer_messages(made)
                futures += await parts.send(producer, self.settings.topics.recommendations, messages)
            await asyncio.gather(*futures)
            return SCORED_BATCHES * len(slots) / (time.perf_counter() - started)
        finally:
            await producer.stop()

    async def _changelog(self) -> float:
        engine, settings = self.engines["cell", "float32"], self.settings
        producers = [new_producer(settings, f"stage-{number}") for number in range(settings.partitions)]
        await asyncio.gather(*(producer.start() for producer in producers))
        try:
            started = time.perf_counter()
            for turn in range(CHECKPOINTS):
                slots = parts.some_rows(engine, CHANGELOG_ROWS, turn)
                await parts.write(
                    producers, settings, list(parts.rows_of(engine, slots, settings.partitions))
                )
            return CHECKPOINTS * CHANGELOG_ROWS / (time.perf_counter() - started)
        finally:
            await asyncio.gather(*(producer.stop() for producer in producers))


def allowed(stages: dict[str, float], score: str, precision: str, rows_per_event: float, cell: str) -> float:
    """Events/s if the stages of a durable answer to every event were done one after another at their
    ceilings.
    """
    seconds = (
        1 / stages["fetch_decode"]
        + 1 / stages[cell]
        + 1 / stages[f"score_{score}_{precision}"]
        + 1 / stages["encode_produce"]
        + rows_per_event / stages["changelog_rows"]
    )
    return 1 / seconds


def rows_per_event(user: Any, events: float) -> float:
    """Rows that a checkpoint writes per event when it comes every `events` events: users repeat."""
    size = max(int(events), 1)
    starts = range(0, max(len(user) - size, 1), max(size, len(user) // 20))
    return float(np.mean([len(np.unique(user[at : at + size])) / len(user[at : at + size]) for at in starts]))


async def _main(stages: Stages, rounds: int, limit_s: float) -> dict[str, list[float]]:
    started = time.monotonic()
    await stages.prepare()
    for number in range(rounds):
        if number and time.monotonic() - started > limit_s:
            break
        await stages.round()
    return stages.rates


if __name__ == "__main__":
    bootstrap, prefix, registry, partitions, rounds, limit_s, cell, whole = sys.argv[1:9]
    precisions: Any = sys.argv[9:]
    own = load_settings(bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=int(partitions))
    loaded = {"cell": load(Path(registry) / cell), "whole": load(Path(registry) / whole)}
    print(json.dumps(asyncio.run(_main(Stages(own, loaded, precisions), int(rounds), float(limit_s)))))
