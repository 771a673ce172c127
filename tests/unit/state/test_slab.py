"""The slab takes stored rows, and its numbers mean the items that the rows name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eddy.models.hashing import item_hashes
from eddy.models.vocabulary import Catalogue
from eddy.stream.state.catalogue_indices import look_up
from eddy.stream.state.rows import WINDOW
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
