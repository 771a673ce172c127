"""What each command does on the cluster, as the permissions (ACLs) that it needs and no more.

This table is the only one: `eddy acls` prints it, each command checks it before it begins, and a test on a
secured broker shows that it is enough and that nothing of it is superfluous.

READ, WRITE, DELETE and ALTER include DESCRIBE. The producers are idempotent, for which a cluster of Kafka 3
or later wants nothing beside WRITE on a topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from shlex import quote

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings, TopicNames

TOPICS = tuple(name for name, value in vars(TopicNames).items() if isinstance(value, property))
"""The topics of an installation, by the names of their attributes in `TopicNames`."""

RESOURCES = ("topic", "group", "transactional-id")
"""Kinds of resources, as kafka-acls names its options."""

INCLUDE_DESCRIBE = {"READ", "WRITE", "DELETE", "ALTER"}


@dataclass(frozen=True, order=True)
class Permission:
    """One operation on one resource, or on all whose names begin alike."""

    resource: str
    """one of RESOURCES"""
    name: str
    operation: str
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.prefixed else ''}"


@dataclass(frozen=True)
class _Needs:
    """The operations of a command, several separated by blanks."""

    topics: Mapping[str, str] = field(default_factory=dict)
    """by an entry of TOPICS"""
    every_topic: str = ""
    """on all of TOPICS"""
    repartition: str = ""
    """on the topic that `eddy repartition` makes and removes"""
    source: str = ""
    """on the topic that the command's option --topic names"""
    group: str = ""
    """on the workers' consumer group"""
    ingest_group: str = ""
    """on the consumer group of `eddy ingest` for the topic `source`, or on all of them where there is none"""
    transactions: str = ""
    """on the transactional ids of the workers"""
    announcer: str = ""
    """on the transactional id of those who announce a version"""


_CHECK = "DESCRIBE DESCRIBE_CONFIGS"
"""Most commands check first that the topics are as they have to be."""

_LISTS = dict.fromkeys(("items", "model_versions", "item_stats", "user_state"), "READ")
"""Whoever makes lists follows these topics."""

_ANNOUNCE = _Needs({"model_versions": "READ WRITE"}, _CHECK, announcer="WRITE")

_NEEDS: dict[str, _Needs] = {
    "topics": _Needs(every_topic=f"CREATE {_CHECK}"),
    "worker": _Needs(
        {
            "events": "READ",
            "items": "READ WRITE",
            "recommendations": "WRITE",
            "user_state": "READ WRITE",
            "model_versions": "READ",
            "item_stats": "READ WRITE",
            "metrics": "WRITE",
            "dead_letters": "WRITE",
        },
        _CHECK,
        group="READ",
        transactions="WRITE",
    ),
    # Who announces over HTTP needs what `announce` does as well.
    "serve": _Needs(
        {**_LISTS, "metrics": "READ", "dead_letters": "READ", "events": "WRITE"}, _CHECK, group="DESCRIBE"
    ),
    "recommend": _Needs(_LISTS, _CHECK, source="WRITE"),
    "replay": _Needs({"events": "WRITE"}, _CHECK),
    "ingest": _Needs(
        {"events": "READ WRITE", "dead_letters": "WRITE"}, _CHECK, source="READ", ingest_group="READ"
    ),
    "export": _Needs({"events": "READ"}),
    "refresh": _Needs(
        {"events": "READ", "model_versions": "READ WRITE", "metrics": "READ"}, _CHECK, announcer="WRITE"
    ),
    "train": _ANNOUNCE,
    "announce": _ANNOUNCE,
    "models list": _Needs({"model_versions": "READ"}),
    "models rollback": _Needs({"model_versions": "READ WRITE"}, announcer="WRITE"),
    "models prune": _Needs({"model_versions": "READ WRITE", "user_state": "READ"}, repartition="DESCRIBE"),
    "models watch": _Needs({"model_versions": "READ WRITE", "metrics": "READ"}, _CHECK, announcer="WRITE"),
    "rules": _Needs({"items": "WRITE"}),
    "erase": _Needs({"events": "WRITE", "user_state": "READ"}, group="DESCRIBE"),
    "repartition": _Needs(
        {
            "events": "READ WRITE CREATE DELETE ALTER_CONFIGS DESCRIBE_CONFIGS",
            "user_state": "READ WRITE CREATE DELETE DESCRIBE_CONFIGS",
            "item_stats": "READ WRITE CREATE DELETE DESCRIBE_CONFIGS",
            "recommendations": "CREATE DELETE DESCRIBE_CONFIGS",
            "model_versions": "READ",
        },
        repartition="READ WRITE CREATE DELETE",
        group="READ",
        ingest_group="DESCRIBE",
        transactions="WRITE",
    ),
}

