"""The row on `user-state`: bytes that never change, sizes that fit, and nothing read that is not
understood.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.config import CELLS, ModelConfig
from eddy.models.hashing import event_id_hash, item_hash, type_hash
from eddy.models.network.cells import make_cell
from eddy.stream.state.rows import (
    HEADER,
    NO_TIME,
    OLDER,
    TIME_SPAN,
    WINDOW,
    RowFormatError,
    Rows,
    decode_rows,
    encode_rows,
    row_size,
    splitmix64,
)
from tests.support.oracle import splitmix64 as splitmix64_of_one

GOLDEN = """
RUQCAhqhhlYBAgMABwAAAO/Nq4lnRSMBAAECAwQFBgcICQoLDA0ODwIAAAAqAAAAAAAAAAUAAADA3v7K/soNAOhXaPM7AQAA0Fto
8zsBAAAAAIA/AAAAwAAAAD8AAIC+AADAPwAAQMD0P1hoN7GD8gAAAAAAU6qwFhwAAH6QW97gSWi0G+gDAAAAOghLBREBAEe7og9P
vVsYjNJL2bKcNpo2
"""
"""The two-entry row below, as the first release wrote it. If this test fails, rows out there became
unreadable.
"""


def a_row() -> Rows:
    item, event_type = np.zeros((1, WINDOW), np.uint64), np.zeros((1, WINDOW), np.uint64)
    time, event_id = np.zeros((1, WINDOW), np.int64), np.zeros((1, WINDOW), np.uint64)
    value = np.full((1, WINDOW), np.nan, np.float16)
    item[0, :2] = [item_hash("tt0111161"), item_hash("tt0068646")]
    event_type[0, :2] = [type_hash("view"), type_hash("rating")]
    time[0, :2] = [1_356_998_400_976, 1_356_998_401_976]
    event_id[0, :2] = [event_id_hash("first"), event_id_hash("second")]
    value[0, :2] = [np.nan, 7]
    return Rows(
        user=[b"user-1"],
        epoch=np.array([7], np.uint32),
        version=np.array([0x0123456789ABCDEF], np.uint64),
        topic_id=bytes(range(16)),
        partition=np.array([2], np.int32),
        offset=np.array([42], np.int64),
        applied=np.array([5], np.uint32),
        digest=np.array([0x000DCAFECAFEDEC0], np.uint64),
        anchor_time=np.array([1_356_998_399_976], np.int64),
        hidden=np.array([[1.0, -2.0, 0.5]], np.float32),
        anchor=np.array([[-0.25, 1.5, -3.0]], np.float32),
        length=np.array([2], np.uint8),
        item=item,
        time=time,
        type=event_type,
        value=value,
        event_id=event_id,
        older=np.zeros((1, 0), np.uint64),
    )


@st.composite
def any_rows(draw: st.DrawFn) -> Rows:
    """Rows over the whole range of every field."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, size = draw(st.integers(1, 8)), draw(st.integers(1, 200))
    kinds = draw(st.sampled_from([1, 2, 3, 30, 1_000]))
    length = rng.integers(0, WINDOW, n).astype(np.uint8)
    filled = np.arange(WINDOW) < length[:, None]
    older = rng.integers(0, OLDER, n, endpoint=True) * (rng.random(n) < 0.5)
    most = int(older.max())
    anchored = rng.random(n) < 0.5
    first = rng.integers(0, 1 << 41, (n, 1))
    step = np.sort(rng.integers(0, TIME_SPAN, (n, WINDOW), endpoint=True), axis=1)
    step -= step[:, :1]

    def words(high: int, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, high, shape, np.uint64, endpoint=True)

    anchor = rng.normal(size=(n, size)).astype(np.float32)
    return Rows(
        user=[f"üser-{i}".encode() for i in range(n)],
        epoch=words(2**32 - 1, (n,)).astype(np.uint32),
        version=words(2**64 - 1, (n,)),
        topic_id=rng.bytes(16),
        partition=rng.integers(0, 2**31, n).astype(np.int32),
        offset=rng.integers(-1, 2**63 - 1, n),
        applied=words(2**32 - 1, (n,)).astype(np.uint32),
        digest=words(2**64 - 1, (n,)),
        anchor_time=np.where(anchored, rng.integers(0, 1 << 41, n), NO_TIME),
        hidden=rng.normal(size=(n, size)).astype(np.float32),
        anchor=np.where(anchored[:, None], anchor, np.float32(0)),
        length=length,
        item=np.where(filled, words(2**64 - 1, (n, WINDOW)), np.uint64(0)),
        time=np.where(filled, first + step, 0),
        type=np.where(filled, rng.choice(words(2**64 - 1, (kinds,)), (n, WINDOW)), np.uint64(0)),
        value=np.where(filled, rng.normal(size=(n, WINDOW)) * 100, np.nan).astype(np.float16),
        event_id=np.where(filled, words(2**40 - 1, (n, WINDOW)), np.uint64(0)),
        older=np.where(
            np.arange(most) < older[:, None], words(2**64 - 2, (n, most)) + np.uint64(1), np.uint64(0)
        ),
    )


def assert_equal(found: Rows, expected: Rows) -> None:
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)


def test_the_bytes_of_a_row_never_change() -> None:
    golden = base64.b64decode(GOLDEN)
    assert encode_rows(a_row()) == [golden]
    (found,) = decode_rows([b"user-1"], [golden])
    assert_equal(found, a_row())


