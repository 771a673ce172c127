"""What each event of a recent window has done for items, told by leaving it out.

The cell reads the window again from its anchor once for each event, each time without that event, all of them
as one batch: T windows of T - 1 events. What an item loses without an event is what the event has done for
it, whatever way through the gates that took.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.network.recommender import Recommender
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Inputs, Query
from eddy.stream.engine.cell_windows import CellWindow

COMPARED_ITEMS = 4_096
"""An item's share of all likelihood is told by so many items, evenly from the catalogue."""


@torch.inference_mode()
def shares_lost(
    recommender: Recommender, scorer: Scorer, window: CellWindow, idle_ms: float, items: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The share of the likelihood that items[S] have by hidden state and popularity and would lose without
    each of the T events: float64[T,S]; below 0 where they would gain. `idle_ms`: since the last event.

    The scorer must be up to date. exp(d) over the sum of exp(d) of all items is the likelihood (d: the dense
    score, see `eddy.models.network.mixture`); the sum is that of COMPARED_ITEMS.
    """
    steps = len(window)
    if not (steps and len(items)):
        return np.zeros((steps, len(items)))
    whole = _query_after(recommender, window, np.arange(steps)[None], np.array([idle_ms], np.float32))
    kept = np.arange(steps - 1) + (np.arange(steps - 1) >= np.arange(steps)[:, None])
    idle = np.full(steps, idle_ms, np.float32)
    idle[-1] = -1 if window.gap_ms[-1] < 0 else idle_ms + window.gap_ms[-1]  # without the last event
    without = _query_after(recommender, window, kept, idle)
    compared = np.unique(np.linspace(0, scorer.items - 1, COMPARED_ITEMS).astype(np.int64))
    log_likelihood = [
        scorer.dense_scores(query, items).double()
        - scorer.dense_scores(query, compared).double().logsumexp(dim=1, keepdim=True)
        for query in (whole, without)
    ]
    lost: NDArray[np.float64] = (1 - torch.exp(log_likelihood[1] - log_likelihood[0])).numpy()
    return lost


def _query_after(
    recommender: Recommender, window: CellWindow, kept: NDArray[np.int64], idle_ms: NDArray[np.float32]
) -> Query:
    """What is asked for after the events kept[B,n] of the window, in their order, and `idle_ms`[B]."""
    count, length = kept.shape
    state = window.state.expand(count, -1)
    if length:
        chosen = torch.from_numpy(kept)
        inputs = Inputs(*(part[chosen] for part in window.inputs))
        gap = torch.from_numpy(_gaps(window.gap_ms, kept))
        read = inputs._replace(gap_ms=gap.to(inputs.gap_ms.dtype))
        _, state = recommender.sequence(read, state, torch.full((count,), length))
    return recommender.query(state, torch.from_numpy(idle_ms))


def _gaps(gap_ms: NDArray[np.float32], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """The time from each kept event to the one that is kept before it: float32[B,n], -1 before the first."""
    elapsed = np.concatenate(([0.0], np.cumsum(np.maximum(gap_ms, 0), dtype=np.float64)))
    before = np.concatenate((np.full((len(kept), 1), -1), kept[:, :-1]), axis=1)
    gap = (elapsed[1:][kept] - elapsed[before + 1]).astype(np.float32)
    return np.where((before < 0) & (gap_ms[0] < 0), np.float32(-1), gap)
