"""Compiled loops from decayed counts to the popularity columns of the score, for all items: logarithms of
shares, and the learned functions of them (`Recommender.trend`). torch needs ten times as long, because each
of its steps goes through the memory.

F half-lives, N items, H hidden units and T outputs of the learned functions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, compiled
from eddy.models.kernels.compiled_maths import LOG2_E, ONE, ZERO, exp2, log

ITEMS_AT_ONCE = 1024
"""Items whose columns stay in the first caches."""

_TWO = np.float32(2)


class TrendLayers(NamedTuple):
    """T functions: output · tanh(hidden · log shares + hidden bias) + output bias."""

    hidden: Floats  # [H,F]
    hidden_bias: Floats  # [H]
    output: Floats  # [T,H]
    output_bias: Floats  # [T]


@compiled
def add_decayed(popularity: NDArray[np.float64], decay: np.float64, total: NDArray[np.float64]) -> None:
    """total[N] += decay · popularity[N]"""
    for j in range(len(total)):
        total[j] += decay * popularity[j]


@compiled
def fill_popularity_columns(
    counts: NDArray[np.float64], floor: np.float32, total: Floats, trend: TrendLayers, columns: Floats
) -> None:
    """Write log((count + floor) / total[F]) of counts[F,N] into the first F rows of columns[F + T, N or
    more], and the learned functions of them into the other T.
    """
    lives, items = counts.shape
    log_total = np.log(total)
    unit = np.empty(ITEMS_AT_ONCE, np.float32)
    for start in range(0, items, ITEMS_AT_ONCE):
        stop = min(start + ITEMS_AT_ONCE, items)
        n = stop - start
        for f in range(lives):
            column, of_life = columns[f, start:stop], counts[f, start:stop]
            for j in range(n):
                column[j] = log(np.float32(of_life[j]) + floor) - log_total[f]
        for t in range(len(trend.output)):
            columns[lives + t, start:stop] = trend.output_bias[t]
        for h in range(len(trend.hidden)):
            unit[:n] = trend.hidden_bias[h]
            for f in range(lives):
                column, weight = columns[f, start:stop], trend.hidden[h, f]
                for j in range(n):
                    unit[j] += weight * column[j]
            for j in range(n):  # tanh
                unit[j] = _TWO / (ONE + exp2(unit[j] * (-_TWO * LOG2_E))) - ONE
            for t in range(len(trend.output)):
                column, weight = columns[lives + t, start:stop], trend.output[t, h]
                for j in range(n):
                    column[j] += weight * unit[j]
    for f in range(len(columns)):
        columns[f, items:] = ZERO
