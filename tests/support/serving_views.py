"""A server's view with described items, for tests of lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eddy.models.hashing import item_hashes
from eddy.models.registry import Version
from eddy.serving.lists.answers import Answer
from eddy.serving.view import MaterialisedView
from eddy.stream.records.schema import encode
from eddy.stream.state.rows import encode_rows
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.views import put_version

NOW = 1_400_000_000_000
WALL = 10**13
"""Long after: the log is replayed, so scores are brought up to date for every question."""
DESCRIBED = 40
"""Items 0 … 39: a price that is the number, a genre by the number mod 3, a brand for every second one."""


def described_version(folder: Path, transition_lags: int = 1) -> Version:
    """A version that knows the described items, and counts with a half-life of a day."""
    return random_version(
        folder, items=DESCRIBED, half_lives_ms=(86_400_000,), transition_lags=transition_lags
    )


def described_view(version: Version) -> MaterialisedView:
    """A view with users user-0 … user-7 and described items."""
    engine = new_engine(version, wall=WALL)
    rng = np.random.default_rng(5)
    happenings = [
        Happening(f"user-{n % 8}", item_id(int(rng.integers(DESCRIBED))), NOW - 1000 * (60 - n))
        for n in range(60)
    ]
    engine.apply([batch(happenings, range(60))])
    rows = stored_rows(engine)
    view = MaterialisedView(lambda: WALL)
    put_version(view, version, 1)
    view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    for number in range(DESCRIBED):
        fields: dict[str, Any] = {
            "price": number,
            "genres": [["Drama", "Horror", "Comedy"][number % 3], "Film"],
        }
        if number % 2:
            fields["brand"] = "ACME"
        describe(view, number, **fields)
    return view


def describe(view: MaterialisedView, number: int, **fields: Any) -> None:
    """Metadata of an item arrive."""
    name = item_id(number)
    assert view.take_items([(name.encode(), encode({"item_id": name, **fields}))]) == []


def count_each(view: MaterialisedView, times: int = 1, numbers: range = range(DESCRIBED)) -> None:
    """So many events of each item are counted."""
    assert view.statistics is not None
    index = np.repeat(view.catalogue.find(item_hashes([item_id(n) for n in numbers])), times)
    view.statistics.count_events(0, index, np.full(len(index), NOW), np.full((len(index), 1), -1))


def listed(found: Answer) -> list[int]:
    """Numbers of the items of a list."""
    return [int(item.item_id.removeprefix("item-")) for item in found.items]
