"""The HTTP server on a real broker goes on while users, items, rules and versions come and go."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaProducer

from eddy.cli.rules import publish_rules
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash
from eddy.models.registry import Version
from eddy.serving.app import new_app
from eddy.serving.service import Service
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import announce
from eddy.stream.records.schema import RULES_KEY, Announcement, encode
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_key
from tests.support.engines import item_id, random_version
from tests.support.kafka_clusters import MakeSettings
from tests.support.serving_system import ITEMS, System, message_at, newest, server, with_topics
from tests.support.waiting import eventually


def test_an_erased_user_becomes_unknown(system: System) -> None:
    partition, _ = system.send_and_see("erased", [5, 6, 7])
    system.producer.send(system.settings.topics.events, key=b"erased", partition=partition).get(timeout=30)
    eventually(lambda: not system.ask("erased")["known"])


def test_a_refresh_does_not_interrupt_answers(system: System) -> None:
    users = [f"refreshed-{number}" for number in range(30)]
    for number, user in enumerate(users):
        at = system.send(user, [number, number + 1])
    eventually(lambda: system.serves(users[-1], at))
    eventually(lambda: all(system.ask(user)["known"] for user in users))
    first = system.ask(users[0])["version"]
    stop, wrong, met = threading.Event(), list[Any](), set[str]()

    def keep_asking() -> None:
        with httpx.Client(base_url=system.client.base_url, timeout=30) as client:
            while not stop.is_set():
                for user in users:
                    response = client.get(f"/v1/users/{user}/recommendations")
                    answer = response.json()
                    if response.status_code != 200 or not answer["known"] or len(answer["items"]) != 20:
                        wrong.append(answer)
                    met.add(answer["version"])

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        eventually(lambda: first in met)
        second = random_version(system.settings.registry, hidden=24, items=ITEMS, seed=2)
        announced = announce(system.settings, second)
        eventually(lambda: {system.ask(user)["version"] for user in users} == {second.id})
    finally:
        stop.set()
        asking.join()
    assert wrong == []
    assert met == {first, second.id}
    assert system.ask(users[0])["epoch"] == announced.epoch


def test_a_withdrawn_item_leaves_the_lists_of_worker_and_server_until_its_metadata_is_back(
    system: System,
) -> None:
    """The worker also writes the withdrawal where compaction leaves it."""
    topic, user = system.settings.topics.items, "withdrawing"
    message = message_at(system.settings, system.send_and_see(user, [17, 18, 19]))
    gone = message["items"][0]["item_id"]
    carried = dictionary_key(item_hash(gone))

    def say(value: bytes | None) -> None:
        system.producer.send(topic, key=gone.encode(), value=value).get(timeout=30)

    def listed_everywhere(whether: bool) -> bool:
        """In what server and worker say now to the user, and the server to a stranger."""
        message = message_at(system.settings, system.send_and_see(user, [17, 18, 19, number_of(gone)]))
        lists = system.ask(user, k=1000), system.ask("stranger", k=1000), message
        return all(any(item["item_id"] == gone for item in one["items"]) == whether for one in lists)

    eventually(lambda: listed_everywhere(True))
    for withdrawal in (None, encode({"item_id": gone, "available": False})):
        say(withdrawal)
        eventually(lambda: listed_everywhere(False))
        if withdrawal is None:
            eventually(lambda: b"withdrawn" in newest(system.settings, topic).get(carried, b""))
        say(encode({"item_id": gone}))
        eventually(lambda: listed_everywhere(True))


def test_rules_come_into_force_without_a_restart_and_bad_ones_change_nothing(
    system: System, tmp_path: Path
) -> None:
    system.send_and_see("ruled", [1, 2])
    pinned, file = item_id(150), tmp_path / "rules.json"

    def first() -> str:
        name: str = system.ask("ruled", k=3)["items"][0]["item_id"]
        return name

    assert first() != pinned
    file.write_text(json.dumps({"rules": [{"name": "home", "pin": [pinned]}]}))
    assert publish_rules(system.settings, file) == 1
    eventually(lambda: first() == pinned)
    system.producer.send(system.settings.topics.items, key=RULES_KEY, value=b"{}").get(timeout=30)
    file.write_text("{}")
    with pytest.raises(EddyError, match=r"rules\.json: the rules cannot be used: rules: Field required"):
        publish_rules(system.settings, file)
    system.send_and_see("ruled", [3])
    assert first() == pinned
    file.write_text('{"rules": []}')
    assert publish_rules(system.settings, file) == 0
    eventually(lambda: first() != pinned)


def number_of(item: str) -> int:
    return int(item.removeprefix("item-"))


def test_metrics_tell_of_rows_requests_and_freshness(system: System) -> None:
    text = system.client.get("/metrics").text
    assert "eddy_ready 1.0" in text
    assert 'eddy_requests_total{outcome="known"}' in text
    topic = system.settings.topics.user_state
    assert f'eddy_followed_seconds_count{{topic="{topic}"}}' in text
    assert float(text.split("\neddy_rows ")[1].split()[0]) >= 20


def test_without_a_version_the_server_lives_but_is_not_ready(make_settings: MakeSettings) -> None:
    with server(make_settings()) as client:
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        assert response.status_code == 503
        assert any("no model version" in reason for reason in response.json()["reasons"])
        answer = client.get("/v1/users/anybody/recommendations")
        assert (answer.status_code, answer.json()["items"]) == (200, [])


def test_a_version_that_cannot_be_read_leaves_the_one_before_in_service(settings: Settings) -> None:
    """Reported until its files are there, then taken."""
    with_topics(settings)
    first = random_version(settings.registry, items=ITEMS)
    announce(settings, first)
    second = random_version(settings.registry, items=ITEMS, seed=1)
    elsewhere = Path(settings.registry).parent / "elsewhere"
    second.path.rename(elsewhere)
    missing = Announcement(2, second.id, str(second.path), 0)
    producer = KafkaProducer(**client_config(settings))
    producer.send(settings.topics.model_versions, key=b"live", value=b"not json").get(timeout=30)
    producer.send(settings.topics.model_versions, key=b"live", value=encode(missing)).get(timeout=30)
    producer.send(settings.topics.user_state, key=b"u", value=b"no row").get(timeout=30)
    producer.close()
    asyncio.run(_serves_through(settings, second, lambda: elsewhere.rename(second.path)))


async def _serves_through(settings: Settings, second: Version, repair: Callable[[], Path]) -> None:
    service = Service(settings, retry_s=0.05)
    await service.start()
    service.serve_others()
    transport = httpx.ASGITransport(new_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client, asyncio.timeout(60):
        ready = await client.get("/readyz")
        while ready.status_code != 200 or not ready.json()["problems"]:
            await asyncio.sleep(0.02)
            ready = await client.get("/readyz")
        assert second.id in ready.json()["problems"][0]
        assert "eddy_epoch 1.0" in (await client.get("/metrics")).text
        assert (await client.get("/v1/users/u/recommendations")).status_code == 200
        repair()
        while ready.json()["problems"]:
            await asyncio.sleep(0.02)
            ready = await client.get("/readyz")
        metrics = (await client.get("/metrics")).text
        assert "eddy_epoch 2.0" in metrics
        for topic in (settings.topics.user_state, settings.topics.model_versions):
            assert f'eddy_unreadable_total{{topic="{topic}"}} 1.0' in metrics
        assert f'eddy_unreadable_total{{topic="{settings.topics.items}"}} 0.0' in metrics
    await service.stop()
