"""The slab takes stored rows, and its numbers mean the items that the rows name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eddy.models.hashing import item_hashes
from eddy.models.vocabulary import Catalogue
from eddy.stream.state.catalogue_indices import look_up
from eddy.stream.state.rows import WINDOW, Rows
from eddy.stream.state.slab import Slab
from tests.support.engines import Happening, batch, new_engine, random_version, stored_rows


def test_items_that_got_other_numbers_after_they_were_looked_up_are_looked_up_anew(tmp_path: Path) -> None:
    """A snapshot is loaded in parts, and items may leave the catalogue between two of them."""
    engine = new_engine(random_version(tmp_path))
    happenings = [Happening("ada", f"item-{i}", 1_000 * i) for i in range(10)]
    engine.apply([batch(happenings, range(10))])
    rows = stored_rows(engine)
    catalogue = Catalogue(item_hashes(["leaves"]))
    filled = np.arange(WINDOW) < rows.length[:, None]
    indices = look_up(rows, catalogue)
    catalogue.keep(np.arange(1, len(catalogue)))
    slab = Slab(rows.hidden.shape[1], capacity=1)
    slots = slab.load_rows(rows, catalogue, indices)
    np.testing.assert_array_equal(catalogue.hashes[slab.item[slots]][filled], rows.item[filled])


def row_of(folder: Path, items: Sequence[int], offset: int = 0, user: str = "ada") -> Rows:
    """A user's row after events of these items, the first of which has this offset."""
    engine = new_engine(random_version(folder))
    happenings = [Happening(user, f"item-{item}", 1_000 * i) for i, item in enumerate(items)]
    engine.apply([batch(happenings, range(offset, offset + len(items)))])
    return stored_rows(engine)


def test_a_shorter_row_leaves_nothing_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    """Of a user who was erased and came back, a reader may see the newest row only. The items that nothing
    else names may then leave the catalogue, and the others get lower numbers.
    """
    catalogue = Catalogue()
    long, short = row_of(tmp_path / "long", range(150)), row_of(tmp_path / "short", range(150, 210), 150)
    slab = Slab(long.hidden.shape[1], capacity=1)
    slab.load_rows(long, catalogue)
    slab.load_rows(replace(short, version=long.version), catalogue)
    slab.renumber(catalogue.keep(np.flatnonzero(slab.mentioned(len(catalogue)))))
    assert len(catalogue) == 60
    other = row_of(tmp_path / "other", 4 * list(range(150, 210)), user="bob")
    slab.load_rows(other, catalogue)
    assert slab.older_count.max() == 60
    assert slab.mentioned(len(catalogue)).all()
