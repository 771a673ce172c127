"""Small engines with random weights for tests: quick to build, and sensitive to every input of the cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eddy.models.config import ModelConfig
from eddy.models.hashing import event_id_hash, type_hashes
from eddy.models.network.recommender import Recommender
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.storage import Place
from eddy.models.trained import Trained
from eddy.models.vocabulary import Catalogue, Vocabulary
from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.engine import Engine, Options
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.version_rows import VersionRows
from eddy.stream.records.decode import EventColumns
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.rows import Rows

TOPIC_ID = bytes(range(16))
TYPES = ("view", "rating")
TOLERANCE = 2e-5
"""The largest difference between two states that were reached by different batchings: they add float32
numbers in another order, and cells forget such errors.
"""


@dataclass(frozen=True)
class Happening:
    """One event as tests write it."""

    user: str
    item: str
    time: int
    type: str = "view"
    value: float | None = None
    event_id: str | None = None


def item_id(number: int) -> str:
    return f"item-{number}"


def random_version(
    registry: Place, cell: str = "gru", hidden: int = 16, items: int = 200, seed: int = 0,
    successors: int = 8, metrics: dict[str, Any] | None = None,
    **config: Any,
) -> Version:  # fmt: skip
    """A published version whose weights are all random, so that every input has an effect on the state.
    metrics: as if they had been measured.
    """
    torch.manual_seed(seed)
    model = ModelConfig(cell=cell, hidden=hidden, dim=16, item_buckets=8, successors=successors, **config)
    recommender = Recommender(model, items, len(TYPES))
    with torch.no_grad():
        for name, parameter in recommender.named_parameters():
            if not name.startswith("cell"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    vocabulary = Vocabulary([item_id(i) for i in range(items)], TYPES, model.item_buckets)
    trained = Trained(recommender.eval(), vocabulary, EventRules(), metrics or {})
    return publish(registry, trained, {})


def new_live_version(engine: Engine | None, version: Version, epoch: int) -> LiveVersion:
    """A live version on the item names of an engine, or on new ones."""
    names = engine.names if engine is not None else ItemNames(Catalogue())
    names.add_vocabulary(version.vocabulary.items)
    return LiveVersion(version, epoch, names.catalogue, torch.device("cpu"))


def switch(engine: Engine, version: Version, epoch: int) -> None:
    """Let the engine go on with another version; rows stay with the one before."""
    switch_to(engine, LiveShares.whole(new_live_version(engine, version, epoch)))


def switch_to(engine: Engine, live: LiveShares) -> None:
    """The same for several versions with shares."""
    builder = engine.builder(live)
    engine.switch_version(builder(), builder)


def reencode_all(engine: Engine) -> list[Changed]:
    """Move all rows to the newest version; returns each slice's."""
    changed = []
    while engine.rows.may_be_stale:
        changed += engine.reencode_oldest(0.01)
    return changed


def changed_users(changed: Iterable[Changed]) -> list[str]:
    """The users of rows that changed, where these are now; as often as they are named."""
    return [slab.user_of[slot] or "" for slab, slots in changed for slot in slots.tolist()]


def new_engine(
    version: Version, epoch: int = 1, wall: int = 10**13, device: str = "cpu",
    **options: Any,
) -> Engine:  # fmt: skip
    """An empty engine; `wall` is its wall clock's time in ms. The version's weights are moved to the
    device.
    """
    torch.set_num_threads(1)
    names = ItemNames(Catalogue())
    names.add_vocabulary(version.vocabulary.items)
    live = LiveVersion(version, epoch, names.catalogue, torch.device(device))
    config = version.recommender.config
    statistics = Statistics(config.half_lives_ms, config.successors)
    chosen = Options(**{"k": 5, "emit": "off", "sample": 0.0, **options})
    return Engine(LiveShares.whole(live), names, statistics, chosen, lambda: wall)


def batch(happenings: Sequence[Happening], offsets: Iterable[int], partition: int = 0) -> EventColumns:
    """The happenings as the decoder would give them."""
    n = len(happenings)
    return EventColumns(
        partition=np.full(n, partition, np.int32),
        user=[happening.user for happening in happenings],
        item=[happening.item for happening in happenings],
        type=type_hashes([happening.type for happening in happenings]),
        value=np.array(
            [np.nan if happening.value is None else happening.value for happening in happenings], np.float16
        ),
        time=np.fromiter((happening.time for happening in happenings), np.int64, n),
        event_id=np.fromiter(
            (event_id_hash(happening.event_id) if happening.event_id else 0 for happening in happenings),
            np.uint64,
            n,
        ),
        offset=np.fromiter(offsets, np.int64, n),
    )


def stored_rows(engine: Engine, partition: int = 0) -> Rows:
    """All rows of a partition in their stored form, ordered by user; all must be of the newest version."""
    return stored_rows_of(engine, engine.newest, partition)


def stored_rows_of(engine: Engine, version: VersionRows, partition: int = 0) -> Rows:
    """The rows of one version that is in use, in the same form."""
    slab, slots = version.slab, version.slab.of_partition(partition)
    slots = slots[np.argsort([slab.user_of[slot] or "" for slot in slots.tolist()])]
    return version.export(slots, engine.names.catalogue, TOPIC_ID)


EXACT = ("offset", "applied", "digest", "epoch", "anchor_time", "length", "older")
WINDOW_COLUMNS = ("item", "time", "type", "value", "event_id")


def assert_same_rows(found: Rows, expected: Rows, but: Sequence[str] = ()) -> None:
    """Asserts that rows are equal in every column but those of `but`, and their states within TOLERANCE."""
    assert list(found.user) == list(expected.user)
    for name in EXACT:
        if name not in but:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    filled = np.arange(found.item.shape[1]) < found.length[:, None]
    for name in WINDOW_COLUMNS:
        if name not in but:
            here, there = getattr(found, name)[filled], getattr(expected, name)[filled]
            np.testing.assert_array_equal(here, there, err_msg=name)
    np.testing.assert_allclose(found.anchor, expected.anchor, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found.hidden, expected.hidden, rtol=0, atol=TOLERANCE)
