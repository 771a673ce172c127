"""What `eddy repartition` does to whole topics and groups: close, delete, create and reset. Every call waits
until the cluster shows the change.
"""

from collections.abc import Callable, Mapping, Sequence

from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from eddy.models.errors import EddyError
from eddy.stream.kafka.topics import MAX_STATE_BYTES, topic_ids, topic_specs
from eddy.stream.kafka.waiting import wait_until
from eddy.stream.records.settings import Settings

Configs = dict[str, dict[str, str]]
"""By topic: the settings that somebody has set on it, in Kafka's names."""

SIZE = "max.message.bytes"
CLOSED = "1"
"""The value of `SIZE` that closes a topic: no record is so small, so writers get an error."""

_WAIT_S = 60.0
_POLL_S = 0.05


class Topics:
    """The four topics that are partitioned by user, and the topic `staging`, where their contents wait."""

    def __init__(self, settings: Settings, admin: KafkaAdminClient) -> None:
        self._settings, self._admin = settings, admin
        self.staging = settings.topic_prefix + "repartition"
        self.by_user = [spec.name for spec in topic_specs(settings) if spec.by_user]
        self.events = settings.topics.events

    def partitions(self, topic: str) -> int:
        """The number of a topic's partitions; 0 for a topic that does not exist."""
        return len(self._admin.describe_topics([topic])[0]["partitions"])

    def event_topic_id(self) -> bytes:
        """The id of `events`. Errors: EddyError when there is no such topic."""
        return topic_ids(self._admin, [self.events])[self.events].bytes

    # -- groups -----------------------------------------------------------------------------------------

    def _groups(self) -> dict[str, str]:
        """State of each consumer group, by name."""
        return {group["group_id"]: group["group_state"] for group in self._admin.list_groups()}

    def require_stopped(self) -> None:
        """Errors: EddyError while a worker or an ingest is a member of its group."""
        workers = self._settings.group
        for group, state in sorted(self._groups().items()):
            is_eddys = group == workers or group.startswith(f"{workers}-ingest-")
            if is_eddys and state not in ("Empty", "Dead"):
                raise EddyError(
                    f"group {group} has members: stop workers and `eddy ingest`, then run this again "
                    f"(a killed process leaves the group after {self._settings.session_timeout_s:.0f} s)"
                )

    def committed(self) -> dict[int, int]:
        """The workers' committed offset of each partition of `events` that has one."""
        group = self._settings.group
        if group not in self._groups():
            return {}
        offsets = self._admin.list_group_offsets([group])[group]
        return {
            tp.partition: at.offset
            for tp, at in offsets.items()
            if tp.topic == self.events and at.offset >= 0
        }

    def reset_committed(self, partitions: int) -> None:
        """Let the workers begin at the start of every partition."""
        group = self._settings.group
        if group in self._groups():
            start = {TopicPartition(self.events, n): OffsetAndMetadata(0, "") for n in range(partitions)}
            for tp, error in self._admin.alter_group_offsets(group, start).items():
                if error.errno:
                    raise EddyError(f"group {group}: the offset of {tp} cannot be reset ({error.__name__})")

    def bounds(self) -> tuple[dict[int, int], dict[int, int]]:
        """The first and the next offset of each partition of `events`."""
        tps = [TopicPartition(self.events, number) for number in range(self.partitions(self.events))]
        first, following = (
            {tp.partition: at.offset for tp, at in self._admin.list_partition_offsets(spec).items()}
            for spec in (dict.fromkeys(tps, OffsetSpec.EARLIEST), dict.fromkeys(tps, OffsetSpec.LATEST))
        )
        return first, following

    # -- topics -----------------------------------------------------------------------------------------

    def configs(self) -> Configs:
        """The settings of the four topics that differ from the cluster's, whoever has set them."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in self.by_user]
        described = self._admin.describe_configs(resources, config_filter="modified")["topic"]
        return {
            name: {
                key: str(entry["value"])
                for key, entry in described[name].items()
                if entry["config_source"] == "DYNAMIC_TOPIC_CONFIG"
            }
            for name in self.by_user
        }

    def set_size(self, size: str) -> None:
        """Close `events` to writers (CLOSED), or open it to records of up to `size` bytes."""
        resource = ConfigResource(ConfigResourceType.TOPIC, self.events, {SIZE: size})
        self._admin.alter_configs([resource])
        self._until(lambda: self.configs()[self.events].get(SIZE) == size, f"{SIZE} of {self.events}")

    def delete(self, names: Sequence[str]) -> None:
        """Delete those of the topics that exist."""
        existing = sorted(set(names) & set(self._admin.list_topics()))
        if existing:
            self._admin.delete_topics(existing)
            self._until(
                lambda: not set(existing) & set(self._admin.list_topics()), f"deleting {', '.join(existing)}"
            )

    def create(self, partitions: int, configs: Mapping[str, Mapping[str, str]]) -> None:
        """Create topics with these settings, by name."""
        specs = {
            name: {
                "num_partitions": partitions,
                "replication_factor": self._settings.replication,
                "configs": dict(config),
            }
            for name, config in configs.items()
        }
        self._admin.create_topics(specs)
        self._admin.wait_for_topics(list(specs))

    def create_staging(self, partitions: int) -> None:
        """Create `staging`, whose records must not expire."""
        self.create(partitions, {self.staging: {"retention.ms": "-1", SIZE: str(MAX_STATE_BYTES)}})

    def _until(self, holds: Callable[[], bool], change: str) -> None:
        if not wait_until(holds, _WAIT_S, _POLL_S):
            raise EddyError(f"{change}: the cluster did not do it within {_WAIT_S:.0f} s; run this again")


__all__ = ["CLOSED", "SIZE", "Configs", "Topics"]
