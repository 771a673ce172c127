"""A model version in use: with the rows that it encodes, and with the scorer of their lists."""

from collections.abc import Sequence

import numpy as np

from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.move_rows import warm_up_row_moves
from eddy.stream.engine.ranker import Ranker
from eddy.stream.engine.ranker_builder import RankerBuilder
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.rows import NO_VERSION, Rows
from eddy.stream.state.slab import Slab, Slots


class VersionRows:
    """A version at an epoch, the slab of its rows, and its ranker.

    A row of an older epoch in the slab was stored by a version that is not in use here. Its states say
    nothing until it is encoded anew, which happens when an event touches it or before that.
    """

    def __init__(self, live: LiveVersion, slab: Slab, ranker: Ranker) -> None:
        self.live, self.slab, self.ranker = live, slab, ranker

    def encode_stale(self, slots: Slots) -> Slots:
        """Encode the rows among `slots` anew that are of an older epoch; returns their slots."""
        stale = np.unique(slots[self.slab.epoch[slots] < self.live.epoch])
        if len(stale):
            self.live.reencode(self.slab, stale)
        return stale

    def export(self, slots: Slots, catalogue: Catalogue, topic_id: bytes, stale: bool = False) -> Rows:
        """A copy of rows in the form that is stored. Errors: KeyError when one is of an older epoch.

        stale: take these, too. They name no version then, so that whoever loads them encodes them anew.
        """
        version = dict.fromkeys(np.unique(self.slab.epoch[slots]).tolist(), NO_VERSION) if stale else {}
        version[self.live.epoch] = self.live.version_hash
        return self.slab.export_rows(slots, catalogue, topic_id, version)


class VersionBuilder:
    """Builds all that an epoch's versions need to go live, warmed up, beside the engine: made on the engine's
    thread from the catalogue and the statistics as they are, and called on any other.
    """

    def __init__(
        self, live: LiveShares, names: ItemNames, statistics: Statistics, now: float, rows: int,
        sample: float, precision: Precision, threads: int,
    ) -> None:  # fmt: skip
        """`rows`: how many there will soon be. `now`: the stream's, ms. Others as in `Options`."""
        self.live = live
        self._rows, self._sample = rows, sample
        self._rankers = RankerBuilder(names, statistics, now, precision, threads)

    def __call__(self) -> list[VersionRows]:
        """Build them; takes about a second for each with 200,000 items."""
        return [self._with_rows(ranker) for ranker in self._rankers(self.live.versions)]

    def _with_rows(self, ranker: Ranker) -> VersionRows:
        live = ranker.live
        warm_up_row_moves(live)
        slab = Slab(live.state_size, live.device, self._sample)
        slab.reserve(self._rows)
        return VersionRows(live, slab, ranker)

    def attach(self, versions: Sequence[VersionRows]) -> bool:
        """See `RankerBuilder.attach`; called on the engine's thread."""
        return self._rankers.attach([version.ranker for version in versions])
