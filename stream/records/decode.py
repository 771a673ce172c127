"""From records of `events` to columns: records are decoded once, whole chunks at a time, and bad ones are
told apart, not lost.

Every record comes out as an event, as an erasure, or rejected with a reason. Nothing in a record can raise.
`eddy.models.event_limits` and `eddy.stream.records.admission` say what is accepted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from eddy.models.event_limits import MAX_ID, MAX_VALUE
from eddy.models.hashing import event_id_hash, type_hashes
from eddy.models.logs.events import DEFAULT_TYPE
from eddy.models.untrusted import FAILURES, Unreadable, reason_of, text
from eddy.stream.records.admission import Admission
from eddy.stream.records.columns import select_entries
from eddy.stream.records.schema import Event

_timestamp, _offset = attrgetter("timestamp"), attrgetter("offset")
_decoder = msgspec.json.Decoder(Event)

_EMPTY = "an empty value: a tombstone, which erases its user, has none at all (null)"


class Record(Protocol):
    """What decoding needs of a consumed Kafka record."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """append time, ms"""


@dataclass(frozen=True)
class Rejected:
    """A record that is not accepted, and why."""

    record: Record
    reason: str
    misplaced: bool = False
    """whether the reason is the partition that it lies in"""


@dataclass(frozen=True)
class Erasure:
    """A tombstone: the user is to be forgotten."""

    user: str
    offset: int


@dataclass(frozen=True)
class EventColumns:
    """n accepted events, each partition's in offset order, from the decoder to the engine. Users, items and
    types have their names or hashes here; the engine gives them numbers
    (`eddy.stream.kernels.window_loops.EventTable`), since compiled loops take neither text nor float16.
    """

    partition: NDArray[np.int32]
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


@dataclass(frozen=True)
class Decoded:
    """What the records of one partition hold."""

    partition: int
    events: EventColumns
    erasures: list[Erasure]
    rejected: list[Rejected]
    """in offset order"""


def _all_at_once(values: Sequence[bytes | None]) -> list[Event] | None:
    """All values decoded in one call, or None if they must be decoded one by one.

    Lines can be decoded together only if no value can reach into the next: no value holds a line break, each
    starts with { and ends with }. A value that is cut inside a string or an object then still fails, since a
    raw line break is not allowed in a string and } { do not join.
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
    except FAILURES:
        return None
    return events if len(events) == n else None


def types_of(events: Sequence[Event]) -> list[str]:
    """The type of each event."""
    return [event.event_type or DEFAULT_TYPE for event in events]


def values_of(events: Sequence[Event]) -> NDArray[np.float64]:
    """The value of each event within ±MAX_VALUE, NaN = none: float64[n]."""
    numbers = [event.value for event in events]
    if numbers.count(None) == len(numbers):
        return np.full(len(numbers), np.nan)
    return np.clip(np.array(numbers, np.float64), -MAX_VALUE, MAX_VALUE)  # None becomes NaN


def event_ids_of(events: Sequence[Event]) -> list[str | None]:
    """The id of each event, None = none."""
    return [event.event_id or None for event in events]


def _times(events: Sequence[Event] | Sequence[Record]) -> NDArray[np.int64]:
    return np.fromiter(map(_timestamp, events), np.int64, len(events))


def append_times(records: Sequence[Record]) -> NDArray[np.int64]:
    """When records were appended to their topic, ms: int64[n]."""
    return _times(records)


def accept_events(
    records: Sequence[Record], partition: int, admission: Admission
) -> tuple[list[Event], Sequence[Record], list[Erasure], list[Rejected]]:
    """Tell one partition's events, tombstones and other records apart. Returns the events as they were sent
    (`types_of`, `values_of` and `event_ids_of` say what absent fields mean), the record of each, the
    erasures, and the rejected records; each in offset order.
    """
    # 1. Parse the values: all at once, or one by one where one of them is no event.
    tombstones: list[Record] = []
    rejected: list[Rejected] = []
    events = _all_at_once([record.value for record in records])
    accepted: Sequence[Record] = records
    if events is None:
        events, accepted = [], []
        for record in records:
            if record.value is None:
                tombstones.append(record)
                continue
            try:
                events.append(_decoder.decode(record.value))
                accepted.append(record)
            except FAILURES as error:
                rejected.append(Rejected(record, reason_of(error) if record.value else _EMPTY))
    # 2. Look for what the form alone does not show: partition, times and key.
    keys = [event.user_id.encode() for event in events]
    misplaced = admission.misplaced(keys, partition)
    wrong = admission.mistimed(_times(events), _times(accepted)) | misplaced
    if keys != [record.key for record in accepted]:
        for i, (key, record) in enumerate(zip(keys, accepted, strict=True)):
            if key != record.key:
                wrong[i] = "the record's key is not its user_id"
    if wrong:
        rejected += [Rejected(accepted[i], reason, i in misplaced) for i, reason in wrong.items()]
        right = [i for i in range(len(events)) if i not in wrong]
        events, accepted = [events[i] for i in right], [accepted[i] for i in right]
    # 3. Tombstones.
    erasures, refused = _erasures(tombstones, partition, admission) if tombstones else ([], [])
    rejected = sorted([*rejected, *refused], key=lambda rejection: rejection.record.offset)
    return events, accepted, erasures, rejected


def _erasures(
    tombstones: Sequence[Record], partition: int, admission: Admission
) -> tuple[list[Erasure], list[Rejected]]:
    """An erasure happens everywhere or not at all: only the user's own partition can order it."""
    misplaced = admission.misplaced([record.key or b"" for record in tombstones], partition)
    erasures: list[Erasure] = []
    rejected: list[Rejected] = []
    for i, record in enumerate(tombstones):
        reason, user = None, ""
        try:
            user = text(record.key or b"")
        except Unreadable:
            reason = "a tombstone's key is the user_id: this one is not UTF-8"
        if reason is None and not 1 <= len(user) <= MAX_ID:
            reason = f"a tombstone's key is the user_id: 1 to {MAX_ID} characters, not {len(user)}"
        if reason is None and i in misplaced:
            reason = f"nobody was erased; {misplaced[i]}"
        if reason is None:
            erasures.append(Erasure(user, record.offset))
        else:
            rejected.append(Rejected(record, reason, i in misplaced and bool(user)))
    return erasures, rejected


# Station 2: records become columns; bad records and tombstones are told apart.
def decode_events(records: Sequence[Record], partition: int, admission: Admission) -> Decoded:
    """Decode one partition's records."""
    events, accepted, erasures, rejected = accept_events(records, partition, admission)
    return Decoded(partition, _columns(events, accepted, partition), erasures, rejected)


def _columns(events: Sequence[Event], records: Sequence[Record], partition: int) -> EventColumns:
    n = len(events)
    event_id = np.zeros(n, np.uint64)
    ids = [event.event_id for event in events]
    if any(ids):
        event_id[:] = [event_id_hash(name) if name else 0 for name in ids]
    return EventColumns(
        partition=np.full(n, partition, np.int32),
        user=[event.user_id for event in events],
        item=[event.item_id for event in events],
        type=type_hashes(types_of(events)),
        value=values_of(events).astype(np.float16),
        time=_times(events),
        event_id=event_id,
        offset=np.fromiter(map(_offset, records), np.int64, n),
    )


# Station 3: a micro-batch is cut at its tombstones.
def stretches(decoded: Sequence[Decoded]) -> Iterator[tuple[list[EventColumns], list[tuple[int, str]]]]:
    """Events to apply, at most one struct per partition, and (partition, user) to erase after them, so that
    every tombstone takes its turn.
    """
    ends = [
        np.searchsorted(part.events.offset, [erasure.offset for erasure in part.erasures]).tolist()
        for part in decoded
    ]
    starts = [0] * len(decoded)
    for turn in range(max(map(len, ends), default=0)):
        batches, erased = [], []
        for i, part in enumerate(decoded):
            if turn < len(ends[i]):
                batches.append(select_entries(part.events, slice(starts[i], ends[i][turn])))
                erased.append((part.partition, part.erasures[turn].user))
                starts[i] = ends[i][turn]
        yield batches, erased
    yield (
        [
            select_entries(part.events, slice(start, None)) if start else part.events
            for part, start in zip(decoded, starts, strict=True)
        ],
        [],
    )
