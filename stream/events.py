"""From a chunk of `events` records to columns: decoded once, by whole batches; bad records are told apart,
not lost.

Every record comes out either in the batch, as an erasure, or rejected with a reason. Nothing in a record
can raise.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.hashing import event_id_hash, type_hashes
from stream.schema import Event

MAX_AHEAD_MS = 3_600_000
"""Event times further ahead of the wall clock are refused: they would drag the stream clock with them."""

MAX_FLOAT16 = 65_504.0
_END = np.iinfo(np.int64).max

_decoder = msgspec.json.Decoder(Event)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Record(Protocol):
    """What is needed of a consumed Kafka record."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def offset(self) -> int: ...


@dataclass(frozen=True)
class Rejected:
    """A record that is no event, and why."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Erasure:
    """A tombstone: this user is to be forgotten."""

    user: str
    offset: int


@dataclass(frozen=True)
class EventBatch:
    """n accepted events of one partition in offset order."""

    partition: int
    user: list[str]
    item: list[str]
    type: NDArray[np.uint64]
    """[n] hashes of the types' names"""
    value: NDArray[np.float16]
    """[n], NaN = none"""
    time: NDArray[np.int64]
    """[n] ms"""
    event_id: NDArray[np.uint64]
    """[n] 40-bit hashes, 0 = none"""
    offset: NDArray[np.int64]
    """[n]"""

    def __len__(self) -> int:
        return len(self.user)

    def between(self, start: int, end: int) -> "EventBatch":
        """The events with start <= offset < end."""
        low, high = np.searchsorted(self.offset, (start, end)).tolist()
        columns = {name: column[low:high] for name, column in vars(self).items() if name != "partition"}
        return EventBatch(self.partition, **columns)


@dataclass(frozen=True)
class Decoded:
    """What a chunk held."""

    batch: EventBatch
    erasures: list[Erasure]
    rejected: list[Rejected]


def _all_at_once(values: Sequence[bytes | None]) -> list[Event] | None:
    """All values decoded in one call, or None if they must be looked at one by one.

    Lines can be decoded together only if no value can reach into the next: none holds a line break, each
    starts with { and ends with }. A value cut inside a string or an object then still fails, since a raw
    line break is not allowed in a string and } { do not join.
    """
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]
    except TypeError:
        return None
    n = len(values)
    if (
        joined.count(b"\n") != n - 1
        or joined.count(b"}\n{") != n - 1
        or joined[:1] != b"{"
        or joined[-1:] != b"}"
    ):
        return None
    try:
        events = _decoder.decode_lines(joined)
    except _UNREADABLE:
        return None
    return events if len(events) == n else None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) if isinstance(error, msgspec.DecodeError) else "not UTF-8"


def decode_events(records: Sequence[Record], partition: int, now: int) -> Decoded:
    """Decode one partition's records; `now` is the wall clock in ms."""
    erasures: list[Erasure] = []
    rejected: list[Rejected] = []
    events = _all_at_once([record.value for record in records])
    accepted: Sequence[Record] = records
    if events is None:
        events, accepted = [], []
        for record in records:
            try:
                if record.value is None:
                    if not record.key:
                        raise msgspec.DecodeError(
                            "empty value without a key: a tombstone's key is the user_id"
                        )
                    erasures.append(Erasure(record.key.decode(), record.offset))
                    continue
                events.append(_decoder.decode(record.value))
                accepted.append(record)
            except _UNREADABLE as error:
                rejected.append(Rejected(record, _reason(error)))
    time = np.fromiter((event.timestamp for event in events), np.float64, len(events))
    wrong = {
        int(i): f"timestamp is more than an hour ahead of now ({now} ms)"
        for i in np.flatnonzero(time > now + MAX_AHEAD_MS)
    }
    for i, (event, record) in enumerate(zip(events, accepted, strict=True)):
        if event.value is not None and not math.isfinite(event.value):
            wrong[i] = "value is not a finite number"
        if record.key is not None and record.key == event.user_id.encode("utf-8", "surrogatepass"):
            continue
        wrong[i] = "the record's key is not its user_id"
    if wrong:
        rejected.extend(Rejected(accepted[i], reason) for i, reason in sorted(wrong.items()))
        keep = [i for i in range(len(events)) if i not in wrong]
        events, accepted = [events[i] for i in keep], [accepted[i] for i in keep]
    return Decoded(_columns(events, accepted, partition), erasures, rejected)


def _columns(events: Sequence[Event], records: Sequence[Record], partition: int) -> EventBatch:
    n = len(events)
    value = np.full(n, np.nan, np.float16)
    valued = [i for i, event in enumerate(events) if event.value is not None]
    if valued:
        numbers = np.array([events[i].value for i in valued], np.float64)
        value[valued] = np.clip(numbers, -MAX_FLOAT16, MAX_FLOAT16)
    event_id = np.zeros(n, np.uint64)
    named = [i for i, event in enumerate(events) if event.event_id is not None]
    if named:
        event_id[named] = [event_id_hash(events[i].event_id or "") for i in named]
    return EventBatch(
        partition=partition,
        user=[event.user_id for event in events],
        item=[event.item_id for event in events],
        type=type_hashes([event.event_type for event in events]),
        value=value,
        time=np.fromiter((event.timestamp for event in events), np.int64, n),
        event_id=event_id,
        offset=np.fromiter((record.offset for record in records), np.int64, n),
    )


def joined(parts: Sequence[Decoded]) -> Decoded:
    """Decoded chunks of one partition, one after another, as one."""
    if len(parts) == 1:
        return parts[0]
    batches = [part.batch for part in parts]
    columns: dict[str, Any] = {}
    for name, column in vars(batches[0]).items():
        if isinstance(column, list):
            columns[name] = list(chain.from_iterable(getattr(batch, name) for batch in batches))
        elif isinstance(column, np.ndarray):
            columns[name] = np.concatenate([getattr(batch, name) for batch in batches])
    return Decoded(
        EventBatch(partition=batches[0].partition, **columns),
        [one for part in parts for one in part.erasures],
        [one for part in parts for one in part.rejected],
    )


def rounds(decoded: Sequence[Decoded]) -> Iterator[tuple[list[EventBatch], list[tuple[int, str]]]]:
    """Batches to apply and (partition, user) to erase after them, so that every tombstone takes its turn."""
    starts = [0] * len(decoded)
    for turn in range(max((len(one.erasures) for one in decoded), default=0)):
        batches, erased = [], []
        for i, one in enumerate(decoded):
            if turn < len(one.erasures):
                erasure = one.erasures[turn]
                batches.append(one.batch.between(starts[i], erasure.offset))
                erased.append((one.batch.partition, erasure.user))
                starts[i] = erasure.offset
        yield batches, erased
    last = [one.batch.between(at, _END) if at else one.batch for one, at in zip(decoded, starts, strict=True)]
    yield last, []
