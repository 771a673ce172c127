"""Engines with rows of two versions, and what is to be known of them."""

from __future__ import annotations

from typing import Any, cast

from aiokafka import AIOKafkaProducer

from eddy.models.registry import Version
from eddy.stream.engine.engine import Engine
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import decode_rows
from eddy.stream.worker.partition_task import PartitionTask
from tests.support.engines import (
    TOPIC_ID,
    Happening,
    batch,
    item_id,
    new_engine,
    switch,
)

START = 1_380_000_000_000


def sent(n: int, users: int = 3, start: int = 0) -> list[Happening]:
    """n happenings by u-0 … in turn, of which the first is the one at offset `start`."""
    return [
        Happening(f"u-{i % users}", item_id(i * 7 % 50), START + i * 1000) for i in range(start, start + n)
    ]


def apply(engine: Engine, happenings: list[Happening], start: int) -> None:
    engine.apply([batch(happenings, range(start, start + len(happenings)))])


def two_versions(first: Version, second: Version, **options: Any) -> Engine:
    """An engine with u-0 … u-2 encoded by the first version, and the second one live, as epochs 1 and 2."""
    engine = new_engine(first, **options)
    apply(engine, sent(30), 0)
    switch(engine, second, 2)
    return engine


def epochs(engine: Engine) -> dict[str, int]:
    """The epoch of each user's row; a user has only one."""
    found: dict[str, int] = {}
    for version in engine.rows.versions:
        for user, slot in version.slab.slot_of.items():
            assert user not in found
            found[user] = int(version.slab.epoch[slot])
    return found


def owned() -> PartitionTask:
    return PartitionTask(0, cast(AIOKafkaProducer, None), Journal(0, -1, -1), 1, changelog_end=0)


def written(task: PartitionTask, engine: Engine) -> dict[str, int]:
    """The epoch of each row that the task's next checkpoint writes; none is written twice."""
    messages = task.capture(engine, TOPIC_ID).rows()
    values = {user: value for user, value in messages if user is not None and value is not None}
    assert len(values) == len(messages)
    rows = decode_rows(list(values), list(values.values()))
    names = [user.decode() for part in rows for user in part.user]
    return dict(zip(names, [epoch for part in rows for epoch in part.epoch.tolist()], strict=True))
