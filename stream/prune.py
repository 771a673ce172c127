"""`eddy models prune`: removes the versions that nothing needs any more from the registry.

A version stays that the live announcement names, that a row on `user-state` names (by itself, or by the epoch
of an announcement that names it), that a roll-back would lead to, or that is among the newest. All others go,
in an order that leaves no announcement of a version that is gone, wherever the process is killed:

1. Announcements that name a version that is to go are withdrawn by tombstones.
2. The folders of these versions get names by which nobody can load them.
3. The announcements are read again. A version that was announced meanwhile gets its name back; whoever
   announces one afterwards finds that its folder is missing (`eddy.stream.kafka.versions`).
4. The folders are removed. What a killed process leaves of them is removed by the next `prune`, or by the
   next training that publishes a version.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as ClientError
from kafka.errors import KafkaError
from kafka.errors import KafkaTimeoutError as SendTimeoutError

from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash
from eddy.models.registry import remove, versions
from eddy.models.storage import Location, one_line
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topics import require_topics
from eddy.stream.kafka.versions import all_announcements, announcements_by_key, oldest_first, withdraw
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from eddy.stream.repartition.topics import Topics
from eddy.stream.rollback import version_before
from eddy.stream.state.stored_rows import decode_newest

Show = Callable[[int, int], None]
"""(done, of): how much of `user-state` is read"""

_PARTS = 1000  # of a partition, in which progress is shown

NamedAt = tuple[int, int]
"""(epoch, hash of the version's id), as a row names them"""


@dataclass(frozen=True)
class PrunePlan:
    """What a prune would do."""

    removed: dict[str, int] = field(default_factory=dict)
    """bytes of each version that would go, oldest first"""
    kept: dict[str, str] = field(default_factory=dict)
    """why each other version stays, oldest first"""
    withdrawn: list[bytes] = field(default_factory=list)
    """keys of the announcements that name a version that would go"""


def plan_prune(settings: Settings, keep: int, show: Show = lambda done, of: None) -> PrunePlan:
    """What can go; changes nothing. keep: so many of the newest versions stay, at least 1.

    Errors: EddyError when the cluster does not answer or has no such topics, when a repartition is
    unfinished, and when a row cannot be read, so that it is not known which version it names.
    """
    try:
        # 1. What announcements and rows name.
        partitions = _partitions(settings)
        by_key = announcements_by_key(settings)
        announcements = oldest_first(by_key.values())
        rows = asyncio.run(_named_by_rows(settings, partitions, show))
    except (KafkaError, ClientError, OSError) as error:
        raise EddyError(
            f"prune: the cluster cannot be read, and nothing was removed ({type(error).__name__}: {error}); "
            "run it again"
        ) from None
    # 2. Which versions these are, and which others stay.
    ids = versions(settings.registry)
    needed = dict.fromkeys(ids[-keep:], f"one of the newest {keep}")
    needed |= _needed_by_rows(ids, rows, announcements)
    if (before := version_before(announcements)) is not None:
        needed[before.version] = "what eddy models rollback leads to"
    newest = by_key.get(b"live")
    in_force = announcements[-1:] + ([newest] if newest else [])
    for announcement in in_force:
        for share in announcement.every_share:
            needed[share.version] = f"live as epoch {announcement.epoch}"
    removed = {id_: _bytes(settings.registry / id_) for id_ in ids if id_ not in needed}
    # 3. Which announcements name the others.
    return PrunePlan(
        removed,
        kept={id_: needed[id_] for id_ in ids if id_ in needed},
        withdrawn=[key for key, each in by_key.items() if _names(each).intersection(removed)],
    )


def prune(settings: Settings, plan: PrunePlan) -> list[str]:
    """Do what the plan says; returns the versions that are gone.

    Errors: EddyError; it can always be run again, with a new plan.
    """
    try:
        withdraw(settings, plan.withdrawn)
        return remove(settings.registry, plan.removed, lambda: _announced(settings))
    except (KafkaError, SendTimeoutError) as error:
        raise EddyError(
            f"prune: the cluster did not answer ({type(error).__name__}: {error}); run it again"
        ) from None


def _names(announcement: Announcement) -> set[str]:
    return {share.version for share in announcement.every_share}


def _announced(settings: Settings) -> set[str]:
    """The versions that announcements name now."""
    return {name for announcement in all_announcements(settings) for name in _names(announcement)}


def _bytes(folder: Location) -> int:
    """What the files of a version take."""
    try:
        return sum(file.bytes for file in folder.files())
    except OSError as error:
        raise EddyError(f"{folder}: cannot be read ({one_line(error)}); check {folder.advice}") from None


def _partitions(settings: Settings) -> int:
    """The partitions of `user-state`. Errors: EddyError when what rows name cannot be read from it."""
    names = settings.topics
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "models prune")
        topics = Topics(settings, admin)
        if topics.partitions(topics.staging):
            raise EddyError(
                "prune: an `eddy repartition` is unfinished, so rows are on their way; run that again first"
            )
        # Versions without these topics are another installation's.
        require_topics(admin, [names.model_versions, names.user_state])
        return topics.partitions(names.user_state)


