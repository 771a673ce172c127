"""The project's own functions as the stages of the benchmark call them: when they change, only this file has
to follow.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from numpy.typing import NDArray

from eddy.models.registry import Version
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query, Window
from eddy.stream.engine.batch_report import Lists
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.rank_budget import RankBudget
from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.producers import send_all
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.columns import select_entries
from eddy.stream.records.decode import EventColumns, decode_events
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import keyed
from eddy.stream.state.sampling import group_of, in_sample
from eddy.stream.state.slab import Slots
from eddy.stream.worker.answers import encode_lists
from eddy.stream.worker.app import FETCH_RECORDS
from eddy.stream.worker.batch_loop import MAX_BATCH_EVENTS
from eddy.stream.worker.checkpoint import CheckpointData, encode_checkpoints, write_partition
from tests.support.engines import TOPIC_ID, new_engine

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"


def engine(version: Version, settings: Settings, emit: str, precision: Precision) -> Engine:
    """An engine as a worker builds it, with nothing in it; one torch thread count for all: the default."""
    options: dict[str, Any] = {"k": 10, "emit": emit, "sample": 0.0}
    options |= {"precision": precision, "threads": settings.threads, "device": settings.torch_device}
    return new_engine(version, wall=wall_ms(), **options)


async def read(settings: Settings, take: Any) -> float:
    """Call `take(partition, records)` for every fetched chunk of `events`, to its end; returns events/s
    from when the consumer stands ready.
    """
    consumer = AIOKafkaConsumer(
        **aiokafka_config(settings), enable_auto_commit=False, auto_offset_reset="earliest",
        isolation_level="read_committed", max_poll_records=FETCH_RECORDS,
    )  # fmt: skip
    await consumer.start()
    try:
        tps = [TopicPartition(settings.topics.events, number) for number in range(settings.partitions)]
        consumer.assign(tps)
        total = sum((await consumer.end_offsets(tps)).values())
        done, started = 0, time.perf_counter()
        while done < total:
            for tp, records in (await consumer.getmany(timeout_ms=1000)).items():
                take(tp.partition, records)
                done += len(records)
        return done / (time.perf_counter() - started)
    finally:
        await consumer.stop()


def decode(settings: Settings, records: Sequence[Record], partition: int) -> EventColumns:
    """Decode one chunk."""
    return decode_events(records, partition, settings.admission).events


def micro_batches(chunks: Sequence[EventColumns], partitions: int) -> list[list[EventColumns]]:
    """Micro-batches as a worker under backlog applies them: chunks of all partitions side by side, cut so
    that they have MAX_BATCH_EVENTS together.
    """
    share = MAX_BATCH_EVENTS // partitions
    columns: list[list[EventColumns]] = [[] for _ in range(partitions)]
    for chunk in chunks:
        columns[int(chunk.partition[0])] += [
            select_entries(chunk, slice(at, at + share)) for at in range(0, len(chunk), share)
        ]
    return [list(batch) for batch in zip(*columns, strict=False)]


def later(batches: Sequence[EventColumns], offsets: int, ms: int) -> list[EventColumns]:
    """The same events so many offsets and ms later, so that an engine takes them again."""
    return [
        dataclasses.replace(batch, offset=batch.offset + offsets, time=batch.time + ms) for batch in batches
    ]


def lists(engine: Engine, slots: Slots) -> Lists:
    """One micro-batch of answers: query, score and top-k for rows as they are."""
    slab, view = engine.newest.slab, engine.newest.ranker.latest(engine.newest.slab, slots)
    now, wall = engine.clock.now(engine.wall()), engine.wall()
    engine.update_statistics(engine.newest.ranker, now, wall)
    started = engine.newest.ranker.start_topk(view, now, engine.options.k, np.zeros(len(slots), np.bool_))
    topk, users = started(), [slab.user_of[slot] or "" for slot in slots.tolist()]
    where = slab.partition[slots], slab.offset[slots], view.last_time
    said = engine.names.json_ids(), engine.newest.live.epoch, engine.newest.live.version.id
    return Lists(users, *where, lambda: topk, *said)


def answer_messages(lists: Lists) -> dict[int, Any]:
    """Answers as messages, by partition of `recommendations`."""
    return encode_lists(lists, TOPIC_ID)


async def send(producer: AIOKafkaProducer, topic: str, by_partition: dict[int, Any]) -> list[Any]:
    """Queue messages; returns futures that end when they are confirmed."""
    futures: list[Any] = []
    for partition, messages in by_partition.items():
        futures += await send_all(producer, topic, partition, messages)
    return futures


def rows_of(engine: Engine, slots: Slots, partitions: int) -> Iterator[CheckpointData]:
    """The data that a checkpoint writes for these rows, for each partition."""
    home = engine.newest.slab.partition[slots]

    def capture(number: int) -> CheckpointData:
        of_partition = slots[home == number]
        stored = engine.newest.export(of_partition, engine.names.catalogue, TOPIC_ID)
        return CheckpointData(number, None, lambda: [*keyed(stored)], list)

    return map(capture, range(partitions))


async def write(
    producers: Sequence[AIOKafkaProducer], settings: Settings, captures: Sequence[CheckpointData]
) -> None:
    """One transaction per partition, side by side."""
    await asyncio.gather(
        *(
            write_partition(producer, settings.topics, capture, encoded)
            for producer, capture, encoded in zip(
                producers, captures, encode_checkpoints(captures), strict=True
            )
        )
    )


def some_rows(engine: Engine, n: int, seed: int) -> Slots:
    """n rows that exist, chosen evenly."""
    used = np.flatnonzero(engine.newest.slab.partition[: len(engine.newest.slab.user_of)] >= 0)
    return np.sort(np.random.default_rng(seed).choice(used, min(n, len(used)), replace=False))


def scorer(version: Version, settings: Settings, precision: Precision) -> Scorer:
    """A scorer over the version's own items."""
    scorer = engine(version, settings, "off", precision).newest.ranker.scorer
    scorer.update_statistics(0.0)
    return scorer


