"""Events over HTTP on a real broker and with a real worker: what is accepted is applied, and can be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kafka import KafkaProducer

from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings, load_settings
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id, random_version
from tests.support.serving_system import ITEMS, process, server, with_topics
from tests.support.waiting import eventually

TRIES = 20
PATIENCE_MS = 10_000


class System:
    """A worker and a server on topics of their own."""

    def __init__(self, settings: Settings, client: httpx.Client) -> None:
        self.settings, self.client = settings, client

    def post(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Where each event is, all of which must be accepted."""
        response = self.client.post("/v1/events", json=events)
        assert response.status_code == 202, response.text
        accepted: list[dict[str, Any]] = response.json()["accepted"]
        return accepted

    def ask(self, path: str, wait_for: str, wait: int = PATIENCE_MS) -> dict[str, Any]:
        response = self.client.get(path, params={"wait_for": wait_for, "wait": wait})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def list_with(self, user: str, wait_for: str) -> dict[str, Any]:
        """A user's list, the record included. A loaded machine may need longer than one answer waits."""
        answers: list[dict[str, Any]] = []

        def included() -> bool:
            answers.append(self.ask(f"/v1/users/{user}/recommendations", wait_for))
            return bool(answers[-1]["includes"])

        eventually(included, within_s=60, what=f"a list that includes {wait_for}")
        return answers[-1]

    def stored_with(self, user: str, wait_for: str) -> dict[str, Any]:
        """What is stored of a user, the record included."""
        self.list_with(user, wait_for)
        return self.ask(f"/v1/users/{user}", wait_for)


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("events-over-http")
    settings = load_settings(
        bootstrap_servers=broker,
        topic_prefix="test-http-events.",
        group="test-http-events",
        partitions=2,
        registry=folder / "registry",
    )
    announce(with_topics(settings), random_version(settings.registry, items=ITEMS))
    with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, within_s=120)
        System(settings, client).post({"user_id": "first", "item_id": item_id(0)})
        eventually(lambda: client.get("/v1/users/first").status_code == 200, within_s=120)
        yield System(settings, client)


def test_a_list_that_waits_for_an_event_includes_it(system: System) -> None:
    for number in range(TRIES):
        user = f"reader-{number % 5}"
        (accepted,) = system.post({"user_id": user, "item_id": item_id(number)})
        answer = system.list_with(user, accepted["wait_for"])
        assert (answer["partition"], answer["offset"]) == (accepted["partition"], accepted["offset"])


def test_many_events_of_many_users_are_all_applied_in_order(system: System) -> None:
    now = time.time_ns() // 1_000_000
    posted = [
        {"user_id": f"many-{n % 7}", "item_id": item_id(n % ITEMS), "timestamp": now - 1000 + n}
        for n in range(300)
    ]
    accepted = system.post(*posted)
    last = {event["user_id"]: at["wait_for"] for event, at in zip(posted, accepted, strict=True)}
    for user in range(7):
        stored = system.stored_with(f"many-{user}", last[f"many-{user}"])
        assert stored["event_count"] == len(range(user, 300, 7))
        expected = [event["item_id"] for event in posted if event["user_id"] == f"many-{user}"]
        items = [event["item_id"] for event in stored["events"]]
        assert items == expected[-len(items) :]


def test_an_event_that_is_sent_again_is_written_again_and_counted_once(system: System) -> None:
    event = {"user_id": "twice", "item_id": item_id(3), "event_id": "click-1"}
    system.post(event)
    (again,) = system.post(event)
    assert system.stored_with("twice", again["wait_for"])["event_count"] == 1


def test_an_erased_user_is_gone_for_whoever_waits_for_the_erasure(system: System) -> None:
    user = "erase/me ü"
    (accepted,) = system.post({"user_id": user, "item_id": item_id(4)})
    assert len(system.stored_with(user, accepted["wait_for"])["events"]) == 1
    response = system.client.delete(f"/v1/users/{user}")
    assert response.status_code == 202
    token = response.json()["wait_for"]
    assert system.list_with(user, token)["known"] is False
    assert system.client.get(f"/v1/users/{user}", params={"wait_for": token}).status_code == 404


def test_an_event_that_moves_no_state_is_included_when_workers_are_past_it(system: System) -> None:
    """Here a dead letter: a record that some other producer has written under a key of its own."""
    producer = KafkaProducer(**client_config(system.settings), acks="all")
    try:
        sent = producer.send(system.settings.topics.events, b"no event", b"stranger").get(timeout=30)
    finally:
        producer.close()
    assert system.list_with("stranger", f"{sent.partition}:{sent.offset}")["known"] is False


def test_a_record_that_is_not_there_is_not_included_and_not_waited_for_too_long(system: System) -> None:
    (accepted,) = system.post({"user_id": "early", "item_id": item_id(5)})
    later = f"{accepted['partition']}:{accepted['offset'] + 1_000_000}"
    began = time.monotonic()
    answer = system.ask("/v1/users/early/recommendations", later, wait=300)
    assert answer["includes"] is False
    assert time.monotonic() - began >= 0.3


def test_nothing_that_was_accepted_is_a_dead_letter(system: System) -> None:
    letters = Cluster(system.settings).read(system.settings.topics.dead_letters, 1)
    assert {letter.value for letter in letters} <= {b"no event"}
