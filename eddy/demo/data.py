"""The demo's events: the shipped log in two parts, a user to watch, and events of generated users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eddy.models.errors import EddyError
from eddy.models.logs.events import Events
from eddy.models.logs.splits import boundary

_FOLDER = Path(__file__).parent / "logs"
EVENTS_FILE = _FOLDER / "movietweetings.parquet"
ITEMS_FILE = _FOLDER / "movietweetings-items.parquet"

HISTORY_SHARE = 0.8
WATCHED_HISTORY = 5
"""The watched user has at least so many events in the history."""


def split(events: Events) -> tuple[Events, Events]:
    """The history, which the system knows from the start (the first 80 % by time), and the events that
    follow live.
    """
    row = boundary(events, HISTORY_SHARE)
    return events.take(slice(0, row)), events.take(slice(row, len(events)))


def write_events(events: Events, path: Path) -> None:
    """A file that `eddy train --events` reads."""
    try:
        table = pa.table(
            {
                "user_id": pa.array(events.users).take(pa.array(events.user)),
                "item_id": pa.array(events.items).take(pa.array(events.item)),
                "timestamp": pa.array(events.timestamp),
                "event_type": pa.array(events.types).take(pa.array(events.type)),
                "value": pa.array(events.value, from_pandas=True),
            }
        )
        pq.write_table(table, path)
    except OSError as error:
        raise EddyError(f"{path}: cannot be written ({error}); check space and permissions") from None


def watched_user(history: Events, live: Events) -> str:
    """The user with the most live events among those who have some history."""
    earlier = np.bincount(history.user, minlength=len(history.users))  # events by user
    later = np.bincount(live.user, minlength=len(live.users))
    later[earlier < WATCHED_HISTORY] = 0
    return live.users[int(later.argmax())]


def generated(events: Events, repetition: int) -> Events:
    """The same events again, by users who do not exist, at times after the last event."""
    span = int(events.timestamp[-1] - events.timestamp[0]) + 1
    return replace(
        events,
        users=[f"generated-{repetition}-{user}" for user in events.users],
        timestamp=events.timestamp + repetition * span,
    )
