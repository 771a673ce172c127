"""Users go where Kafka's own clients put them."""

from __future__ import annotations

import numpy as np
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2 as kafka_python_murmur2

from stream.murmur import murmur2

KEYS = st.lists(st.binary(max_size=70), min_size=1, max_size=50)


@given(keys=KEYS)
def test_the_hash_is_that_of_kafka_python_and_of_aiokafka(keys: list[bytes]) -> None:
    found = murmur2(keys).tolist()
    assert found == [kafka_python_murmur2(key) & 0x7FFFFFFF for key in keys]
    assert found == [aiokafka_murmur2(key) & 0x7FFFFFFF for key in keys]


def test_many_random_keys_of_every_length() -> None:
    rng = np.random.default_rng(1)
    keys = [rng.bytes(int(size)) for size in rng.integers(0, 40, 20_000)]
    assert murmur2(keys).tolist() == [aiokafka_murmur2(key) & 0x7FFFFFFF for key in keys]


def test_no_keys_no_hashes() -> None:
    assert murmur2([]).tolist() == []
