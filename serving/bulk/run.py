"""A run over many users: follow the topics to their ends as a server does, then make list after list."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash
from eddy.serving.bulk.columns import begin_lists
from eddy.serving.bulk.job import Target, ToFile, ToTopic, deal
from eddy.serving.lists.questions import Question
from eddy.serving.service import Service
from eddy.serving.view import MaterialisedView
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.starting import started
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings

AT_ONCE = 4_096
"""Users whose lists are made in one call: enough for tiles on every thread, few enough to follow the topics
in between.
"""

_LOOK_EVERY_S = 0.2

Show = Callable[[str, int, int], None]


async def make_lists(
    settings: Settings,
    users: Sequence[str] | None,
    wanted: Question,
    out: Path | None,
    topic: str | None,
    show: Show = lambda *_: None,
) -> int:
    """Write a list for each user (None: for all that have a row) to the file `out` or to a topic; returns how
    many lists are there. The same call goes on after a kill.

    wanted: the question, without its user.

    `show` is called with what is being done, how much of it is done, and how much there is.
    Errors: EddyError when the cluster or a topic is missing, when no version can score, or when nothing can
    be written.
    """
    asked = _asked(settings, users, wanted)
    async with AsyncExitStack() as stack:
        # 1. Where the lists go.
        await asyncio.to_thread(prepare_topics, settings, "recommend", topic)
        target: Target
        if out is not None:
            target = ToFile(out, asked)
        else:
            assert topic is not None
            producer = await started(lambda: new_producer(settings))
            stack.push_async_callback(producer.stop)
            partitions = await _partitions_of(producer, topic)
            folder = settings.cache_dir / "recommend" / f"{item_hash(settings.topic_prefix + topic):016x}"
            target = ToTopic(producer, topic, partitions, folder, asked)
        # 2. What is known of the users.
        service = Service(settings, threads=settings.threads)
        await service.start()
        stack.push_async_callback(service.stop)
        await _ready(service, show)
        known = await service.on_thread(partial(_users_with_rows, service.view))
        users = known if users is None else users
        # 3. Bucket by bucket, each written beside the next one's scoring.
        stack.enter_context(target.held())
        of_bucket = await asyncio.to_thread(_left_to_do, target, users, known)
        parts = [part for some in of_bucket.values() for part in _parts(some)]
        made, tables = len(users) - sum(map(len, parts)), _tables(service, parts, wanted)
        writing = asyncio.create_task(asyncio.sleep(0))
        for number, some in of_bucket.items():
            of_parts = []
            for part in _parts(some):
                of_parts.append(await anext(tables))
                made += len(part)
                show("making lists", made, len(users))
            await writing
            writing = asyncio.create_task(target.put(number, pa.concat_tables(of_parts)))
        await writing
        await asyncio.to_thread(target.finish)
        return len(users)


def _asked(settings: Settings, users: Sequence[str] | None, wanted: Question) -> dict[str, Any]:
    """What a killed run is known by. It is the same in every process: sets of values are in order."""
    return {
        "users": None if users is None else _digest(users),
        "question": msgspec.to_builtins(wanted, order="deterministic"),
        "of": [settings.bootstrap_servers, settings.topics.user_state],
    }


def _left_to_do(target: Target, users: Sequence[str], known: Sequence[str]) -> dict[int, list[str]]:
    """The users of each bucket that a killed run has not left whole; `known`: those with rows."""
    buckets, done = target.begin(len(users))
    with_rows = set(known) if done else set()
    return {
        number: some
        for number, some in enumerate(deal(users, buckets))
        if number not in done or not target.is_of(number, some, with_rows)
    }


def _parts(users: Sequence[str]) -> list[Sequence[str]]:
    """The users of a bucket, AT_ONCE in a part; one empty part where there are none."""
    return [users[first : first + AT_ONCE] for first in range(0, max(len(users), 1), AT_ONCE)]


async def _tables(
    service: Service, parts: Sequence[Sequence[str]], wanted: Question
) -> AsyncIterator[pa.Table]:
    """The lists of each part, each made into a table beside the scoring of the next one."""
    begun = list[Callable[[], pa.Table]]()
    for part in parts:
        begun.append(await service.on_thread(partial(begin_lists, service.view, part, wanted)))
        if len(begun) > 1:
            yield await asyncio.to_thread(begun.pop(0))
    for table in begun:
        yield await asyncio.to_thread(table)


def _digest(users: Sequence[str]) -> str:
    return f"{item_hash(json.dumps(users)):016x}"


def _users_with_rows(view: MaterialisedView) -> list[str]:
    return [user for slab in view.slabs.values() for user in slab.slot_of]


async def _ready(service: Service, show: Show) -> None:
    """Wait until the topics are read to their ends and a version can score. Errors: what ended the service,
    and EddyError when no version is announced, or none of them can be used.
    """
    while reasons := service.not_ready():
        if service.failed.done():
            service.failed.result()
        if why := service.stuck():
            raise EddyError(why)
        show(reasons[-1], 0, 1)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _partitions_of(producer: AIOKafkaProducer, topic: str) -> int:
    try:
        partitions = await producer.partitions_for(topic)
    except KafkaError:
        partitions = set()
    if not partitions:
        raise EddyError(f"topic {topic}: not there; create it, with the partitions that its readers need")
    return len(partitions)
