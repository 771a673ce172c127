"""What workers and their readers rely on of Kafka, as a table of rules. tests/unit/kafka/test_memory_kafka.py
tries them on the cluster in memory, tests/integration/test_kafka_contract.py on a real broker: so the
one cannot drift from the other.

A rule uses aiokafka's producers and consumers, or what stands in for them in memory, as the product makes
them.
"""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, ProducerFenced

from eddy.stream.kafka.producers import fatal_error
from eddy.stream.worker.checkpoint import PartitionLost
from tests.support.kafka_contract_clients import Clients, Rule

# -- logs ---------------------------------------------------------------------------------------------------


async def offsets_count_from_zero_in_each_partition(clients: Clients) -> None:
    producer, reader = await clients.producer(), await clients.reader()
    assert await clients.write(producer, 0, "a", "b") == 0
    assert await clients.write(producer, 1, "c") == 0
    assert await clients.write(producer, 0, "d") == 2
    await reader.ends_at({0: 3, 1: 1})
    await reader.reads({0: [(0, "a"), (1, "b"), (2, "d")], 1: [(0, "c")]})
    assert set((await reader.consumer.beginning_offsets(reader.partitions)).values()) == {0}


async def small_pieces_hold_the_same_as_large_ones(clients: Clients) -> None:
    producer, reader = await clients.producer("0"), await clients.reader()
    for value in "abc":
        await clients.checkpoint(producer, 0, value, value * 2)
    everything = [(0, "a"), (1, "aa"), (3, "b"), (4, "bb"), (6, "c"), (7, "cc")]
    await reader.reads({0: everything})
    assert (await reader.read(most=1))[0] == everything


async def a_record_keeps_its_key_its_headers_and_an_empty_value(clients: Clients) -> None:
    producer = await clients.producer()
    reader = await clients.reader(partitions=[TopicPartition(clients.topics.dead_letters, 0)])
    headers = [("reason", b"none"), ("offset", b"7")]
    await (await producer.send(clients.topics.dead_letters, b"", key=b"key", headers=headers))
    await (await producer.send(clients.topics.dead_letters, b"value", key=b"other key"))
    records: list[Any] = []
    while len(records) < 2:
        for batch in (await reader.consumer.getmany(timeout_ms=200, max_records=10)).values():
            records += batch
    kept = [(record.key, record.value, list(record.headers)) for record in records]
    assert kept == [(b"key", b"", headers), (b"other key", b"value", [])]


async def a_paused_partition_brings_nothing_until_it_is_resumed(clients: Clients) -> None:
    producer, reader = await clients.producer(), await clients.reader()
    await clients.write(producer, 0, "a", "b")
    await clients.write(producer, 1, "c")
    paused, other = reader.partitions
    await reader.consumer.seek_to_beginning(*reader.partitions)
    reader.consumer.pause(paused)
    while await reader.consumer.position(other) < 1:
        assert paused not in await reader.consumer.getmany(timeout_ms=200, max_records=10)
    assert await reader.consumer.position(paused) == 0
    reader.consumer.seek(paused, 1)
    reader.consumer.resume(paused)
    batches: dict[TopicPartition, Any] = {}
    while not batches:
        batches = await reader.consumer.getmany(timeout_ms=200, max_records=10)
    assert {tp: [record.value for record in batch] for tp, batch in batches.items()} == {paused: [b"b"]}


async def the_first_record_of_a_time_is_found_or_none(clients: Clients) -> None:
    producer, reader = await clients.producer(), await clients.reader()
    await clients.write(producer, 0, "a", "b")
    written, empty = reader.partitions
    long_ago = await reader.consumer.offsets_for_times({written: 0, empty: 0})
    assert (long_ago[written].offset, long_ago[empty]) == (0, None)
    assert await reader.consumer.offsets_for_times({written: 10**14}) == {written: None}


# -- transactions -------------------------------------------------------------------------------------------


async def a_committed_transaction_takes_an_offset_for_its_marker_in_each_partition(clients: Clients) -> None:
    producer, reader = await clients.producer("0"), await clients.reader()
    async with producer.transaction():
        await clients.write(producer, 0, "a", "b")
        await clients.write(producer, 1, "c")
    assert await clients.checkpoint(producer, 0, "d") == 3
    await reader.ends_at({0: 5, 1: 2})
    await reader.reads({0: [(0, "a"), (1, "b"), (3, "d")], 1: [(0, "c")]})


async def a_transaction_without_records_leaves_nothing(clients: Clients) -> None:
    producer, reader = await clients.producer("0"), await clients.reader()
    async with producer.transaction():
        pass
    await clients.checkpoint(producer, 0)
    await reader.ends_at({0: 0, 1: 0})


async def an_open_transaction_hides_what_follows_it_in_its_partitions_alone(clients: Clients) -> None:
    producer, other = await clients.producer("0"), await clients.producer()
    reader, of_all = await clients.reader(), await clients.reader(committed=False)
    await clients.write(other, 0, "before")
    await producer.begin_transaction()
    await clients.write(producer, 0, "a")
    await clients.write(other, 0, "after")
    await clients.write(other, 1, "elsewhere")
    await reader.ends_at({0: 1, 1: 1})
    await reader.reads({0: [(0, "before")], 1: [(0, "elsewhere")]})
    everything = [(0, "before"), (1, "a"), (2, "after")]
    await of_all.ends_at({0: 3, 1: 1})
    await of_all.reads({0: everything})
    await producer.commit_transaction()
    await reader.ends_at({0: 4, 1: 1})
    await reader.reads({0: everything})


