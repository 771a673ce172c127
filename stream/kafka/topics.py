"""The eight topics: created with explicit partitions, retention and compaction, or checked where they exist.

Guarantee: after `ensure_topics` every topic is as the design needs it. A topic that differs in a way that
would lose data or break offsets is left alone, and is an EddyError that says what to do.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.settings import Settings

_MIB = 1 << 20
MAX_EVENT_BYTES = _MIB
MAX_DEAD_LETTER_BYTES = 2 * _MIB
MAX_STATE_BYTES = 8 * _MIB
TOMBSTONE_DAYS = 7
METRICS_DAYS = 7
"""How long the counts of ranks are kept: longer than any canary should last."""

# Differences in these lose data; others (retention, segment sizes) are the operator's choice.
_ESSENTIAL = ("cleanup.policy", "message.timestamp.type")


@dataclass(frozen=True)
class TopicSpec:
    """What one topic must be like. config: settings by Kafka's names; by_user: partitioned as `events` is."""

    name: str
    partitions: int
    config: dict[str, str]
    by_user: bool = False


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """The topics of this installation. Those keyed by user share the partition count of `events`."""
    names, partitions = settings.topics, settings.partitions
    compact = {
        "cleanup.policy": "compact",
        # The active segment is never compacted: with the default of 1 GB a restore would read every old row.
        "segment.bytes": str(64 * _MIB),
        "segment.ms": str(DAY_MS),
        # What a tombstone erases is gone from the disk within two days, however quiet the topic is.
        "max.compaction.lag.ms": str(DAY_MS),
    }
    state = {
        **compact,
        "max.message.bytes": str(MAX_STATE_BYTES),
        # How long a tombstone is kept for readers that were away: local snapshots must not be older.
        "delete.retention.ms": str(TOMBSTONE_DAYS * DAY_MS),
    }

    def kept(days: float) -> dict[str, str]:
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(round(days * DAY_MS)),
            # Retention removes whole segments: one must not stay open for longer than this.
            "segment.ms": str(DAY_MS),
            # Retention counts from append time: records stamped with a 2013 event time would go at once.
            "message.timestamp.type": "LogAppendTime",
        }

    events = {**kept(settings.events_retention_days), "max.message.bytes": str(MAX_EVENT_BYTES)}
    # Compacted too, so that the tombstone of an erased user removes their lists before retention does.
    recommendations = {
        **kept(settings.recommendations_retention_days),
        "cleanup.policy": "compact,delete",
        "segment.bytes": compact["segment.bytes"],
    }
    # Each interval of ranks has a key of its own: compaction removes what was written twice, retention the
    # rest. Of a worker's reports, one a second, compaction leaves the newest; who follows the topic reads all
    # that lie in its active segment.
    metrics = {
        **kept(METRICS_DAYS),
        "cleanup.policy": "compact,delete",
        "segment.bytes": str(16 * _MIB),
    }
    dead_letters = {**events, "max.message.bytes": str(MAX_DEAD_LETTER_BYTES)}
    return [
        TopicSpec(names.events, partitions, events, by_user=True),
        TopicSpec(names.recommendations, partitions, recommendations, by_user=True),
        TopicSpec(names.user_state, partitions, state, by_user=True),
        TopicSpec(names.item_stats, partitions, state, by_user=True),
        # A tombstone withdraws an item: workers that were away must still find it, to carry it over.
        TopicSpec(names.items, 1, {**compact, "delete.retention.ms": state["delete.retention.ms"]}),
        TopicSpec(names.model_versions, 1, compact),
        TopicSpec(names.metrics, 1, metrics),
        TopicSpec(names.dead_letters, 1, dead_letters),
    ]


def ensure_topics(admin: KafkaAdminClient, settings: Settings) -> None:
    """Creates the topics that are missing and checks the others. Idempotent, also when two processes race.

    Errors: EddyError that names the topic, the difference and what to do.
    """
    specs = topic_specs(settings)
    try:
        existing = set(admin.list_topics())
        missing = [spec for spec in specs if spec.name not in existing]
        if missing:
            _create(admin, missing, settings.replication)
        _check(admin, specs)
    except KafkaError as error:
        raise EddyError(f"cannot create or read the topics: {type(error).__name__}: {error}") from error