COMMANDS = tuple(_NEEDS)
"""The commands that need permissions."""


def needed_by(command: str, settings: Settings, source: str | None = None) -> list[Permission]:
    """The permissions of a command, in order. source: the topic of its option --topic, where it has one.

    Errors: EddyError for a command that is not one of COMMANDS.
    """
    if command not in _NEEDS:
        raise EddyError(f"no command {command!r} needs permissions; these do: {', '.join(COMMANDS)}")
    needs, names = _NEEDS[command], settings.topics
    permissions = set[Permission]()
    for topic in TOPICS:
        permissions.update(
            _on("topic", getattr(names, topic), f"{needs.topics.get(topic, '')} {needs.every_topic}")
        )
    permissions.update(_on("topic", f"{names.prefix}repartition", needs.repartition))
    if source:
        permissions.update(_on("topic", source, needs.source))
    permissions.update(_on("group", settings.group, needs.group))
    ingest_groups = f"{settings.group}-ingest-{source or ''}"
    permissions.update(_on("group", ingest_groups, needs.ingest_group, prefixed=not source))
    permissions.update(_on("transactional-id", f"{settings.group}-", needs.transactions, prefixed=True))
    permissions.update(_on("transactional-id", announcer_of(names.model_versions), needs.announcer))
    return sorted(permissions)


def announcer_of(topic: str) -> str:
    """The transactional id of those who announce versions on a topic."""
    return f"{topic}-announcer"


def _on(resource: str, name: str, operations: str, prefixed: bool = False) -> Iterable[Permission]:
    each = set(operations.split())
    if each & INCLUDE_DESCRIBE:
        each.discard("DESCRIBE")
    return (Permission(resource, name, operation, prefixed) for operation in each)


def principal_of(settings: Settings) -> str | None:
    """Kafka's name of the user that the settings log in as; None where only the cluster knows it."""
    by_name = settings.sasl_mechanism not in (None, "OAUTHBEARER") and settings.sasl_username
    return f"User:{settings.sasl_username}" if by_name else None


def acl_commands(permissions: Iterable[Permission], principal: str) -> list[str]:
    """The `kafka-acls` commands that allow a principal these permissions, one for each resource."""
    operations: dict[tuple[str, str, bool], list[str]] = {}
    for each in sorted(permissions):
        operations.setdefault((each.resource, each.name, each.prefixed), []).append(each.operation)
    return [
        f'kafka-acls --bootstrap-server "$EDDY_BOOTSTRAP_SERVERS" --add --allow-principal {quote(principal)} '
        + " ".join(f"--operation {operation}" for operation in of_resource)
        + f" --{resource} {quote(name)}"
        + (" --resource-pattern-type prefixed" if prefixed else "")
        for (resource, name, prefixed), of_resource in operations.items()
    ]


__all__ = [
    "COMMANDS",
    "INCLUDE_DESCRIBE",
    "RESOURCES",
    "TOPICS",
    "Permission",
    "acl_commands",
    "announcer_of",
    "needed_by",
    "principal_of",
]
