"""Shares of users on a real broker: worker and server hold all versions of the newest announcement."""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaProducer

from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import announce, announce_shares
from eddy.stream.records.settings import load_settings
from eddy.stream.state.sampling import share_of
from tests.support.engines import random_version
from tests.support.serving_system import ITEMS, System, message_at, process, server, with_topics
from tests.support.waiting import eventually

USERS = [f"user-{number}" for number in range(12)]


def test_each_user_is_answered_by_the_version_of_their_share(broker: str, tmp_path: Path) -> None:
    settings = load_settings(
        bootstrap_servers=broker,
        topic_prefix="test-shares.",
        group="test-shares",
        partitions=2,
        registry=tmp_path / "registry",
    )
    first, second, third = (
        random_version(settings.registry, hidden=hidden, items=ITEMS, seed=hidden) for hidden in (16, 24, 8)
    )
    announce(with_topics(settings), first)
    producer = KafkaProducer(**client_config(settings), acks="all")
    with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
        system = System(settings, client, producer)
        for user in USERS:
            system.send_and_see(user, [1, 2, 3])
        announcement = announce_shares(settings, [(second, 50), (third, 50)])
        share = share_of([user.encode() for user in USERS], announcement.epoch, [50, 50])
        expected = {user: (second, third)[number].id for user, number in zip(USERS, share, strict=True)}
        assert set(expected.values()) == {second.id, third.id}
        # Rows that are there move in the background, to the server's view, too.
        eventually(lambda: {user: system.ask(user)["version"] for user in USERS} == expected)
        for user in USERS:
            message = message_at(settings, system.send_and_see(user, [5]))
            assert (message["version"], message["epoch"]) == (expected[user], announcement.epoch)
        # A new user begins with the version of their share.
        (number,) = share_of([b"newcomer"], announcement.epoch, [50, 50])
        message = message_at(settings, system.send_and_see("newcomer", [7]))
        assert message["version"] == (second, third)[number].id
        # One more announcement ends the experiment.
        announce(settings, first)
        eventually(lambda: {system.ask(user)["version"] for user in [*USERS, "newcomer"]} == {first.id})
    producer.close()
