"""Ids hash the same everywhere: the values below are written in users' topics."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models import hashing
from eddy.models.hashing import event_id_hash, item_hash, item_hashes, type_hash


def test_hashes_are_xxh3_of_the_utf8_bytes() -> None:
    # Reference values of XXH3_64bits (xxHash 0.8, seed 0) for "" and "a".
    assert item_hash("") == 0x2D06800538D394C2
    assert item_hash("a") == 0xE6C632B61E964E1F


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_many_ids_hash_as_each_of_them(ids: list[str]) -> None:
    assert item_hashes(ids).tolist() == [item_hash(id_) for id_ in ids]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_hashes_fit_their_width_and_are_never_zero(text: str) -> None:
    assert 0 < item_hash(text) < 2**64
    assert 0 < type_hash(text) < 2**64
    assert 0 < event_id_hash(text) < 2**40


def test_a_hash_whose_kept_bits_are_zero_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_but(kept: int) -> Callable[[str], int]:
        return lambda text: 2**64 - 1 - kept

    monkeypatch.setattr(hashing, "_xxh3", none_but(2**64 - 1))
    assert item_hash("a") == type_hash("never hashed before") == 1
    monkeypatch.setattr(hashing, "_xxh3", none_but(2**40 - 1))
    assert event_id_hash("a") == 1


def test_types_that_shared_16_bits_of_their_hashes_are_different() -> None:
    assert (type_hash("page_31292") ^ type_hash("dislike")) & 0xFFFF == 0, "once the whole hash of a type"
    assert type_hash("page_31292") != type_hash("dislike")