def prepare_topics(settings: Settings, command: str = "topics", topic: str | None = None) -> None:
    """Connects, checks that the cluster allows what a command does, and ensures the topics.

    command: one of those that need permissions; "topics" creates them and does nothing else. topic: that of
    the command's option --topic. Errors: EddyError, also when the cluster does not answer.
    """
    with admin_client(settings) as admin:
        require_permissions(admin, settings, command, topic)
        ensure_topics(admin, settings)


def _create(admin: KafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> None:
    wanted = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": replication,
            "configs": spec.config,
        }
        for spec in specs
    }
    response = admin.create_topics(wanted, raise_errors=False)
    for topic in response["topics"]:
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise EddyError(
                f"topic {topic['name']} does not exist, and the cluster does not allow this client to create "
                "it: an administrator creates the topics with `eddy topics`"
            )
        if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
            raise EddyError(f"topic {topic['name']}: cannot be created: {topic['error_message']}")
    admin.wait_for_topics(list(wanted))


def _check(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    described = {topic["name"]: topic for topic in admin.describe_topics([spec.name for spec in specs])}
    resources = [ConfigResource(ConfigResourceType.TOPIC, spec.name) for spec in specs]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    for spec in specs:
        _check_partitions(spec, len(described[spec.name]["partitions"]))
        _check_config(spec, {key: entry["value"] for key, entry in configs[spec.name].items()})


def _check_partitions(spec: TopicSpec, actual: int) -> None:
    if actual == spec.partitions:
        return
    advice = (
        f"set EDDY_PARTITIONS={actual} to keep them, or change them with `eddy repartition`"
        if spec.by_user
        else "delete it, or set EDDY_TOPIC_PREFIX to use other topics"
    )
    raise EddyError(f"topic {spec.name} has {actual} partitions, {spec.partitions} are expected: {advice}")


def _check_config(spec: TopicSpec, actual: dict[str, str]) -> None:
    for key, expected in spec.config.items():
        if key == "max.message.bytes" and actual[key] == "1":
            raise EddyError(f"topic {spec.name} is closed: an `eddy repartition` is unfinished; run it again")
        too_small = key == "max.message.bytes" and int(actual[key]) < int(expected)
        if too_small or (key in _ESSENTIAL and actual[key] != expected):
            raise EddyError(
                f"topic {spec.name} has {key}={actual[key]}, {expected} is needed: change it with "
                f"`kafka-configs --alter --topic {spec.name} --add-config {key}={expected}`"
            )


def committed_offsets(admin: KafkaAdminClient, group: str, topic: str) -> dict[int, int]:
    """A consumer group's committed offsets by partition; empty for a group that has committed nothing yet.

    Errors: KafkaError while the cluster has no coordinator for the group.
    """
    committed = admin.list_group_offsets(group)[group]
    return {tp.partition: at.offset for tp, at in committed.items() if tp.topic == topic and at.offset >= 0}


def committed_notes(admin: KafkaAdminClient, group: str, topic: str) -> dict[int, str]:
    """What a consumer group has noted beside its committed offsets, by partition. Errors: KafkaError."""
    committed = admin.list_group_offsets(group)[group]
    return {tp.partition: at.metadata for tp, at in committed.items() if tp.topic == topic and at.offset >= 0}


def require_topics(admin: KafkaAdminClient, names: Sequence[str]) -> None:
    """See that these topics exist, before anything is read from them or written to them: a cluster may make
    a topic of whatever is asked for, with settings of its own.

    Errors: EddyError for a topic that does not exist.
    """
    topic_ids(admin, names)


def topic_ids(admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, uuid.UUID]:
    """The ids (KIP-516) of these topics; a topic that is deleted and created again has another id.

    Errors: EddyError for a topic that does not exist.
    """
    ids: dict[str, uuid.UUID] = {}
    for topic in admin.describe_topics(list(names)):
        if topic["error_code"]:
            raise EddyError(
                f"topic {topic['name']} does not exist: `eddy worker` and `eddy demo` create the topics"
            )
        ids[topic["name"]] = uuid.UUID(topic["topic_id"])
    return ids