@torch.inference_mode()
def queries(version: Version, n: int) -> tuple[Query, Window]:
    """n random cell outputs as queries, with empty windows."""
    recommender = version.recommender
    output = torch.tanh(torch.randn(n, recommender.config.hidden))
    query = recommender.query_of_output(output, torch.zeros(n))
    width = recommender.config.recent_window
    nothing = torch.zeros(n, width, dtype=torch.int64)
    none_filled = torch.zeros(n, width, dtype=torch.bool)
    return query, Window(
        nothing - 1, nothing, nothing, none_filled, torch.zeros(n, dtype=torch.int64), nothing[:, :0]
    )


def best(scorer: Scorer, query: Query, window: Window, k: int) -> NDArray[np.int64]:
    """[n, k] indices, best first."""
    index, _ = scorer.topk(query, window, k)
    return np.asarray(index.numpy(), np.int64)


def engine_with(engine: Engine, emit: str) -> Engine:
    """The same engine, set to another emission."""
    engine.options = dataclasses.replace(engine.options, emit=emit)  # type: ignore[arg-type]
    return engine


def sample(engine: Engine, share: float, ranking_time: float | None) -> None:
    """From now on, rank the events of this share of the present users before they are applied, in at most the
    share `ranking_time` of the time.
    """
    used = len(engine.newest.slab.user_of)
    users = [(user or "").encode() for user in engine.newest.slab.user_of]
    engine.newest.slab.sampled[:used] = in_sample(users, share)
    engine.newest.slab.group[:used] = group_of(users)
    engine.options = dataclasses.replace(engine.options, sample=share, ranking_time=ranking_time)
    engine.rank_budget = RankBudget(ranking_time)
