"""Whether the topics are still those that the worker started with.

A topic that was deleted, or deleted and created again, is no error to Kafka's clients: they wait for it,
or read on at the same offset of another log. Therefore a worker asks for the topics' ids every few
seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import connected_admin
from eddy.stream.kafka.topics import committed_notes
from eddy.stream.records.settings import Settings

SIGHTINGS = 2
"""A topic is gone when it is missing so many times in a row; a broker that just came back may not know it
yet.
"""


class NotTheSame(EddyError):
    """A topic was deleted, or deleted and made again."""


class TopicWatch:
    """Call `look` every few seconds, from one thread at a time."""

    def __init__(self, settings: Settings, ids: Mapping[str, uuid.UUID]) -> None:
        self._settings, self._ids = settings, ids
        self._missing: dict[str, int] = {}
        self._admin: KafkaAdminClient | None = None

    def look(self) -> None:
        """Errors: NotTheSame when a topic is gone or was replaced. No answer from the cluster is no error."""
        try:
            if self._admin is None:
                self._admin = connected_admin(self._settings)
            topics = self._admin.describe_topics(list(self._ids))
        except (KafkaError, OSError):
            self.close()
            return
        self.judge({topic["name"]: (topic["error_code"], topic["topic_id"]) for topic in topics})

    def judge(self, described: Mapping[str, tuple[int, str]]) -> None:
        """Compare the topics' error codes and ids with the ids at the start. Errors: NotTheSame."""
        replaced = []
        for name, id_ in self._ids.items():
            code, now = described[name]
            if code == UnknownTopicOrPartitionError.errno:
                self._missing[name] = self._missing.get(name, 0) + 1
                continue
            self._missing.pop(name, None)
            if code == 0 and uuid.UUID(now) != id_:
                replaced.append(name)
        gone = sorted(name for name, times in self._missing.items() if times >= SIGHTINGS)
        if gone or replaced:
            was = "was deleted" if gone else "was deleted and made again"
            raise NotTheSame(
                f"topic {', '.join(gone or replaced)} {was} while this worker ran. It ends before it takes "
                "records for applied that are not: start it again, and it says what is left and what to do"
            )

    def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def require_same_rows(admin: KafkaAdminClient, settings: Settings, state_id: uuid.UUID) -> None:
    """Check that `user-state` is the topic whose rows the committed offsets stand for; they carry its id.

    Errors: EddyError when that topic was replaced.
    """
    names = settings.topics
    try:
        notes = committed_notes(admin, settings.group, names.events)
    except KafkaError:
        return  # no group has committed yet
    lost = sorted(number for number, note in notes.items() if note and note != state_id.hex)
    if lost:
        raise EddyError(
            f"topic {names.user_state} was deleted and made again: the rows of {names.events} partitions "
            f"{lost} are gone, but group {settings.group} has committed their events. To build them anew "
            f"from what {names.events} still has: kafka-consumer-groups --reset-offsets --to-earliest "
            f"--group {settings.group} --topic {names.events} --execute, or take another EDDY_GROUP"
        )
