"""Replaying an event log into `events`: in time order, at a given rate or as fast as it goes, with the
keys and partitions that Kafka's own clients would choose.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from aiokafka.errors import KafkaError as ProducerError
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.events import Events
from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.records.admission import date_of
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings

_SLICE_S = 0.1
"""At a given rate, the events of so much time are written at once."""

_AT_ONCE = 5_000
"""Without a rate, so many events are written and confirmed before the next ones."""


def event_messages(events: Events, rows: NDArray[np.int64]) -> list[Message]:
    """(key, value) of these rows of a log; rows: int64[n]."""
    messages: list[Message] = []
    for row in rows.tolist():
        user = events.users[events.user[row]]
        value = float(events.value[row])
        event = Event(
            user_id=user,
            item_id=events.items[events.item[row]],
            timestamp=int(events.timestamp[row]),
            event_type=events.types[events.type[row]],
            value=None if np.isnan(value) else value,
            event_id=(events.event_id[row] or None) if events.event_id is not None else None,
        )
        messages.append((user.encode(), encode(event)))
    return messages


def _refuse_mistimed(settings: Settings, events: Events) -> None:
    """Refuse a log with times that workers refuse; `read_events` has refused everything else that they
    would.
    """
    if not len(events):
        return
    early = events.timestamp < settings.earliest_event
    if early.any():
        raise EddyError(
            f"{events.place(int(early.argmax()))}: {early.sum()} of {len(events)} events are before "
            f"{date_of(settings.earliest_event)}, this the first; workers refuse them. If the log's clock "
            "begins at zero, or it has none, set EDDY_EARLIEST_EVENT=0 for all of Eddy's processes; "
            "otherwise correct the column timestamp"
        )
    latest = int(events.timestamp.argmax())
    for reason in settings.admission.mistimed(events.timestamp[[latest]], np.array([wall_ms()])).values():
        raise EddyError(f"{events.place(latest)}: {reason}; correct the column timestamp")


async def feed(
    settings: Settings,
    events: Events,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write all events to the topic and return how many were confirmed.

    Within each partition the events are in the log's order. rate: events per second; None: as fast as it
    goes. `progress` is called with the number of events written so far. Errors: EddyError for events that
    are too early or too late for `events`, before any is written, and with the number of those that are
    written when the cluster takes no more.
    """
    _refuse_mistimed(settings, events)
    keys = [user.encode() for user in events.users]
    target = partition_of(keys, settings.partitions, settings.partitioner)[events.user]  # [events]
    producer = new_producer(settings)
    await producer.start()
    started = time.monotonic()
    done = 0
    try:
        while done < len(events):
            size = (
                _AT_ONCE
                if rate is None
                else max(1, round((time.monotonic() - started + _SLICE_S) * rate) - done)
            )
            rows = np.arange(done, min(done + size, len(events)))
            futures = []
            for partition in np.unique(target[rows]).tolist():
                messages = event_messages(events, rows[target[rows] == partition])
                futures += await send_all(producer, settings.topics.events, partition, messages)
            await asyncio.gather(*futures)
            done += len(rows)
            progress(done)
            if rate is not None:
                await asyncio.sleep(max(0.0, started + done / rate - time.monotonic()))
    except ProducerError as error:
        raise EddyError(_interrupted(settings, events, done, error)) from error
    finally:
        await producer.stop()
    return done


def _interrupted(settings: Settings, events: Events, done: int, error: ProducerError) -> str:
    """What to do when so many events were confirmed, and then the cluster took no more. To replay all of them
    again, as whoever reads "run it again" would, counts the first ones twice.
    """
    last = datetime.fromtimestamp(events.timestamp[done - 1] / 1000, UTC) if done else None
    return (
        f"{settings.topics.events} took {done:,} of {len(events):,} events, the first by time"
        f"{f' until {last:%Y-%m-%d %H:%M:%S} UTC' if last else ''}, and perhaps some of the next; then the "
        f"cluster did not answer ({type(error).__name__}). Replay what comes after these: an event that is "
        "written again counts twice, unless it has an event_id"
    )
