"""Rows for somebody without one: events of a session, read by a version from the zero state, and forgotten.

The same code moves these rows as those of users (`eddy.stream.engine.move_rows`), so a session gets the list
that a user with these events has. Nothing of it is kept: neither the row nor new items or event types.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eddy.models.event_limits import MAX_VALUE
from eddy.models.hashing import item_hashes, type_hashes
from eddy.models.vocabulary import Catalogue
from eddy.serving.lists.questions import SessionEvent
from eddy.stream.engine.batch_report import BatchReport
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.move_rows import move_rows
from eddy.stream.kernels.window_loops import EventTable
from eddy.stream.state.slab import Slab, Slots

MAX_EVENTS = 1000
"""Events of one session."""


def session_rows(
    sessions: Sequence[Sequence[SessionEvent]], live: LiveVersion, catalogue: Catalogue, now: int
) -> tuple[Slab, Slots, NDArray[np.int64]]:
    """A slab with a row for each session as of `now` (ms, for events without a time); the rows' slots; and
    how many events of each were of items that nobody has named yet, which no row can hold.
    """
    # 1. A slab of their own.
    slab = Slab(live.state_size, live.device, capacity=max(len(sessions), 1))
    slots = slab.add_users(
        [str(i) for i in range(len(sessions))], np.zeros(len(sessions), np.int32), live.epoch
    )
    # 2. The events in this process's numbers; those without a time are just now, and so the latest.
    events = [event for session in sessions for event in session]
    session_of = np.repeat(np.arange(len(sessions)), [len(session) for session in sessions])
    item = catalogue.find(item_hashes([event.item_id for event in events]))
    type_ = catalogue.types.find(type_hashes([event.event_type for event in events]))
    value = np.array([event.value for event in events], np.float64)  # None becomes NaN
    value16 = np.clip(value, -MAX_VALUE, MAX_VALUE).astype(np.float16)
    time = np.array([now if event.timestamp is None else event.timestamp for event in events], np.int64)
    flags = live.flags(type_, value16)
    usable = (item >= 0) & flags.moves
    # 3. Move the rows, each by its events in the order of time.
    order = np.lexsort((time, session_of))
    order = order[usable[order]]
    table = EventTable(
        slot=slots[session_of[order]],
        item=item[order].astype(np.int32),
        type=type_[order],
        value=value16.view(np.uint16)[order],
        time=np.maximum(time[order], 0),
        event_id=np.zeros(len(order), np.uint64),
        offset=np.arange(len(order)),
        negative=flags.negative[order],
    )
    nothing = np.zeros(len(order), np.bool_)
    move_rows(slab, live, table, nothing, nothing, BatchReport())
    return slab, slots, np.bincount(session_of[item < 0], minlength=len(sessions))
