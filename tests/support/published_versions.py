"""Versions that were published and announced, the rows that name them, and what of them may go."""

from __future__ import annotations

from kafka import KafkaProducer

from eddy.models.registry import Version, versions
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import (
    all_announcements,
    open_version,
)
from eddy.stream.prune import plan_prune, prune
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import keyed
from tests.chaos.traffic import START_MS
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows

USERS = ("ada", "bob", "eve")


def publish(settings: Settings, count: int) -> list[Version]:
    return [random_version(settings.registry, hidden=8, items=20, seed=seed) for seed in range(count)]


def rows_of(version: Version, epoch: int, users: tuple[str, ...] = USERS) -> list[Message]:
    """What a worker writes to partition 0 of `user-state` for users that have a row of this version."""
    engine = new_engine(version, epoch)
    happenings = [Happening(user, item_id(n), START_MS + n) for n, user in enumerate(users)]
    engine.apply([batch(happenings, range(len(users)))])
    return list(keyed(stored_rows(engine)))


def write(settings: Settings, topic: str, messages: list[Message]) -> None:
    producer = KafkaProducer(**client_config(settings), acks="all")
    for key, value in messages:
        producer.send(topic, key=key, value=value, partition=0)
    producer.flush()
    producer.close()


def write_rows(settings: Settings, messages: list[Message]) -> None:
    write(settings, settings.topics.user_state, messages)


def prunable(settings: Settings, keep: int = 1) -> list[str]:
    return list(plan_prune(settings, keep).removed)


def pruned(settings: Settings, keep: int = 1) -> list[str]:
    return prune(settings, plan_prune(settings, keep))


def announced(settings: Settings) -> set[str]:
    return {share.version for each in all_announcements(settings) for share in each.every_share}


def assert_whole(settings: Settings) -> None:
    """No announcement names a version that cannot be loaded, and nothing unfinished lies in the registry."""
    for announcement in all_announcements(settings):
        for share in announcement.every_share:
            open_version(share, settings.registry)
    left = set(settings.registry.children()) - set(versions(settings.registry))
    assert left <= {".lock", "decisions"}
