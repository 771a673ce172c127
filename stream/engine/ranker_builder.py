"""Builds rankers of versions that are to go live, beside the thread that owns catalogue and statistics."""

from collections.abc import Sequence

from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.ranker import Ranker, new_scorer
from eddy.stream.state.item_names import ItemNames


class RankerBuilder:
    """Made on the thread that owns the catalogue and the statistics, from what these are at that moment;
    called on any other; what it built goes live on the owner's thread, in no time (`attach`).
    """

    def __init__(
        self, names: ItemNames, statistics: Statistics, now: float,
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:  # fmt: skip
        """`now`: the stream's, ms. `precision` and `threads`: of the scorers."""
        self._names, self._statistics, self._now = names, statistics, now
        self._precision, self._threads = precision, threads
        self._numbering = names.catalogue.renumbered
        self._copy_catalogue = names.catalogue.copier()
        self._popularities = statistics.popularities_at(len(names.catalogue), now)

    def __call__(self, versions: Sequence[LiveVersion]) -> list[Ranker]:
        """A ranker of each version, warmed up; takes about a second for each with 200,000 items."""
        catalogue = self._copy_catalogue()
        rankers = []
        for live in versions:
            scorer = new_scorer(live, catalogue, self._popularities, self._precision, self._threads)
            scorer.update_statistics(self._now)
            scorer.warm_up()
            rankers.append(Ranker(live, self._names, scorer))
        return rankers

    def attach(self, rankers: Sequence[Ranker]) -> bool:
        """Let what was built here go on with the catalogue and the statistics as they are now. False, and
        nothing is done, when items have got other numbers since the builder was made: then build again.
        """
        catalogue = self._names.catalogue
        if self._numbering != catalogue.renumbered:
            return False
        for ranker in rankers:
            ranker.scorer.go_on_with(catalogue, self._statistics)
        return True
