"""Item statistics on `item-stats`: for each source partition a base now and then, and a journal of what was
counted.

A journal record holds the counted events of one checkpoint (item, time, the user's items before) and is
written in the same transaction as the rows that those events changed; every `BASE_EVERY` records the whole
sums are written as a base. Readers apply records strictly by their sequence numbers, so repeats and
compaction are harmless, and a restored worker, its peers and the servers all hold, to the bit, what the owner
held. A journal record takes some 50 bytes an event; whole sums at every checkpoint would take 2 KB.

A base names the half-lives that it holds, and each partition is counted with those of its base, in every
process alike. So processes whose versions ask for others, as in every rollout, read each other's records;
what a partition lacks for a version comes with a base of its owner (`eddy.stream.worker.statistics_fill`).
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.untrusted import FAILURES, Unreadable, decoded
from eddy.models.vocabulary import Catalogue
from eddy.stream.records.messages import Message

BASE_EVERY = 256
RING = 1024
"""Journal keys are used again after this many records, which are more than lie between two bases."""

PART_BYTES = 4 << 20
JOURNAL_FORMAT = 1
BASE_FORMAT, UNNAMED_HALF_LIVES = 2, 1
"""In the older format of bases, half-lives have no names: they are those of the version of the time."""


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    shape: list[int]
    data: bytes


class _Part(msgspec.Struct, array_like=True):
    """A piece of a base."""

    format: int
    sequence: int
    offset: int
    part: int
    parts: int
    data: bytes


class _Journal(msgspec.Struct, array_like=True):
    format: int
    sequence: int
    offset: int
    """the last record of `events` that is included"""
    items: _Array
    """uint64 hashes of the distinct items; the columns below point into them"""
    item: _Array
    time: _Array
    previous: _Array


_encode = msgspec.msgpack.Encoder().encode
_decode_part = msgspec.msgpack.Decoder(_Part).decode
_decode_base = msgspec.msgpack.Decoder(dict[str, _Array]).decode
_DTYPES = frozenset(("<u8", "<i8", "<i4", "<u4", "<f4", "<f8"))


def _pack(array: NDArray[np.generic]) -> _Array:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return _Array(little.dtype.str, list(little.shape), little.tobytes())


def _unpack(array: _Array) -> NDArray[np.generic]:
    if array.dtype not in _DTYPES:
        raise Unreadable(f"unknown type {array.dtype!r}")
    return decoded(lambda data: np.frombuffer(data, array.dtype).reshape(array.shape), array.data)


@dataclass(frozen=True)
class Counted:
    """n counted events of one partition in the order they were counted."""

    item: NDArray[np.int64]
    time: NDArray[np.int64]
    previous: NDArray[np.int64]
    """[n, lags], -1 = none"""
    offset: int
    """of the last of them on `events`"""

    def renumbered(self, place: NDArray[np.int64]) -> "Counted":
        """The same events after items got other numbers: place[N] of each, -1 for one that left."""
        previous = np.where(self.previous >= 0, place[self.previous], -1)
        return Counted(place[self.item], self.time, previous, self.offset)


@dataclass
class Journal:
    """The writing side for one owned partition: call `note_counted` after counting, and `drain_records` at
    each checkpoint.
    """

    partition: int
    sequence: int
    """of the last record that was written or read"""
    offset: int
    """the last record of `events` that is counted"""
    since_base: int = BASE_EVERY
    known: dict[int, int] = field(default_factory=dict)
    """`StatisticsReader.sequence` of this process, so that it does not count again what comes back from here
    """
    _noted: list[Counted] = field(default_factory=list)

    def note_counted(self, counted: Counted) -> None:
        """Remember what `Statistics.count_events` was just given."""
        self._noted.append(counted)
        self.offset = max(self.offset, counted.offset)

    def rewrite(self) -> None:
        """Write a base at the next `drain_records`: the sums changed by more than events."""
        self.since_base = BASE_EVERY
        nothing = np.zeros(0, np.int64)
        self.note_counted(Counted(nothing, nothing, np.zeros((0, 1), np.int64), self.offset))

    def drain_records(self, statistics: Statistics, catalogue: Catalogue) -> Callable[[], list[Message]]:
        """Returns a function that makes the records (key, value) that bring readers to where the statistics
        are now. It may be called on any thread: it works on copies, which later events do not change.
        """
        if not self._noted:
            return list
        noted, self._noted = self._noted, []
        self.sequence += 1
        self.known[self.partition] = self.sequence
        self.since_base += 1
        if self.since_base >= BASE_EVERY:  # it says all that the journal record would say
            self.since_base = 0
            return self._base(statistics.export_partition(self.partition, catalogue.hashes))
        sequence, offset, hashes = self.sequence, self.offset, catalogue.hashes
        key = f"{self.partition}/journal/{sequence % RING}".encode()
        # One entry per call of `count_events`: readers repeat the same calls, so their sums round alike.
        return lambda: [(key, _encode([_journal(sequence, offset, counted, hashes) for counted in noted]))]

    def _base(self, arrays: Mapping[str, NDArray[Any]]) -> Callable[[], list[Message]]:
        partition, sequence, offset = self.partition, self.sequence, self.offset

        def records() -> list[Message]:
            blob = zlib.compress(_encode({name: _pack(array) for name, array in arrays.items()}), 1)
            pieces = [blob[start : start + PART_BYTES] for start in range(0, len(blob), PART_BYTES)]
            return [
                (
                    f"{partition}/base/{i}".encode(),
                    _encode(_Part(BASE_FORMAT, sequence, offset, i, len(pieces), piece)),
                )
                for i, piece in enumerate(pieces)
            ]

        return records


def _journal(sequence: int, offset: int, counted: Counted, hashes: NDArray[np.uint64]) -> _Journal:
    """One update as it is written: items by their place among the distinct hashes, 0 standing for no item. It
    takes time in proportion to the events, whatever the size of the catalogue.
    """
    index = np.concatenate((counted.item, counted.previous.ravel())) + 1  # 0 = none
    place = np.empty(len(hashes) + 1, np.uint32)  # only what is written is read
    position = np.arange(len(index), dtype=np.uint32)
    place[index] = position  # of several for one item the last stays
    distinct = np.sort(index[place[index] == position])
    place[distinct] = np.arange(len(distinct))
    n, column = len(counted.item), place[index]
    named = np.where(distinct > 0, hashes[distinct - 1], np.uint64(0))
    previous = column[n:].reshape(counted.previous.shape)
    return _Journal(
        JOURNAL_FORMAT,
        sequence,
        offset,
        _pack(named),
        _pack(column[:n]),
        _pack(counted.time),
        _pack(previous),
    )


_decode_journals = msgspec.msgpack.Decoder(list[_Journal]).decode


class StatisticsReader:
    """The reading side for all partitions: applies records by their sequence numbers; records that it applied
    before change nothing.
    """

    def __init__(self, statistics: Statistics, catalogue: Catalogue) -> None:
        self.statistics = statistics
        self.catalogue = catalogue
        self._first_half_lives = statistics.half_lives_ms
        """those of the version that this process began with"""
        self.sequence: dict[int, int] = {}
        self.offset: dict[int, int] = {}
        """by partition: the last record of `events` that is counted"""
        self.seen: dict[int, int] = {}
        """by partition: the greatest sequence of any record, also of those that wait for a base"""
        self._parts: dict[int, list[_Part]] = {}

    def forget_partition(self, partition: int) -> None:
        """Start over with a partition of which memory may be ahead of what is durable."""
        self.sequence.pop(partition, None)
        self.seen.pop(partition, None)
        self.offset.pop(partition, None)
        self._parts.pop(partition, None)
        self.statistics.forget_partition(partition)

    def apply_records(self, partition: int, values: Sequence[tuple[bytes | None, bytes | None]]) -> list[str]:
        """Apply records (key, value) of one partition in log order. Returns a message for each record that
        cannot be read and was passed over.

        Where a sequence number shows that one of the owner's records is missing, the sums stay as they are
        until the next base. Errors: EddyError for a record of another version of Eddy.
        """
        unreadable = []
        for key, value in values:
            if key is None or value is None:
                continue
            try:
                if b"/base/" in key:
                    self._take_part(partition, decoded(_decode_part, value))
                else:
                    self._take_journal(partition, decoded(_decode_journals, value))
            except Unreadable as reason:
                unreadable.append(f"item-stats partition {partition}, key {key!r}: unreadable ({reason})")
        return unreadable

    def _take_part(self, partition: int, part: _Part) -> None:
        _require_format(part.format, (UNNAMED_HALF_LIVES, BASE_FORMAT))
        self._see(partition, part.sequence)
        if part.sequence <= self.sequence.get(partition, -1):
            self.offset[partition] = max(part.offset, self.offset.get(partition, -1))
            return
        parts = self._parts.setdefault(partition, [])
        if parts and parts[0].sequence != part.sequence:
            parts.clear()
        parts.append(part)
        if len(parts) == part.parts:
            pieces = [piece.data for piece in sorted(parts, key=lambda piece: piece.part)]
            parts.clear()
            self._replace(partition, pieces, part.format)
            self.sequence[partition] = part.sequence
            self.offset[partition] = part.offset

    def _replace(self, partition: int, pieces: Sequence[bytes], format: int) -> None:
        try:
            blob = zlib.decompress(b"".join(pieces))
            arrays = {name: _unpack(array) for name, array in decoded(_decode_base, blob).items()}
            if format == UNNAMED_HALF_LIVES:
                arrays |= self._named(arrays)
            self.statistics.replace_partition(partition, arrays, self.catalogue)
        except (zlib.error, EddyError, TypeError, IndexError, *FAILURES) as error:
            raise Unreadable(f"a base that is none: {error}") from None

    def _named(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What a base of the older format does not say. If it holds another number of half-lives than the
        version that this process began with, it is of an older version, and counts as one that lacks them
        all.
        """
        lives = self._first_half_lives
        if len(lives) == len(arrays["popularity"]) == len(arrays["reference"]):
            return {"half_lives": np.array(lives, np.int64), "since": np.full(len(lives), -np.inf)}
        none = np.zeros(0)
        popularity = np.zeros((0, len(arrays["item"])))
        return {
            "half_lives": none.astype(np.int64),
            "since": none,
            "popularity": popularity,
            "reference": none,
        }

    def _take_journal(self, partition: int, journals: list[_Journal]) -> None:
        if not journals:
            return
        for journal in journals:
            _require_format(journal.format, (JOURNAL_FORMAT,))
        self._see(partition, journals[0].sequence)
        if journals[0].sequence <= self.sequence.get(partition, -1):
            self.offset[partition] = max(journals[0].offset, self.offset.get(partition, -1))
            return
        if journals[0].sequence != self.sequence.get(partition, -2) + 1:
            return  # older than the base that is to come
        for counted in [self._counted(journal) for journal in journals]:  # none is applied unless all can be
            self.statistics.count_events(partition, *counted)
        self.sequence[partition] = journals[0].sequence
        self.offset[partition] = journals[0].offset

    def _see(self, partition: int, sequence: int) -> None:
        self.seen[partition] = max(sequence, self.seen.get(partition, -1))

    def _counted(self, journal: _Journal) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Items, times and previous items, as `Statistics.count_events` takes them. Errors: Unreadable."""
        hashes = np.asarray(_unpack(journal.items), np.uint64)
        item, time, previous = (
            np.asarray(_unpack(column), np.int64) for column in (journal.item, journal.time, journal.previous)
        )
        within = all(column.min(initial=0) >= 0 for column in (item, previous)) and all(
            column.max(initial=-1) < len(hashes) for column in (item, previous)
        )
        if not within or hashes.ndim != 1 or item.ndim != 1 or item.shape != time.shape:
            raise Unreadable("columns of a journal that do not fit together")
        if previous.ndim != 2 or len(previous) != len(item) or (hashes[item] == 0).any():
            raise Unreadable("columns of a journal that do not fit together")
        index = np.full(len(hashes), -1, np.int64)
        index[hashes != 0] = self.catalogue.add(hashes[hashes != 0])
        return index[item], time, index[previous]


def _require_format(number: int, readable: tuple[int, ...]) -> None:
    if number not in readable:
        raise EddyError(
            f"item-stats is in format {number}, this program reads {' and '.join(map(str, readable))}: use "
            "the version of Eddy that wrote it"
        )


__all__ = ["BASE_EVERY", "RING", "Counted", "Journal", "StatisticsReader"]
