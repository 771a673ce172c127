"""Sums over ranked events as arrays, and as the records of `metrics` that tell of them.

A record's key names a start of a worker, which no other start ever has, and counts the intervals since then.
So a worker that is started again overwrites nothing, and a record that was written twice is recognised.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from eddy.models.untrusted import Unreadable, decoded
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import IntervalRanks, VersionRanks, encode

SUMS = ("events", "recall", "reciprocal", "popularity_recall", "popularity_reciprocal")
"""What is summed, in the order of the arrays' rows: fields of `VersionRanks`."""

_DECIMALS = 6
_KEY = re.compile(rb"([0-9a-f]{32}):([0-9]{1,15})")
_decode = msgspec.json.Decoder(IntervalRanks).decode


class RankedBy(NamedTuple):
    """Whose rows events were ranked from. An epoch's ranks are its own: a version may be live more than once,
    for other users and at other times.
    """

    epoch: int
    version: str


class Told(NamedTuple):
    """What one record says."""

    instance: str
    """of the worker: a start of a process"""
    interval: int
    """greater than those of all records before it of this instance"""
    sums: dict[RankedBy, NDArray[np.float64]]
    """float64[len(SUMS), GROUPS]"""


class CountedIntervals:
    """Which intervals were counted, so that a record that was written twice counts once."""

    def __init__(self, most: int | None = None) -> None:
        """most: instances that are known; beyond, the one that has told least lately is forgotten."""
        self._most = most
        self._last: OrderedDict[str, int] = OrderedDict()

    def is_new(self, told: Told) -> bool:
        """Whether a record's interval was not counted before; it is from now on."""
        if told.interval <= self._last.get(told.instance, -1):
            return False
        self._last[told.instance] = told.interval
        self._last.move_to_end(told.instance)
        if self._most is not None and len(self._last) > self._most:
            self._last.popitem(last=False)
        return True


def encode_ranks(instance: str, interval: int, sums: Mapping[RankedBy, NDArray[np.float64]]) -> Message:
    """The record of one interval. sums: float64[len(SUMS), GROUPS], of at most MAX_RANKED versions."""
    ranks = [
        VersionRanks(
            by.epoch, by.version, _counts(events), _counts(recall), _sums(reciprocal),
            _counts(popularity_recall), _sums(popularity_reciprocal),
        )
        for by, (events, recall, reciprocal, popularity_recall, popularity_reciprocal) in sums.items()
    ]  # fmt: skip
    return f"{instance}:{interval}".encode(), encode(IntervalRanks(ranks))


def _counts(values: NDArray[np.float64]) -> list[int]:
    return [round(value) for value in values.tolist()]


def _sums(values: NDArray[np.float64]) -> list[float]:
    return [round(value, _DECIMALS) for value in values.tolist()]


def decode_ranks(key: bytes | None, value: bytes | None) -> Told:
    """What a record says. Errors: Unreadable when it is none of a worker's."""
    named = _KEY.fullmatch(key or b"")
    if named is None:
        raise Unreadable("the key does not name a worker and an interval")
    ranks = decoded(_decode, value).ranks
    sums = {}
    for version in ranks:
        table = np.array([getattr(version, name) for name in SUMS], np.float64)
        events, recall, reciprocal, popularity_recall, popularity_reciprocal = table
        at_most = ((recall, events), (reciprocal, recall), (popularity_recall, events),
                   (popularity_reciprocal, popularity_recall))  # fmt: skip
        if any(np.any(part > whole + 1e-3) for part, whole in at_most):
            raise Unreadable("more was found than was ranked")
        sums[RankedBy(version.epoch, version.version)] = table
    if len(sums) < len(ranks):
        raise Unreadable("a version is counted twice at one epoch")
    return Told(named[1].decode(), int(named[2]), sums)
