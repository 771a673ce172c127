"""Users go where the clients of their producers put them."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2 as kafka_python_murmur2

from eddy.stream.records.partitioner import ENOUGH, OtherPartitioner, Partitioner, murmur2, partition_of

KEYS = st.lists(st.binary(max_size=70), min_size=1, max_size=50)

LIBRDKAFKA_KEYS = [
    b"u1", b"user-42", b"23456", b"this is another string with more length to it perhaps", b"hejsan",
    "käyttäjä".encode(), "日本語".encode(), b"123456789", b"\0", b"a" * 1024,
]  # fmt: skip
# What librdkafka 2.16.1 answers, called directly: rd_kafka_msg_partitioner_consistent_random (its default)
# and rd_kafka_msg_partitioner_murmur2_random.
LIBRDKAFKA: dict[Partitioner, dict[int, list[int]]] = {
    "crc32": {
        4: [2, 3, 3, 3, 2, 1, 1, 2, 1, 1],
        12: [2, 7, 11, 7, 6, 5, 1, 2, 1, 5],
        1000: [422, 435, 663, 847, 606, 261, 405, 262, 757, 185],
    },
    "murmur2": {
        4: [0, 0, 3, 2, 1, 3, 2, 2, 0, 1],
        12: [4, 4, 11, 2, 1, 3, 10, 6, 8, 1],
        1000: [584, 460, 391, 834, 533, 683, 170, 566, 588, 581],
    },
}


@pytest.mark.parametrize("partitions", [4, 12, 1000])
@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_partitions_are_those_of_librdkafka(partitioner: Partitioner, partitions: int) -> None:
    found = partition_of(LIBRDKAFKA_KEYS, partitions, partitioner).tolist()
    assert found == LIBRDKAFKA[partitioner][partitions]


def test_the_hash_is_that_of_kafkas_own_tests() -> None:
    keys = [b"21", b"foobar", b"a-little-bit-long-string", b""]
    assert murmur2(keys).tolist() == [
        hash_ & 0x7FFFFFFF for hash_ in (-973932308, -790332482, -985981536, 275646681)
    ]


@given(keys=KEYS)
def test_the_hash_is_that_of_kafka_python_and_of_aiokafka(keys: list[bytes]) -> None:
    found = murmur2(keys).tolist()
    assert found == [kafka_python_murmur2(key) & 0x7FFFFFFF for key in keys]
    assert found == [aiokafka_murmur2(key) & 0x7FFFFFFF for key in keys]


def test_many_random_keys_of_every_length() -> None:
    rng = np.random.default_rng(1)
    keys = [rng.bytes(int(size)) for size in rng.integers(0, 40, 20_000)]
    assert murmur2(keys).tolist() == [aiokafka_murmur2(key) & 0x7FFFFFFF for key in keys]


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_no_keys_no_partitions(partitioner: Partitioner) -> None:
    assert partition_of([], 4, partitioner).tolist() == []


def _by_partition(partitions: int, placed_by: Partitioner, users: int) -> dict[int, list[bytes]]:
    keys = [f"user-{number}".encode() for number in range(users)]
    home = partition_of(keys, partitions, placed_by).tolist()
    return {p: [key for key, at in zip(keys, home, strict=True) if at == p] for p in range(partitions)}


@pytest.mark.parametrize("partitions", [2, 4, 30])
def test_keys_placed_by_the_other_partitioner_are_told_of_once(partitions: int) -> None:
    watch = OtherPartitioner(partitions, "murmur2")
    placed = _by_partition(partitions, "crc32", 200)
    told = [
        said for number, keys in placed.items() for key in keys if (said := watch.recognised([key], number))
    ]
    assert len(told) == 1
    assert f"{ENOUGH} of the first {ENOUGH} keys" in told[0]
    assert "EDDY_PARTITIONER=crc32" in told[0]


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_keys_where_they_belong_or_anywhere_are_not_told_of(partitions: int) -> None:
    for placed_by in ("crc32", "murmur2"):
        watch = OtherPartitioner(partitions, placed_by)
        placed = _by_partition(partitions, placed_by, 200)
        assert [watch.recognised(keys, number) for number, keys in placed.items()] == [None] * partitions
    anywhere = OtherPartitioner(partitions, "murmur2")
    keys = [f"user-{number}".encode() for number in range(200)]
    assert all(anywhere.recognised([key], number % partitions) is None for number, key in enumerate(keys))
