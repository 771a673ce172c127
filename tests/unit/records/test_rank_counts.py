"""Records of `metrics`: what one worker tells is what everybody reads, and nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from eddy.models.untrusted import Unreadable
from eddy.stream.records.rank_counts import SUMS, RankedBy, decode_ranks, encode_ranks
from eddy.stream.records.schema import GROUPS, MAX_EPOCH, MAX_RANKED
from eddy.stream.state.sampling import group_of, in_sample, share_of

INSTANCE = "0123456789abcdef" * 2
KEY = f"{INSTANCE}:7".encode()
MANY = [f"user-{i}".encode() for i in range(50_000)]


def sums(seed: int = 0) -> NDArray[np.float64]:
    """Sums as they come about: of each group's events some are found, and each adds its reciprocal rank."""
    rng = np.random.default_rng(seed)
    events = rng.integers(0, 1000, GROUPS)
    recall, popularity = rng.binomial(events, 0.3), rng.binomial(events, 0.2)
    return np.array([events, recall, recall * 0.123456, popularity, popularity / 3.0])


def record(**changed: Any) -> bytes:
    """A record's value with some fields of its only version changed."""
    _, value = encode_ranks(INSTANCE, 7, {RankedBy(3, "v"): sums()})
    content = msgspec.json.decode(value or b"")
    content["ranks"][0] |= changed
    return msgspec.json.encode(content)


def test_what_is_written_is_what_is_read() -> None:
    told = {RankedBy(3, "v000001-00000000"): sums(1), RankedBy(5, "v000001-00000000"): sums(2)}
    key, value = encode_ranks(INSTANCE, 7, told)
    read = decode_ranks(key, value)
    assert (read.instance, read.interval) == (INSTANCE, 7)
    assert list(read.sums) == list(told), "an epoch's ranks are its own"
    for by, table in told.items():
        np.testing.assert_allclose(read.sums[by], table, atol=1e-6)


def test_a_record_stays_small_whatever_it_counts() -> None:
    full = np.full((len(SUMS), GROUPS), 2.0**39 + 1 / 3)
    _, value = encode_ranks(INSTANCE, 10**9, {RankedBy(n, "v" * 256): full for n in range(1, MAX_RANKED + 1)})
    assert value is not None
    assert len(value) < 64 << 10


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b'{"ranks":[]}',
        b"\xff" * 100,
        b'{"ranks":' + b"[" * 5_000,
        record(epoch=0),
        record(epoch=MAX_EPOCH + 1),
        record(version=""),
        record(version="v" * 257),
        record(events=[1] * (GROUPS - 1)),
        record(events=[1] * (GROUPS + 1)),
        record(events=[-1] * GROUPS),
        record(events=[2**62] * GROUPS),
        record(events=[0.5] * GROUPS),
        record(reciprocal=[-0.1] * GROUPS),
        record(reciprocal=[1e300] * GROUPS),
        record(reciprocal=[None] * GROUPS),
        record(recall=[1_001] * GROUPS),  # more was found than was ranked
        record(reciprocal=[1_001.0] * GROUPS),
        record(popularity_recall=[1_001] * GROUPS),
        record(popularity_reciprocal=[1_001.0] * GROUPS),
        record().replace(b'"popularity_reciprocal"', b'"something"'),
        record().replace(b'"ranks":[', b'"ranks":[' + record()[len(b'{"ranks":[') : -2] + b","),
    ],
)
def test_a_hostile_value_is_unreadable(value: bytes | None) -> None:
    with pytest.raises(Unreadable):
        decode_ranks(KEY, value)


@pytest.mark.parametrize(
    "key", [None, b"", b"live", b"0123:1", INSTANCE.encode(), KEY + b"0" * 20, KEY + b":1", KEY + b"\n"]
)
def test_a_key_that_names_no_worker_and_interval_is_unreadable(key: bytes | None) -> None:
    decode_ranks(KEY, record())
    with pytest.raises(Unreadable, match="key"):
        decode_ranks(key, record())


def test_a_user_s_group_is_the_same_everywhere_and_for_good() -> None:
    assert group_of(MANY[:8]).tolist() == [7, 24, 11, 16, 6, 12, 3, 17]
    assert group_of([]).tolist() == []


def test_groups_are_alike_in_the_sample_and_in_every_share() -> None:
    group = group_of(MANY)
    for chosen in (in_sample(MANY, 0.1), share_of(MANY, 7, [90, 10]) == 1):
        counted = np.bincount(group[chosen], minlength=GROUPS)
        expected = np.bincount(group, minlength=GROUPS) * chosen.mean()
        assert np.sum((counted - expected) ** 2 / expected) < 70, "chi square, 31 degrees of freedom"