@given(rows=any_rows())
def test_what_was_encoded_is_decoded_again(rows: Rows) -> None:
    (found,) = decode_rows(rows.user, encode_rows(rows))
    assert_equal(found, rows)


@pytest.mark.parametrize("cell", CELLS)
def test_a_full_row_of_128_units_takes_the_stated_bytes(cell: str) -> None:
    size = make_cell(ModelConfig(cell=cell, hidden=128)).state_size
    full = row_size(size, WINDOW - 1, anchor=True, types=2)
    young = row_size(size, 1, anchor=False, types=1)
    assert (young, full) == (1133, 3173) if cell in ("lstm", "mingru") else (621, 2149)
    assert cell != "gru" or full <= 2200
    assert row_size(size, WINDOW - 1, anchor=True, types=2, older=OLDER) == full + 4088


def test_a_row_is_as_long_as_row_size_says() -> None:
    assert len(encode_rows(a_row())[0]) == row_size(3, 2, anchor=True, types=2)
    young = replace(a_row(), anchor_time=np.array([NO_TIME]), anchor=np.zeros((1, 3), np.float32))
    assert len(encode_rows(young)[0]) == row_size(3, 2, anchor=False, types=2)
    old = replace(a_row(), older=np.array([[5, 4, 3]], np.uint64))
    assert len(encode_rows(old)[0]) == row_size(3, 2, anchor=True, types=2, older=3)
    alike = replace(a_row(), type=np.where(a_row().type > 0, np.uint64(7), np.uint64(0)))
    assert len(encode_rows(alike)[0]) == row_size(3, 2, anchor=True, types=1)


def test_no_rows_have_no_bytes() -> None:
    row = a_row()
    columns = {name: column[:0] for name, column in vars(row).items() if name != "topic_id"}
    assert encode_rows(replace(row, **columns)) == []


def resealed(value: bytearray) -> bytes:
    value[4:8] = zlib.crc32(bytes(value[8:])).to_bytes(4, "little")
    return bytes(value)


def test_another_format_is_refused_by_name() -> None:
    value = bytearray(encode_rows(a_row())[0])
    value[2] = 99
    with pytest.raises(RowFormatError, match=r"user 'user-1' has a format .*format 99 .*version of Eddy"):
        decode_rows([b"user-1"], [resealed(value)])
    value[2] = 1  # types by 16 bits of their hashes: nothing tells which they were
    with pytest.raises(RowFormatError, match=r"user 'user-1' has a format .*format 1 .*version of Eddy"):
        decode_rows([b"user-1"], [resealed(value)])
    foreign = resealed(bytearray(b"{" * len(value)))
    with pytest.raises(RowFormatError, match="user 'user-1' has a format"):
        decode_rows([b"user-1"], [foreign])


@given(at=st.integers(8, row_size(3, 2, anchor=True, types=2) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    value = bytearray(encode_rows(a_row())[0])
    value[at] ^= flip
    with pytest.raises(RowFormatError, match="user 'user-1' does not match its checksum"):
        decode_rows([b"user-1"], [bytes(value)])


@given(size=st.integers(0, row_size(3, 2, anchor=True, types=2) - 1))
def test_a_cut_row_is_refused(size: int) -> None:
    with pytest.raises(RowFormatError, match="user-1"):
        decode_rows([b"user-1"], [encode_rows(a_row())[0][:size]])


@given(value=st.binary(max_size=300))
def test_any_other_bytes_are_refused_and_nothing_else_is_raised(value: bytes) -> None:
    with pytest.raises(RowFormatError):
        decode_rows([b"u"], [value])


def test_a_length_that_does_not_fit_is_refused_even_with_a_right_checksum() -> None:
    value = bytearray(encode_rows(a_row())[0])
    for entries in (1, 3, WINDOW, 255):
        value[3] = entries
        with pytest.raises(RowFormatError, match="length that does not fit"):
            decode_rows([b"user-1"], [resealed(value)])
    value = bytearray(encode_rows(a_row())[0])
    with pytest.raises(RowFormatError, match="length that does not fit"):
        decode_rows([b"user-1"], [resealed(value + bytes(8 * (OLDER + 1)))])


def test_an_entry_of_a_type_that_the_row_does_not_name_is_refused() -> None:
    value = bytearray(encode_rows(a_row())[0])
    last_type = row_size(3, 2, anchor=True, types=0) - 3  # before the two bytes of the last value
    assert value[last_type] == 1
    value[last_type] = 2
    with pytest.raises(RowFormatError, match="user 'user-2' has an entry of a type that it does not name"):
        decode_rows([b"user-1", b"user-2"], [encode_rows(a_row())[0], resealed(value)])


def test_rows_of_two_models_come_out_in_two_groups() -> None:
    wide = replace(a_row(), hidden=np.ones((1, 5), np.float32), anchor=np.ones((1, 5), np.float32))
    groups = decode_rows([b"a", b"b"], encode_rows(a_row()) + encode_rows(wide))
    assert [(group.user, group.hidden.shape[1]) for group in groups] == [([b"a"], 3), ([b"b"], 5)]


@given(offsets=st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_hashes_of_offsets_are_splitmix64(offsets: list[int]) -> None:
    assert splitmix64(np.array(offsets)).tolist() == [splitmix64_of_one(offset) for offset in offsets]


def test_the_header_has_the_documented_size() -> None:
    assert HEADER.itemsize == 80
