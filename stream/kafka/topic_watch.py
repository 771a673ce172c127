"""Whether the topics are still those that the worker started with.

Neither a deleted topic nor one that was made again in its place is an error to Kafka's clients: they wait for
it, or read on at some offset of another log. A worker asks for the topics' ids every few seconds instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import committed_notes
from eddy.stream.records.settings import Settings

SIGHTINGS = 2
"""A topic is gone when it is missing so many times in a row: a broker that just came back may not know it."""


_TIMEOUT_MS = 2_000


class TopicWatch:
    """`look` again and again; not safe for several threads at once."""

    def __init__(self, settings: Settings, ids: Mapping[str, uuid.UUID]) -> None:
        self._settings, self._ids = settings, ids
        self._missing: dict[str, int] = {}
        self._admin: KafkaAdminClient | None = None

    def look(self) -> None:
        """Errors: EddyError when a topic is gone or another one. A cluster that does not answer is none."""
        try:
            if self._admin is None:
                config = client_config(self._settings)
                self._admin = KafkaAdminClient(**config, bootstrap_timeout_ms=_TIMEOUT_MS)
            found = self._admin.describe_topics(list(self._ids))
        except (KafkaError, OSError):
            self.close()
            return
        self.judge({topic["name"]: (topic["error_code"], topic["topic_id"]) for topic in found})

    def judge(self, found: Mapping[str, tuple[int, str]]) -> None:
        """What was found: error code and id by topic. Errors: EddyError."""
        other = []
        for name, id_ in self._ids.items():
            code, now = found[name]
            if code == UnknownTopicOrPartitionError.errno:
                self._missing[name] = self._missing.get(name, 0) + 1
                continue
            self._missing.pop(name, None)
            if code == 0 and uuid.UUID(now) != id_:
                other.append(name)
        gone = sorted(name for name, times in self._missing.items() if times >= SIGHTINGS)
        if gone or other:
            was = "was deleted" if gone else "was deleted and made again"
            raise EddyError(
                f"topic {', '.join(gone or other)} {was} while this worker ran; ending, before anything is "
                "taken for done that is not: start it again, and it says what is left and what to do"
            )

    def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def require_same_rows(admin: KafkaAdminClient, settings: Settings, state_id: uuid.UUID) -> None:
    """Committed offsets stand for rows on `user-state`; they carry its id, so that it cannot be replaced
    unnoticed. Errors: EddyError.
    """
    names = settings.topics
    try:
        notes = committed_notes(admin, settings.group, names.events)
    except KafkaError:
        return  # no group has committed yet
    other = sorted(number for number, note in notes.items() if note and note != state_id.hex)
    if other:
        raise EddyError(
            f"topic {names.user_state} was deleted and made again: the rows of {names.events} partitions "
            f"{other} are gone, but group {settings.group} has committed their events. To build them anew "
            f"from what {names.events} still has: kafka-consumer-groups --reset-offsets --to-earliest "
            f"--group {settings.group} --topic {names.events} --execute, or take another EDDY_GROUP"
        )
