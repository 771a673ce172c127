"""What is popular now, without regard to persons."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import HOUR_MS
from eddy.serving.catalogue.adjustments import Boost, factors_of
from eddy.serving.catalogue.filters import Filter
from eddy.serving.lists.answers import Recommended
from eddy.serving.lists.entries import items_with_most
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.ranker import decayed_popularity, default_half_life


@dataclass(frozen=True, slots=True)
class Popular:
    """Items by their decayed counts of events, best first."""

    items: list[Recommended]
    stream_time: int
    """the stream's now, ms, as of which counts have decayed; -1 before the first event"""
    half_life_hours: float | None
    """after which an event counts half; null before the first model"""
    hints: list[str] = field(default_factory=list)


def popular_counts(view: MaterialisedView, now: int) -> NDArray[np.float64]:
    """Decayed counts of all items at `now` (ms), 0 for those that may not be listed: float64[N]."""
    counts = np.zeros(len(view.catalogue))
    if view.newest is not None:
        statistics, half_lives_ms = view.newest.scorer.statistics, view.newest.half_lives_ms
        counts = decayed_popularity(statistics, len(counts), float(now), half_lives_ms)
    counts[view.names.unlisted()] = 0.0
    return counts


def popular(
    view: MaterialisedView, k: int, half_life_hours: float | None, where: Filter, boosts: tuple[Boost, ...]
) -> Popular:
    """The k items with the greatest counts by the half-life that is nearest to the one asked for, out of
    those that the versions count with; without one, by that of lists for unknown users.
    """
    moment = Moment.of(view)
    question = Question("", k, where=where, boosts=boosts)
    statistics, lives = view.statistics, () if view.newest is None else view.newest.half_lives_ms
    if statistics is None or not lives:
        return Popular([], moment.now, None)
    # 1. The half-life, one that every partition counts with if there is any.
    wanted = half_life_hours * HOUR_MS if half_life_hours else default_half_life(lives)
    complete = [life for life in statistics.half_lives_ms if statistics.is_complete(life)]
    life = min(complete or lives, key=lambda each: abs(math.log(each / wanted)))
    # 2. The counts, multiplied by the factors of boosts and rules.
    counts = statistics.popularity(len(view.catalogue), float(moment.now), [life])[0].astype(np.float32)
    column = moment.column(question, len(counts))
    if column is not None:
        counts *= factors_of(column)
    counts[view.names.unlisted()] = 0.0
    items = items_with_most(view, counts, k)
    return Popular(items, moment.now, life / HOUR_MS, moment.hints(question))