async def _named_by_rows(settings: Settings, partitions: int, show: Show) -> Counter[NamedAt]:
    """How many users' rows name each epoch and version.

    Errors: EddyError when a user's row cannot be read.
    """
    named: Counter[NamedAt] = Counter()
    for number in range(partitions):

        def show_part(part: int, before: int = number * _PARTS) -> None:
            show(before + part, partitions * _PARTS)

        named.update(await _named_in(settings, number, show_part))
    return named


async def _named_in(settings: Settings, number: int, show: Callable[[int], None]) -> Counter[NamedAt]:
    """The same for one partition, of which no more is held than what each user's newest row names."""
    topic = settings.topics.user_state
    of_user: dict[bytes, NamedAt] = {}
    damaged: dict[bytes, str] = {}
    alike: dict[NamedAt, NamedAt] = {}
    first, end = 0, 0

    async def expect(_: TopicPartition, begins: int, ends: int) -> None:
        nonlocal first, end
        first, end = begins, ends

    async def take(_: TopicPartition, records: Records) -> None:
        newest = {record.key: record.value for record in records if record.key is not None}
        stored = await asyncio.to_thread(decode_newest, newest)
        for user in newest:
            of_user.pop(user, None)
            damaged.pop(user, None)
        damaged.update(stored.damaged)
        for rows in stored.rows:
            for user, named in zip(
                rows.user, zip(rows.epoch.tolist(), rows.version.tolist(), strict=True), strict=True
            ):
                of_user[user] = alike.setdefault(named, named)
        show(min(_PARTS, _PARTS * (records[-1].offset + 1 - first) // max(end - first, 1)))

    await read_to_end(settings, topic, [number], take, expect=expect)
    if damaged:
        user, why = next(iter(damaged.items()))
        raise EddyError(
            f"prune: {topic} partition {number}, {len(damaged)} rows: {why}; so which version is needed is "
            "not known. To give a row up, write a record without a value (null) under its key, "
            f"{user!r}, to this partition"
        )
    show(_PARTS)
    return Counter(of_user.values())


def _needed_by_rows(
    ids: Sequence[str], rows: Counter[NamedAt], announcements: Sequence[Announcement]
) -> dict[str, str]:
    """Why each version is needed that rows name, and each that the announcement of a row's epoch names: a
    process that finds the row looks its epoch up there.
    """
    epochs = {epoch for epoch, _ in rows}
    needed = {
        name: f"an announcement names it beside the version of rows of epoch {announcement.epoch}"
        for announcement in announcements
        if announcement.epoch in epochs
        for name in _names(announcement)
    }
    for id_ in ids:
        if users := sum(count for (_, version), count in rows.items() if version == item_hash(id_)):
            needed[id_] = f"rows of {users} users name it"
    return needed


__all__ = ["PrunePlan", "plan_prune", "prune"]
