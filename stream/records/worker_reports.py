"""What a worker says of itself, as the records of `metrics` that tell it.

A record's key names the worker, so that each record replaces the one before. Counts go on from the worker's
start: whoever reads two records of one start knows what happened in between, whichever others were lost.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from eddy.models.untrusted import Unreadable, decoded, text
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import MAX_EPOCH, Count, encode

KEY_PREFIX = b"worker:"
"""First bytes of the keys of these records on `metrics`; no other record's key begins with them."""

DURATIONS_MS: NDArray[np.float64] = 2.0 ** (np.arange(105) / 4)
"""[n] upper ends of the classes by which durations are counted: four per doubling, from 1 ms to 18.6 hours.
The last class, which has no upper end, comes behind them.
"""

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,249}")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Number = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Durations = Annotated[
    list[Count], msgspec.Meta(min_length=len(DURATIONS_MS) + 1, max_length=len(DURATIONS_MS) + 1)
]


class WorkerReport(msgspec.Struct, gc=False):
    """A worker at one moment."""

    instance: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """of the worker: a start of a process, from which on it counts"""
    told_at: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    """ms since 1970, by the worker's clock"""
    state: Literal["restoring", "running", "swapping"]
    """swapping: rows of older epochs move to the live version"""
    progress: Share | None
    """of the restore or the swap"""
    partitions: Annotated[list[Number], msgspec.Meta(max_length=10_000)]
    """that the worker owns, those that are being restored included"""
    applied: Count
    """events that have moved their user's state"""
    dead: Count
    """dead letters"""
    lag: Count
    """records of `events` left to apply"""
    rows: Count
    rows_of_older_epochs: Count
    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
    freshness: Durations
    """records by how long it took from their append until their rows were durable, by DURATIONS_MS"""


class Reported(NamedTuple):
    """What one record says."""

    worker: str
    report: WorkerReport | None
    """None: the worker has ended"""


_decode = msgspec.json.Decoder(WorkerReport).decode


def is_report(key: bytes | None) -> bool:
    """Whether a record of `metrics` is a worker's report, by its key."""
    return key is not None and key.startswith(KEY_PREFIX)


def encode_report(worker: str, report: WorkerReport | None) -> Message:
    """The record of a report; None = a tombstone, the worker has ended."""
    return KEY_PREFIX + worker.encode(), None if report is None else encode(report)


def decode_report(key: bytes | None, value: bytes | None) -> Reported:
    """What a record says. Errors: Unreadable when it is no report."""
    if not is_report(key):
        raise Unreadable("the key does not name a worker")
    worker = text((key or b"").removeprefix(KEY_PREFIX))
    if not _NAME.fullmatch(worker):
        raise Unreadable("the key holds no name of a worker")
    return Reported(worker, None if value is None else decoded(_decode, value))


def count_durations(durations_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Durations counted by class: int64[len(DURATIONS_MS) + 1]; those below zero, of clocks that differ,
    count as zero.
    """
    place = np.searchsorted(DURATIONS_MS, durations_ms)
    return np.bincount(place, minlength=len(DURATIONS_MS) + 1)


def quantiles(counts: NDArray[np.int64], shares: Sequence[float]) -> list[float] | None:
    """The durations (ms) below which these shares of what was counted lie, as far as the classes tell; None
    where nothing was counted.
    """
    total = int(counts.sum())
    if not total:
        return None
    ends = np.append(DURATIONS_MS, DURATIONS_MS[-1])
    begins = np.insert(DURATIONS_MS, 0, 0.0)
    reached = np.cumsum(counts)
    found = []
    for share in shares:
        place = int(np.searchsorted(reached, share * total))
        within = (share * total - (reached[place] - counts[place])) / max(int(counts[place]), 1)
        found.append(float(begins[place] + within * (ends[place] - begins[place])))
    return found


__all__ = [
    "DURATIONS_MS",
    "KEY_PREFIX",
    "Reported",
    "WorkerReport",
    "count_durations",
    "decode_report",
    "encode_report",
    "is_report",
    "quantiles",
]
