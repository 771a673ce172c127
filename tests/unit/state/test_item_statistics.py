"""Item statistics through base and journal: whoever reads them holds, to the bit, what the writer holds."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.records.messages import Message
from eddy.stream.state.item_statistics import (
    BASE_EVERY,
    BASE_FORMAT,
    JOURNAL_FORMAT,
    RING,
    Counted,
    Journal,
    StatisticsReader,
)

LIVES, SUCCESSORS, LAGS = (86_400_000, 3_600_000), 4, 3


class Writer:
    """An owner's side: statistics, and the records that its checkpoints wrote."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.catalogue = Catalogue()
        self.catalogue.add(np.arange(1, 60, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        self.statistics = Statistics(LIVES, SUCCESSORS)
        self.journal = Journal(0, -1, -1)
        self.log: list[Message] = []
        self.offset = 0

    def batch(self) -> None:
        n = int(self.rng.integers(1, 20))
        self.offset += n
        item = self.rng.integers(0, 59, n)
        time = 1_380_000_000_000 + self.offset * 50_000 + self.rng.integers(0, 10**6, n)
        previous = self.rng.integers(-1, 59, (n, LAGS))
        counted = Counted(item, time, previous, self.offset)
        self.statistics.count_events(0, item, time, previous)
        self.journal.note_counted(counted)

    def checkpoint(self) -> None:
        self.log += self.journal.drain_records(self.statistics, self.catalogue)()


def new_reader() -> StatisticsReader:
    return StatisticsReader(Statistics(LIVES, SUCCESSORS), Catalogue())


def compacted(log: list[Message], until: int) -> list[Message]:
    """What the log cleaner leaves of the first `until` records: the last of each key, in place."""
    last = {key: i for i, (key, _) in enumerate(log[:until])}
    return [record for i, record in enumerate(log) if i >= until or last[record[0]] == i]


def sums(statistics: Statistics, catalogue: Catalogue) -> dict[str, bytes]:
    """Everything that is counted, named by hash and so comparable between numberings."""
    arrays = statistics.export_partition(0, catalogue.hashes)
    by_item = np.argsort(arrays["item"])
    by_source = np.argsort(arrays["source"])
    return {
        "half_lives": arrays["half_lives"].tobytes(),
        "since": arrays["since"].tobytes(),
        "item": arrays["item"][by_item].tobytes(),
        "popularity": arrays["popularity"][:, by_item].tobytes(),
        "reference": arrays["reference"].tobytes(),
        "source": arrays["source"][by_source].tobytes(),
        "successor": arrays["successor"][by_source].tobytes(),
        "count": arrays["count"][by_source].tobytes(),
        "total": arrays["total"][by_source].tobytes(),
        "transition_reference": arrays["transition_reference"].tobytes(),
    }


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_reader_that_joins_at_any_point_after_compaction_holds_the_writer_s_sums(
    seed: int, data: st.DataObject
) -> None:
    writer = Writer(seed)
    checkpoints = data.draw(st.integers(1, 2 * BASE_EVERY + 20))
    for _ in range(checkpoints):
        for _ in range(int(writer.rng.integers(0, 3))):
            writer.batch()
        writer.checkpoint()
    log = compacted(writer.log, data.draw(st.integers(0, len(writer.log))))
    reader = new_reader()
    half = data.draw(st.integers(0, len(log)))
    reader.apply_records(0, log[:half])
    again = data.draw(st.integers(0, half))
    reader.apply_records(0, log[again:half])  # what was read before may be read again
    reader.apply_records(0, log[half:])
    assert sums(reader.statistics, reader.catalogue) == sums(writer.statistics, writer.catalogue)
    assert reader.offset.get(0, -1) == writer.journal.offset


def test_a_new_owner_goes_on_from_what_it_read() -> None:
    first = Writer(1)
    for _ in range(10):
        first.batch()
        first.checkpoint()
    second = Writer(2)
    reader = StatisticsReader(second.statistics, second.catalogue)
    reader.apply_records(0, first.log)
    second.journal = Journal(0, reader.sequence[0], reader.offset[0])
    second.offset = first.offset
    for _ in range(10):
        second.batch()
        second.checkpoint()
    bystander = new_reader()
    bystander.apply_records(0, first.log + second.log)
    assert sums(bystander.statistics, bystander.catalogue) == sums(second.statistics, second.catalogue)


def test_what_was_never_written_is_forgotten_when_the_partition_is_read_anew() -> None:
    writer = Writer(3)
    for _ in range(5):
        writer.batch()
        writer.checkpoint()
    reader = new_reader()
    reader.apply_records(0, writer.log)
    durable = sums(reader.statistics, reader.catalogue)
    reader.statistics.count_events(0, np.array([1]), np.array([1_390_000_000_000]), np.array([[2, 3, -1]]))
    reader.forget_partition(0)
    reader.apply_records(0, writer.log)
    assert sums(reader.statistics, reader.catalogue) == durable


def test_journal_keys_are_used_again_only_after_two_bases() -> None:
    assert RING > 2 * BASE_EVERY


def test_an_owner_s_own_records_come_back_and_change_nothing() -> None:
    owner = Writer(5)
    follower = StatisticsReader(owner.statistics, owner.catalogue)
    owner.journal = Journal(0, -1, -1, known=follower.sequence)
    for _ in range(BASE_EVERY + 20):  # a base comes back, too
        written = len(owner.log)
        owner.batch()
        owner.checkpoint()
        owner.batch()  # counted before the records of the checkpoint are read back
        before = sums(owner.statistics, owner.catalogue)
        follower.apply_records(0, owner.log[written:])
        assert sums(owner.statistics, owner.catalogue) == before
        assert follower.offset[0] < owner.journal.offset  # of what is durable


def test_records_are_of_the_moment_of_the_checkpoint_however_late_they_are_made() -> None:
    writer, prompt = Writer(6), Writer(6)
    late, at_once = [], []
    for _ in range(BASE_EVERY + 3):  # bases, too
        writer.batch()
        prompt.batch()
        late.append(writer.journal.drain_records(writer.statistics, writer.catalogue))
        at_once += prompt.journal.drain_records(prompt.statistics, prompt.catalogue)()
        writer.catalogue.add(np.array([len(late)], np.uint64))
        prompt.catalogue.add(np.array([len(late)], np.uint64))
    assert [record for make in late for record in make()] == at_once


def test_nothing_counted_writes_nothing() -> None:
    writer = Writer(4)
    writer.checkpoint()
    assert writer.log == []


@pytest.mark.parametrize("key", [b"3/journal/7", b"3/base/0", b"\xff"])
def test_unreadable_bytes_are_passed_over_with_one_line_that_names_their_place(key: bytes) -> None:
    (reason,) = new_reader().apply_records(3, [(key, b"\xc1 not ours")])
    assert f"item-stats partition 3, key {key!r}: unreadable" in reason


def test_a_record_that_cannot_be_read_changes_nothing_and_the_owners_next_base_makes_up_for_it() -> None:
    writer, reader = Writer(7), new_reader()
    for _ in range(BASE_EVERY + 2):
        writer.batch()
        writer.checkpoint()
    garbage = [(b"0/journal/3", b"\xc1"), (b"anything", b"{}")]
    log = [*writer.log[:3], garbage[0], *writer.log[4:9], garbage[1]]  # it took the place of a record
    assert len(reader.apply_records(0, log)) == 2
    assert reader.sequence[0] == 2, "records behind the gap wait"
    assert reader.seen[0] == 8, "but an owner knows what others have seen"
    assert reader.apply_records(0, writer.log[9:]) == []
    assert sums(reader.statistics, reader.catalogue) == sums(writer.statistics, writer.catalogue)


def test_a_record_of_another_format_is_not_passed_over_but_ends_the_reader() -> None:
    writer = Writer(8)
    writer.batch()
    writer.checkpoint()
    writer.batch()
    writer.checkpoint()
    places = ((1, BASE_FORMAT, "1 and 2"), (2, JOURNAL_FORMAT, "1"))  # a base, and a list of one journal
    for (key, value), (place, newest, readable) in zip(writer.log, places, strict=True):
        other = bytearray(value or b"")
        assert other[place] == newest
        other[place] = newest + 1
        with pytest.raises(EddyError, match=f"in format {newest + 1}, this program reads {readable}: use"):
            new_reader().apply_records(0, [(key, bytes(other))])


def of_older_format(record: Message, half_lives: int) -> Message:
    """A base as it was written before half-lives had names, with so many of them."""
    key, value = record
    number, sequence, offset, part, parts, data = msgspec.msgpack.decode(value or b"")
    assert (number, part, parts) == (BASE_FORMAT, 0, 1)
    arrays = msgspec.msgpack.decode(zlib.decompress(data))
    del arrays["half_lives"], arrays["since"]
    for name in ("popularity", "reference"):
        dtype, shape, column = arrays[name]
        rows = np.frombuffer(column, dtype).reshape(shape)[:half_lives]
        arrays[name] = dtype, rows.shape, rows.tobytes()
    blob = zlib.compress(msgspec.msgpack.encode(arrays))
    return key, msgspec.msgpack.encode((1, sequence, offset, part, parts, blob))


def test_a_base_of_the_older_format_is_read_with_the_half_lives_of_the_reader_s_first_version() -> None:
    writer, reader = Writer(9), new_reader()
    reader.statistics.widen((3 * LIVES[0],), SUCCESSORS)  # for a later version
    for _ in range(3):
        writer.batch()
        writer.checkpoint()
    assert reader.apply_records(0, [of_older_format(writer.log[0], 2), *writer.log[1:]]) == []
    assert sums(reader.statistics, reader.catalogue) == sums(writer.statistics, writer.catalogue)
    assert reader.statistics.lacking(0) == (3 * LIVES[0],)


def test_a_base_of_the_older_format_with_other_half_lives_keeps_its_transitions() -> None:
    writer, reader = Writer(10), new_reader()
    for _ in range(3):
        writer.batch()
        writer.checkpoint()
    assert reader.apply_records(0, [of_older_format(writer.log[0], 1), *writer.log[1:]]) == []
    assert reader.statistics.lacking(0) == LIVES
    ours, theirs = (sums(*held) for held in (
        (reader.statistics, reader.catalogue), (writer.statistics, writer.catalogue)
    ))  # fmt: skip
    for column in ("source", "successor", "count", "total"):
        assert ours[column] == theirs[column]


def test_processes_with_other_half_lives_and_successors_read_each_other_to_the_bit() -> None:
    """A rollout: an owner goes to a wider version, and moves to a process that is still at the narrow one."""
    wider = (3 * LIVES[0], LIVES[1])
    owner, catalogue = Writer(11), Catalogue()
    behind = new_reader()
    behind.catalogue.add(owner.catalogue.hashes)
    ahead = StatisticsReader(Statistics(wider, 2 * SUCCESSORS), catalogue)

    def read_by_both(first: int) -> None:
        for reader in (behind, ahead):
            assert reader.apply_records(0, owner.log[first:]) == []
            assert sums(reader.statistics, reader.catalogue) == sums(owner.statistics, owner.catalogue)

    # 1. The owner is behind.
    for _ in range(3):
        owner.batch()
        owner.checkpoint()
    read_by_both(0)
    assert ahead.statistics.lacking(0) == (3 * LIVES[0],)
    assert ahead.statistics.lacks_successors(0)
    # 2. It widens, and writes all that it has.
    owner.statistics.widen(wider, 2 * SUCCESSORS)
    apart = Statistics((3 * LIVES[0],), 1)
    apart.count_events(0, np.array([1, 2]), np.full(2, 1_380_000_000_000), np.full((2, 1), -1))
    arrays = apart.export_partition(0, owner.catalogue.hashes)
    owner.statistics.fill_partition(0, arrays, owner.catalogue, since=-np.inf)
    owner.statistics.add_successors(0)
    owner.journal.rewrite()
    written = len(owner.log)
    owner.checkpoint()
    owner.batch()
    owner.checkpoint()
    read_by_both(written)
    assert ahead.statistics.lacking(0) == ()
    assert not ahead.statistics.lacks_successors(0)
    # 3. A process that is behind takes the partition over: nothing that others ask for gets lost.
    owner.statistics, owner.catalogue = behind.statistics, behind.catalogue
    owner.journal = Journal(0, behind.sequence[0], behind.offset[0])
    written = len(owner.log)
    for _ in range(3):
        owner.batch()
        owner.checkpoint()
    assert ahead.apply_records(0, owner.log[written:]) == []
    assert sums(ahead.statistics, ahead.catalogue) == sums(behind.statistics, behind.catalogue)
    behind.statistics.widen(wider, 2 * SUCCESSORS)
    assert behind.statistics.lacking(0) == ()
