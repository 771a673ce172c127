"""What is stored of a user, as they may ask to see it."""

from dataclasses import dataclass

import numpy as np

from eddy.models.hashing import type_hashes
from eddy.models.logs.events import DEFAULT_TYPE
from eddy.serving.view import MaterialisedView, RowAt


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the recent window. Rows name items and types by their hashes: a name is null where this
    server does not know it (for types: no version that it has loaded names it).
    """

    item_id: str | None
    title: str | None
    event_type: str | None
    timestamp: int
    """ms since 1970"""
    value: float | None


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user's row, but for its hidden state, which is a function of the events and the version."""

    user_id: str
    epoch: int
    version: str | None
    """the model version that made the hidden state; null when this server could not load it"""
    partition: int
    offset: int
    """with `partition`: the last record of `events` that the row includes"""
    events: list[StoredEvent]
    """the recent window, oldest first"""
    older_items: list[str | None]
    """items from before the window, latest first; null where this server does not know an item's name"""
    older_count: int
    event_count: int
    """events since the user was first seen, those that have left the window included"""
    state_size: int
    """floats of the hidden state; it is stored twice, now and at the beginning of the window"""
    includes: bool | None = None
    """whether the record that `wait_for` names is included; null without it"""


def stored_user(view: MaterialisedView, user: str) -> StoredUser | None:
    """What the view holds of a user; None where there is nothing."""
    row = view.find_row(user)
    if row is None:
        return None
    slab, slot = view.slabs[row.at], row.slot
    ranker = view.rankers.get(row.at)
    older = slab.older[slot, : int(slab.older_count[slot])].astype(np.int64) - 1
    return StoredUser(
        user_id=user,
        epoch=row.at.epoch,
        version=ranker.live.version.id if ranker else None,
        partition=int(slab.partition[slot]),
        offset=int(slab.offset[slot]),
        events=_events(view, row),
        older_items=[view.names.id_of(item) for item in older.tolist()],
        older_count=len(older),
        event_count=int(slab.applied[slot]),
        state_size=slab.state_size,
    )


def _events(view: MaterialisedView, row: RowAt) -> list[StoredEvent]:
    slab = view.slabs[row.at]
    window = row.slot, slice(0, int(slab.length[row.slot]))
    names = {DEFAULT_TYPE}.union(*(ranker.live.version.vocabulary.types for ranker in view.rankers.values()))
    type_name = dict(zip(type_hashes(sorted(names)).tolist(), sorted(names), strict=True))
    type_hash = view.catalogue.types.hashes[slab.type[window]]
    events = []
    for item, type_, time, value in zip(
        slab.item[window].tolist(),
        type_hash.tolist(),
        slab.time[window].tolist(),
        slab.value[window].tolist(),
        strict=True,
    ):
        name = view.names.id_of(item)
        described = view.metadata.get(name) if name is not None else None
        events.append(
            StoredEvent(
                item_id=name,
                title=described.title if described else None,
                event_type=type_name.get(type_),
                timestamp=time,
                value=None if np.isnan(value) else value,
            )
        )
    return events
