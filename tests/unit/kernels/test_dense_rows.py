"""What is added to a product with the item matrix."""

import numpy as np
import pytest
from numpy.typing import NDArray

from eddy.models.kernels.dense_rows import ITEMS_AT_ONCE, complete_dense

ITEMS, PADDED = 3 * ITEMS_AT_ONCE + 100, 4 * ITEMS_AT_ONCE
COLUMNS = 4


def _expected(
    raw: NDArray[np.float32], unit: float, weight: NDArray[np.float32], moving: NDArray[np.float32]
) -> NDArray[np.float64]:
    return (unit * raw.astype(np.float64) + weight.astype(np.float64) @ moving)[:, :ITEMS]


@pytest.mark.parametrize("columns", [0, 1, 5, 7])
@pytest.mark.parametrize("rise", [0.0, 300.0, -300.0])
@pytest.mark.parametrize("tile", [PADDED, 2 * ITEMS_AT_ONCE])
def test_scores_and_their_log_sum_are_right_however_scores_rise_along_a_row(
    columns: int, rise: float, tile: int
) -> None:
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((11, PADDED), np.float32)
    raw += np.float32(rise) * (np.arange(PADDED) // ITEMS_AT_ONCE).astype(np.float32)
    vector = rng.standard_normal((11, COLUMNS + columns), np.float32)
    moving = rng.standard_normal((columns, PADDED), np.float32)
    dense, unit = raw.copy(), np.full(11, 0.5, np.float32)
    shift, total = np.full(11, -np.inf, np.float32), np.zeros(11, np.float32)
    for at in range(0, PADDED, tile):
        complete_dense(unit, vector, moving, at, at + tile, ITEMS, True, dense, shift, total)
    expected = _expected(raw, 0.5, vector[:, COLUMNS:], moving)
    np.testing.assert_allclose(dense[:, :ITEMS], expected, rtol=1e-5, atol=1e-5)
    assert (dense[:, ITEMS:] == -np.inf).all()
    log_z = np.logaddexp.reduce(expected, axis=1)
    np.testing.assert_allclose(shift + np.log(total), log_z, rtol=2e-6, atol=2e-5)