async def readers_of_committed_records_pass_over_what_was_aborted(clients: Clients) -> None:
    producer = await clients.producer("0")
    reader, of_all = await clients.reader(), await clients.reader(committed=False)
    await clients.checkpoint(producer, 0, "a")
    await producer.begin_transaction()
    await clients.write(producer, 0, "b", "c")
    await producer.abort_transaction()
    await reader.ends_at({0: 5, 1: 0})
    await reader.reads({0: [(0, "a")]})  # it comes to the end, though nothing is there for it
    await clients.checkpoint(producer, 0, "d")
    await reader.reads({0: [(0, "a"), (5, "d")]})
    await of_all.reads({0: [(0, "a"), (2, "b"), (3, "c"), (5, "d")]})


async def a_transaction_whose_work_fails_is_aborted(clients: Clients) -> None:
    producer, reader = await clients.producer("0"), await clients.reader()

    async def fail() -> None:
        async with producer.transaction():
            await clients.write(producer, 0, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await clients.checkpoint(producer, 0, "b")
    await reader.reads({0: [(2, "b")]})


async def a_transactional_producer_sends_nothing_outside_a_transaction(clients: Clients) -> None:
    producer, reader = await clients.producer("0"), await clients.reader()
    with pytest.raises(IllegalOperation):
        await clients.write(producer, 0, "a")
    await reader.ends_at({0: 0, 1: 0})


# -- fencing ------------------------------------------------------------------------------------------------


async def a_newer_producer_of_an_id_aborts_what_the_older_one_had_begun(clients: Clients) -> None:
    older, reader = await clients.producer("0"), await clients.reader()
    await older.begin_transaction()
    await clients.write(older, 0, "a")
    newer = await clients.producer("0")
    await reader.ends_at({0: 2, 1: 0})
    await clients.checkpoint(newer, 0, "b")
    with pytest.raises(Exception) as refused:  # noqa: PT011 - aiokafka gives its reason in several ways
        await older.commit_transaction()
    fenced = (ProducerFenced, InvalidProducerEpoch)
    assert isinstance(refused.value, fenced) or isinstance(fatal_error(older), fenced)
    await reader.reads({0: [(2, "b")]})


async def an_older_producer_of_an_id_writes_nothing_more(clients: Clients) -> None:
    older, reader = await clients.producer("0"), await clients.reader()
    await clients.checkpoint(older, 0, "a")
    newer = await clients.producer("0")
    await reader.ends_at({0: 2, 1: 0})  # nothing was open, so nothing was aborted
    for _ in range(2):
        with pytest.raises(PartitionLost):
            await clients.checkpoint(older, 0, "b")
    await clients.checkpoint(newer, 0, "c")
    await reader.reads({0: [(0, "a"), (2, "c")]})


async def producers_of_other_ids_are_not_fenced(clients: Clients) -> None:
    first, reader = await clients.producer("0"), await clients.reader()
    await clients.producer("1")
    await clients.producer()
    await clients.checkpoint(first, 0, "a")
    await reader.reads({0: [(0, "a")]})


# -- the group ----------------------------------------------------------------------------------------------


async def the_group_keeps_what_its_newest_generation_commits(clients: Clients) -> None:
    first = await clients.member()
    assert first.owned == {0, 1}
    assert [await first.position(number) for number in (0, 1)] == [0, 0]
    assert await first.commit({0: 3, 1: 2})
    assert await first.commit({0: 1})
    assert await clients.committed() == {0: 1, 1: 2}
    second = await clients.member()
    assert len(second.owned) == 1
    for number in second.owned:
        assert await second.position(number) == {0: 1, 1: 2}[number]
    assert not await first.commit({0: 5, 1: 5})
    assert await clients.committed() == {0: 1, 1: 2}


RULES: list[Rule] = [
    offsets_count_from_zero_in_each_partition,
    small_pieces_hold_the_same_as_large_ones,
    a_record_keeps_its_key_its_headers_and_an_empty_value,
    a_paused_partition_brings_nothing_until_it_is_resumed,
    the_first_record_of_a_time_is_found_or_none,
    a_committed_transaction_takes_an_offset_for_its_marker_in_each_partition,
    a_transaction_without_records_leaves_nothing,
    an_open_transaction_hides_what_follows_it_in_its_partitions_alone,
    readers_of_committed_records_pass_over_what_was_aborted,
    a_transaction_whose_work_fails_is_aborted,
    a_transactional_producer_sends_nothing_outside_a_transaction,
    a_newer_producer_of_an_id_aborts_what_the_older_one_had_begun,
    an_older_producer_of_an_id_writes_nothing_more,
    producers_of_other_ids_are_not_fenced,
    the_group_keeps_what_its_newest_generation_commits,
]
