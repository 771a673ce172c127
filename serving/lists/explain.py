"""Why an item is in its place: the parts of its score, and the events of the window that made it likelier."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.backend import ScoreParts
from eddy.serving.lists.answers import Explanation, Mover
from eddy.serving.lists.leave_one_out import shares_lost
from eddy.stream.engine.cell_windows import CellWindow
from eddy.stream.engine.ranker import Ranker
from eddy.stream.engine.row_views import RowViews
from eddy.stream.state.item_names import ItemNames

MOVERS, LEAST_SHARE = 5, 0.001
"""Events that are named for an item at most, and their least share of its likelihood."""


@dataclass(frozen=True)
class ExplainedRow:
    """A row whose list is explained, and the version that scores it."""

    ranker: Ranker
    view: RowViews
    """one row"""
    window: CellWindow


def explain(row: ExplainedRow, now: int, items: NDArray[np.int64], names: ItemNames) -> list[Explanation]:
    """An explanation for each of the items (catalogue indices) as of `now` (ms).

    The likelihood of an item, as a share of Z, is (exp(d - log Z) + t) exp(shift) + p: see
    `eddy.models.network.mixture`. Each of the three terms has its share of this sum.
    """
    ranker, view = row.ranker, row.view
    parts = ScoreParts(*(part.double() for part in ranker.parts(view, now, items)))
    # 1. The three terms, in float64, where no power overflows that a score does not.
    lifted = np.exp(parts.shift.numpy())
    dense = np.exp((parts.state + parts.popularity - parts.log_z).numpy()) * lifted
    by_lag = parts.transition.numpy() * lifted[:, None]
    by_slot = parts.pointer.numpy()
    own = by_slot.sum(axis=1) + parts.older.numpy()
    total = np.maximum(dense + by_lag.sum(axis=1) + own, np.finfo(np.float64).tiny)
    # 2. What the events have done to the hidden state's term.
    idle_ms = float(max(now - int(view.last_time[0]), 0))
    lost = shares_lost(ranker.live.recommender, ranker.scorer, row.window, idle_ms, items)
    by_event = lost * (dense / total)
    # 3. Per item.
    return [
        Explanation(
            state=round(float(parts.state[i]), 4),
            popularity=round(float(parts.popularity[i]), 4),
            state_and_popularity_share=round(float(dense[i] / total[i]), 4),
            transitions_share=round(float(by_lag[i].sum() / total[i]), 4),
            own_items_share=round(float(own[i] / total[i]), 4),
            moved_by=_movers(view, names, by_slot[i] / total[i], by_lag[i] / total[i], by_event[::-1, i]),
        )
        for i in range(len(items))
    ]


def _movers(
    row: RowViews,
    names: ItemNames,
    by_slot: NDArray[np.float64],
    by_lag: NDArray[np.float64],
    by_state: NDArray[np.float64],
) -> list[Mover]:
    """The events that count most; by_slot[W], by_lag[L] and by_state[T] are shares of the item's likelihood,
    of the latest events first.
    """
    latest = int(row.window.length[0]) - 1
    movers = []
    for because, shares in (("same_item", by_slot), ("often_follows", by_lag), ("hidden_state", by_state)):
        for place in np.flatnonzero(shares >= LEAST_SHARE).tolist():
            item, time = (int(column[0, latest - place]) for column in row.window[:2])
            name = names.ids[item] if item >= 0 else None
            if name is not None:
                movers.append(Mover(name, time, because, round(float(shares[place]), 4)))  # type: ignore[arg-type]
    return sorted(movers, key=lambda mover: -mover.share)[:MOVERS]
