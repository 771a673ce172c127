"""What is known of items: for a list of search results, and of one item in full."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eddy.serving.catalogue.popularity_history import PopularityAt
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.popular import popular_counts
from eddy.serving.view import MaterialisedView

_DECIMALS = 3

MAX_FOUND = 100
"""The most items that a search tells."""


@dataclass(frozen=True, slots=True)
class ItemBrief:
    """An item among others."""

    item_id: str
    title: str | None
    category: list[str]
    """in small letters"""
    available: bool
    """whether it may be listed now"""
    in_version: bool
    """whether the newest version that is loaded has a vector of its own for it"""
    popularity: float
    """decayed count of events, as for lists of unknown users"""


@dataclass(frozen=True, slots=True)
class Items:
    """Items, the most popular first."""

    items: list[ItemBrief]


@dataclass(frozen=True, slots=True)
class ItemDetail:
    """One item."""

    item_id: str
    title: str | None
    attributes: dict[str, list[str]]
    """what filters go by: values by attribute, in small letters"""
    available: bool
    available_from: int | None
    """ms since 1970"""
    available_until: int | None
    popularity: float
    popularity_over_time: list[PopularityAt]
    """as this server has looked at it since it started, an hour at most; of items that are popular, or that
    somebody has asked for lately
    """
    versions: list[str] = field(default_factory=list)
    """loaded versions that have a vector of its own for it"""


def listable_counts(view: MaterialisedView) -> NDArray[np.float64]:
    """Decayed counts of all items, 0 for those that may not be listed: float64[N]."""
    return popular_counts(view, Moment.of(view).now)


def most_popular(
    view: MaterialisedView,
    counts: NDArray[np.float64],
    index: NDArray[np.int64],
    limit: int,
    first: str = "",
) -> Items:
    """The items with the greatest counts among `index`; the item with the id `first` comes before all
    others.
    """
    order = by_counts(view, counts, index, limit, first)
    return Items([_brief(view, item, counts) for item in order.tolist() if view.names.ids[item] is not None])


def by_counts(
    view: MaterialisedView,
    counts: NDArray[np.float64],
    index: NDArray[np.int64],
    limit: int = MAX_FOUND,
    first: str = "",
) -> NDArray[np.int64]:
    """At most `limit` of these items, those with the greatest counts first; see `most_popular`."""
    weight = np.zeros(len(index))
    counted = index < len(counts)
    weight[counted] = counts[index[counted]]
    chosen = Moment.of(view).find_items([first])[0] if first else -1
    weight[index == chosen] = np.inf
    if len(index) > limit:
        most = np.argpartition(-weight, limit)[:limit]
        index, weight = index[most], weight[most]
    return index[np.lexsort((index, -weight))]


def listable(view: MaterialisedView) -> NDArray[np.int64]:
    """Catalogue indices of the items that may be listed."""
    return np.flatnonzero(view.names.may_be_listed(np.arange(len(view.names.ids))))


def waiting_for_a_version(view: MaterialisedView) -> NDArray[np.bool_]:
    """Which items may be listed and are ones that the newest version has no vector for: bool[N]."""
    index = listable(view)
    waiting = np.zeros(len(view.names.ids), np.bool_)
    waiting[index[~_in_newest(view, index)]] = True
    return waiting


def item_detail(view: MaterialisedView, item_id: str, history: Sequence[PopularityAt]) -> ItemDetail | None:
    """All that is known of an item; None where nothing is."""
    moment = Moment.of(view)
    index = moment.find_items([item_id])
    item = int(index[0])
    if item < 0:
        return None
    dates = view.attributes.dates(index)
    starts, ends = (None if np.isnan(date[0]) else round(float(date[0])) for date in dates)
    attributes = {
        name: values
        for name, attribute in view.attributes.by_name.items()
        if (values := attribute.values_of(item))
    }
    described = view.metadata.get(item_id)
    return ItemDetail(
        item_id=item_id,
        title=described.title if described else None,
        attributes=attributes,
        available=_available(view, item),
        available_from=starts,
        available_until=ends,
        popularity=round(float(counts_of(view, index)[0]), _DECIMALS),
        popularity_over_time=list(history),
        versions=sorted(
            {
                ranker.live.version.id
                for ranker in view.rankers.values()
                if ranker.live.version.vocabulary.knows(view.catalogue.hashes[index])[0]
            }
        ),
    )


def counts_of(view: MaterialisedView, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Decayed counts of some items now, listed or not: float64[n]."""
    ranker = view.newest
    if ranker is None or not ranker.half_lives_ms:
        return np.zeros(len(index))
    return ranker.popularity_of(index, view.now())


def _brief(view: MaterialisedView, item: int, counts: NDArray[np.float64]) -> ItemBrief:
    name = view.names.ids[item] or ""
    described = view.metadata.get(name)
    category = view.attributes.by_name.get("category")
    return ItemBrief(
        item_id=name,
        title=described.title if described else None,
        category=[] if category is None else category.values_of(item),
        available=_available(view, item),
        in_version=bool(_in_newest(view, np.array([item]))[0]),
        popularity=round(float(counts[item]), _DECIMALS) if item < len(counts) else 0.0,
    )


def _in_newest(view: MaterialisedView, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    ranker = view.newest
    if ranker is None:
        return np.zeros(len(index), np.bool_)
    return ranker.live.version.vocabulary.knows(view.catalogue.hashes[index])


def _available(view: MaterialisedView, item: int) -> bool:
    """Whether an item may be listed now: it has a name, is not withdrawn, and its dates allow it."""
    index = np.array([item])
    return bool(view.names.may_be_listed(index)[0] and not view.attributes.closed(index, view.wall())[0])
