"""Finding items by the beginning of their id, or by words of their title.

What is searched is a copy of the catalogue's names as columns of text, made anew when items have come and
enough time has passed. Only the copy is taken on the view's thread; text is searched on another one, by
compiled loops that hold up no other.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.serving.pace import Pace
from eddy.serving.threads import Threads
from eddy.serving.view import MaterialisedView
from eddy.stream.records.schema import DescribedItem

MAX_QUERY = 200
"""Characters of a query; of its words the first MAX_WORDS count."""

MAX_WORDS = 8

SHARE, LEAST_PERIOD_S = 0.02, 1.0
"""At most this share of the time goes into copies, and they follow each other at least so far apart."""

_NO_WORD = re.compile(r"[\W_]+")
_NO_WORD_ARROW = r"[\pP\pS\pZ\pC]+"


@dataclass(frozen=True)
class _Names:
    """A copy of the catalogue's names."""

    numbering: int
    ids: list[str | None]
    described: dict[str, DescribedItem]


@dataclass(frozen=True)
class ItemTexts:
    """N items as text to be searched."""

    numbering: int
    """of the catalogue, as which the items are numbered"""
    id: pa.LargeStringArray
    """[N] in small letters"""
    words: pa.LargeStringArray
    """[N] the title in small letters, a space before each word"""

    def find(self, query: str) -> NDArray[np.int64]:
        """Catalogue indices of the items whose id begins with the query, or whose title has words that begin
        with each word of it. Takes tens of milliseconds with a million items, and may run on any thread.
        """
        found = pc.starts_with(self.id, query.lower())
        words = _NO_WORD.sub(" ", query.lower()).split()[:MAX_WORDS]
        if words:
            in_title = pc.match_substring(self.words, f" {words[0]}")
            for word in words[1:]:
                in_title = pc.and_kleene(in_title, pc.match_substring(self.words, f" {word}"))
            found = pc.or_kleene(found, in_title)
        mask: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
        return np.flatnonzero(mask)


class ItemSearch:
    """Keeps the texts up to date, as far as the time for that allows."""

    def __init__(self, threads: Threads, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads, self._clock = threads, clock
        self._texts: ItemTexts | None = None
        self._as_of: tuple[int, int, int] | None = None
        self._pace = Pace(SHARE, LEAST_PERIOD_S, clock)
        self._lock = asyncio.Lock()

    async def find(self, query: str) -> tuple[int, NDArray[np.int64]]:
        """Which items match, and the numbering of the catalogue by which they are told."""
        async with self._lock:
            texts = await self._up_to_date()
        return texts.numbering, await self._threads.beside(lambda: texts.find(query))

    async def _up_to_date(self) -> ItemTexts:
        texts = self._texts
        as_of = await self._threads.look_up(_state)
        renumbered = texts is not None and texts.numbering != as_of[0]
        if texts is None or renumbered or (as_of != self._as_of and self._pace.is_due()):
            began = self._clock()
            names = await self._threads.look_up(_copy)
            texts = await self._threads.beside(lambda: _texts_of(names))
            self._texts, self._as_of = texts, as_of
            self._pace.took(self._clock() - began)
        return texts


def _state(view: MaterialisedView) -> tuple[int, int, int]:
    """What differs when the names do."""
    return view.catalogue.renumbered, len(view.catalogue), view.attributes.changes


def _copy(view: MaterialisedView) -> _Names:
    return _Names(view.catalogue.renumbered, list(view.names.ids), dict(view.metadata))


def _texts_of(names: _Names) -> ItemTexts:
    described = names.described
    ids = pa.array(names.ids, pa.large_string())
    titles = pa.array(
        [described[name].title if name in described else None for name in names.ids],
        pa.large_string(),
    )
    words = pc.replace_substring_regex(pc.utf8_lower(titles), _NO_WORD_ARROW, " ")
    joined = pc.binary_join_element_wise(
        pa.scalar("", pa.large_string()), words, pa.scalar(" ", pa.large_string())
    )
    return ItemTexts(names.numbering, pc.utf8_lower(ids), joined)


__all__ = ["MAX_QUERY", "ItemSearch", "ItemTexts"]
