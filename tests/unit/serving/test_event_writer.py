"""Records on their way to `events`: in order, acknowledged or given up in time, and never too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.errors import IllegalOperation

from eddy.serving import event_writer
from eddy.serving.event_writer import RECORD_OVERHEAD, EventWriter, Position, Unwritten
from eddy.serving.request_context import CURRENT, RequestContext
from eddy.stream.kafka import producers
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.records.trace_context import trace_of_record
from tests.support.memory_clients import MemoryBatch, MemoryProducer
from tests.support.memory_kafka import MemoryKafka
from tests.support.spans import SAMPLED

SETTINGS = Settings(bootstrap_servers="server", partitions=4)
TOPIC = SETTINGS.topics.events
SHORT_S = 0.05


@pytest.fixture
def kafka() -> MemoryKafka:
    return MemoryKafka()


@asynccontextmanager
async def writing(
    kafka: MemoryKafka, within_s: float = 30.0, max_bytes: int = 1 << 20, settings: Settings = SETTINGS
) -> AsyncIterator[EventWriter]:
    with patch.object(producers, "AIOKafkaProducer", partial(MemoryProducer, kafka)):
        writer = EventWriter(settings, within_s, max_bytes)
        writer.start()
        try:
            yield writer
        finally:
            kafka.release_all()
            await writer.stop()


def messages(*users: str) -> list[Message]:
    """A record of each of these users, numbered."""
    return [(user.encode(), b"%d" % number) for number, user in enumerate(users)]


def written(kafka: MemoryKafka) -> dict[tuple[int, int], Message]:
    """(key, value) of the records on `events`, by position."""
    return {(r.partition, r.offset): (r.key, r.value) for r in kafka.records(TOPIC)}


async def given_up(writing: asyncio.Task[list[Position | Unwritten]]) -> Sequence[Unwritten]:
    results = await writing
    assert all(isinstance(result, Unwritten) for result in results)
    return [result for result in results if isinstance(result, Unwritten)]


def test_every_record_is_where_its_position_says_and_in_its_user_s_partition(kafka: MemoryKafka) -> None:
    sent = messages(*(f"user-{number % 7}" for number in range(100)))

    async def run() -> list[Position | Unwritten]:
        async with writing(kafka) as writer:
            return [*await writer.write(sent[:60]), *await writer.write(sent[60:])]

    positions = asyncio.run(run())
    log = written(kafka)
    assert [log[at] for at in positions if isinstance(at, Position)] == sent
    home = partition_of([key or b"" for key, _ in sent], 4).tolist()
    assert [at.partition for at in positions if isinstance(at, Position)] == home
    of_a_user = [int(value or b"") for key, value in log.values() if key == b"user-3"]
    assert of_a_user == sorted(of_a_user), "a user's records are in order"


def test_a_tombstone_is_written_as_such(kafka: MemoryKafka) -> None:
    async def run() -> None:
        async with writing(kafka) as writer:
            await writer.write([(b"anna", None)])

    asyncio.run(run())
    assert list(written(kafka).values()) == [(b"anna", None)]


def test_records_carry_on_the_trace_of_the_request_that_writes_them(kafka: MemoryKafka) -> None:
    async def run() -> None:
        async with writing(kafka) as writer:
            await writer.write(messages("anna"))
            token = CURRENT.set(RequestContext("id", SAMPLED))
            await writer.write(messages("ben"))
            CURRENT.reset(token)

    asyncio.run(run())
    carried = {record.key: trace_of_record(record.headers) for record in kafka.records(TOPIC)}
    assert carried == {b"anna": None, b"ben": SAMPLED}


def test_records_that_wait_go_together_and_in_order(kafka: MemoryKafka) -> None:
    """Many small requests while one is on its way cost one batch."""
    batches: list[int] = []
    send_batch = MemoryProducer.send_batch

    async def counted(producer: MemoryProducer, batch: MemoryBatch, topic: str, *, partition: int) -> Any:
        batches.append(batch.record_count())
        return await send_batch(producer, batch, topic, partition=partition)

    async def run() -> None:
        async with writing(kafka) as writer:
            slow = kafka.hold("produce")
            tasks = [asyncio.create_task(writer.write([(b"anna", b"0")]))]
            await slow.reached.wait()
            tasks += [asyncio.create_task(writer.write([(b"anna", b"%d" % n)])) for n in range(1, 50)]
            await asyncio.sleep(0)
            slow.release()
            await asyncio.gather(*tasks)

    with patch.object(MemoryProducer, "send_batch", counted):
        asyncio.run(run())
    assert batches == [1, 49]
    assert [value for _, value in written(kafka).values()] == [b"%d" % n for n in range(50)]


def test_records_that_are_given_up_before_their_turn_are_never_written(kafka: MemoryKafka) -> None:
    async def run() -> None:
        async with writing(kafka, within_s=SHORT_S) as writer:
            slow = kafka.hold("produce")
            on_its_way = asyncio.create_task(writer.write([(b"anna", b"may come")]))
            await slow.reached.wait()
            waiting = asyncio.create_task(writer.write([(b"anna", b"never")]))
            for task in (on_its_way, waiting):
                (reason,) = await given_up(task)
                assert "may be written or not" in str(reason)
            slow.release()
            (at,) = await writer.write([(b"anna", b"after")])
            assert at == Position(partition_of([b"anna"], 4)[0], 1)

    asyncio.run(run())
    assert [value for _, value in written(kafka).values()] == [b"may come", b"after"]


def test_what_waits_is_bounded_and_more_is_refused_at_once(kafka: MemoryKafka) -> None:
    size = RECORD_OVERHEAD + len(b"anna") + len(b"0")

    async def run() -> None:
        async with writing(kafka, max_bytes=3 * size) as writer:
            slow = kafka.hold("produce")
            tasks = [asyncio.create_task(writer.write(messages("anna"))) for _ in range(3)]
            await slow.reached.wait()
            refused = await given_up(asyncio.create_task(writer.write(messages("anna", "bob"))))
            assert ["too many events wait" in str(reason) for reason in refused] == [True, True]
            slow.release()
            await asyncio.gather(*tasks)
            assert isinstance((await writer.write(messages("anna")))[0], Position), "there is room again"

    asyncio.run(run())
    assert len(written(kafka)) == 4


def test_half_of_the_requests_that_a_server_takes_may_wait_for_kafka(kafka: MemoryKafka) -> None:
    """While it does not answer, there is room for others, who ask for lists."""
    settings = SETTINGS.replace(http_max_concurrent=6)

    async def run() -> None:
        async with writing(kafka, settings=settings) as writer:
            slow = kafka.hold("produce")
            tasks = [asyncio.create_task(writer.write(messages(user, user))) for user in "abc"]
            await slow.reached.wait()
            (refused,) = await given_up(asyncio.create_task(writer.write(messages("anna"))))
            assert "too many events wait" in str(refused)
            slow.release()
            await asyncio.gather(*tasks)
            assert isinstance((await writer.write(messages("anna")))[0], Position), "there is room again"

    asyncio.run(run())
    assert len(written(kafka)) == 7


def test_room_of_records_that_were_given_up_is_free_while_kafka_stands_still(kafka: MemoryKafka) -> None:
    size = RECORD_OVERHEAD + len(b"anna") + len(b"0")

    async def run() -> None:
        async with writing(kafka, within_s=SHORT_S, max_bytes=3 * size) as writer:
            slow = kafka.hold("produce")
            for _ in range(5):  # the first is on its way and stays; the others make room again
                (reason,) = await given_up(asyncio.create_task(writer.write(messages("anna"))))
                assert "may be written or not" in str(reason)
            assert slow.reached.is_set()
            assert writer._waiting_bytes == size

    asyncio.run(run())


def test_a_cluster_that_cannot_be_reached_is_told_at_once_and_tried_again(kafka: MemoryKafka) -> None:
    async def run() -> None:
        with patch.object(MemoryProducer, "start", side_effect=ConnectionError("no broker")):
            async with writing(kafka) as writer:
                first = await writer.write(messages("anna", "bob"))
                assert ["not written" in str(reason) for reason in first] == [True, True]
                with patch.object(writer, "_connect", side_effect=AssertionError("it rests")):
                    (again,) = await writer.write(messages("anna"))
                assert "not written" in str(again)

    asyncio.run(run())
    assert written(kafka) == {}


def test_after_a_failure_a_new_connection_is_made(
    kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_writer, "REST_S", 0.0)

    async def run() -> None:
        async with writing(kafka) as writer:
            with patch.object(MemoryProducer, "_append", side_effect=ValueError("refused")):
                (reason,) = await writer.write(messages("anna"))
            assert "ValueError" in str(reason)
            assert isinstance((await writer.write(messages("anna")))[0], Position)

    asyncio.run(run())


def test_a_failure_in_one_partition_leaves_the_new_connection_of_another_alone(kafka: MemoryKafka) -> None:
    """Two batches fail one after the other; the first partition has more, and connects anew meanwhile."""
    home = {user: int(partition_of([user.encode()], 4)[0]) for user in ("anna", "bob", "carl", "dora")}
    other = next(user for user in home if home[user] != home["anna"])
    outcomes: dict[int, asyncio.Future[Any]] = {}
    send_batch = MemoryProducer.send_batch

    async def sent(producer: MemoryProducer, batch: MemoryBatch, topic: str, *, partition: int) -> Any:
        if partition in outcomes:
            return outcomes.pop(partition)
        return await send_batch(producer, batch, topic, partition=partition)

    async def run() -> None:
        async with writing(kafka) as writer:
            await writer.write(messages("anna", other))
            lost = [asyncio.get_running_loop().create_future() for _ in range(2)]
            outcomes.update(zip((home["anna"], home[other]), lost, strict=True))
            first, second = (asyncio.create_task(writer.write(messages(user))) for user in ("anna", other))
            while outcomes:
                await asyncio.sleep(0)
            waiting = asyncio.create_task(writer.write(messages("anna")))
            await asyncio.sleep(0)
            connecting = kafka.hold("start producer")
            lost[0].set_exception(IllegalOperation("lost"))
            await given_up(first)
            await connecting.reached.wait()
            lost[1].set_exception(IllegalOperation("lost"))
            await given_up(second)
            connecting.release()
            assert isinstance((await asyncio.wait_for(waiting, 5))[0], Position)

    with patch.object(MemoryProducer, "send_batch", sent):
        asyncio.run(run())


def test_nothing_is_written_to_a_topic_of_another_partition_count(kafka: MemoryKafka) -> None:
    kafka.partitions = 8

    async def run() -> None:
        async with writing(kafka) as writer:
            (reason,) = await writer.write(messages("anna"))
            assert "EDDY_PARTITIONS=8" in str(reason)

    asyncio.run(run())
    assert written(kafka) == {}


def test_stopping_waits_for_what_is_on_its_way(kafka: MemoryKafka) -> None:
    async def run() -> list[Position | Unwritten]:
        async with writing(kafka) as writer:
            slow = kafka.hold("produce")
            task = asyncio.create_task(writer.write(messages("anna")))
            await slow.reached.wait()
        return await task

    assert isinstance(asyncio.run(run())[0], Position)
