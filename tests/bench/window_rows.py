"""Rows with windows at random, as a version would have left them."""

from dataclasses import replace
from typing import Any

import numpy as np

from eddy.models.hashing import item_hash, item_hashes, type_hash
from eddy.models.registry import Version
from eddy.stream.state.rows import NO_TIME, WINDOW, Rows
from tests.support.engines import item_id

EPOCH = 1
"""Rows are of the first version that is announced."""

LEAST_EVENTS, MOST_EVENTS = 10, 30
"""Events in a row's window."""


def window_rows(n: int, version: Version, topic_id: bytes, last_ms: int, items: int) -> Rows:
    """n rows of the version, without users, in partition 0: windows of LEAST_EVENTS to MOST_EVENTS entries
    that end at `last_ms`, states at random.
    """
    rng = np.random.default_rng(n)
    length = rng.integers(LEAST_EVENTS, MOST_EVENTS + 1, n).astype(np.uint8)
    filled = np.arange(WINDOW) < length[:, None]
    hashes = item_hashes([item_id(number) for number in range(items)])
    ages = np.sort(rng.integers(0, 10**8, (n, WINDOW)), axis=1)
    state_size = version.recommender.state_size
    return Rows(
        user=[b""] * n,
        epoch=np.full(n, EPOCH, np.uint32),
        version=np.full(n, item_hash(version.id), np.uint64),
        topic_id=topic_id,
        partition=np.zeros(n, np.int32),
        offset=np.zeros(n, np.int64),
        applied=length.astype(np.uint32),
        digest=rng.integers(0, 2**63, n).astype(np.uint64),
        anchor_time=np.full(n, NO_TIME),
        hidden=np.tanh(rng.standard_normal((n, state_size), np.float32)),
        anchor=np.zeros((n, state_size), np.float32),
        length=length,
        item=np.where(filled, hashes[rng.integers(0, items, (n, WINDOW))], np.uint64(0)),
        time=np.where(filled, last_ms - ages[:, -1:] + ages, 0),
        type=np.where(filled, np.uint64(type_hash("view")), np.uint64(0)),
        value=np.full((n, WINDOW), np.nan, np.float16),
        event_id=np.zeros((n, WINDOW), np.uint64),
        older=np.zeros((n, 0), np.uint64),
    )


def first_rows(rows: Rows, n: int) -> Rows:
    """The first n rows."""
    columns: dict[str, Any] = {
        name: column[:n] for name, column in vars(rows).items() if isinstance(column, np.ndarray)
    }
    return replace(rows, **columns)
