"""What the live page asks, on a real broker with one worker and one server: the moment, persons, hidden
states, versions and items.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from kafka import KafkaProducer

from eddy.models.registry import Version
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.records.worker_reports import KEY_PREFIX
from tests.support.engines import item_id, random_version
from tests.support.serving_system import ITEMS, System, process, server, with_topics
from tests.support.waiting import eventually


class Running(NamedTuple):
    """One installation at work."""

    system: System
    client: httpx.Client
    settings: Settings
    version: Version


@pytest.fixture(scope="module")
def running(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("live")
    settings = with_topics(
        load_settings(
            bootstrap_servers=broker, topic_prefix="test-live.", group="test-live", partitions=2,
            registry=folder / "registry",
        )
    )  # fmt: skip
    version = random_version(settings.registry, hidden=16, items=ITEMS, half_lives_ms=(86_400_000,))
    announce(settings, version)
    producer = KafkaProducer(**client_config(settings), acks="all")
    with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
        yield Running(System(settings, client, producer), client, settings, version)
    producer.close()


class Stream:
    """A stream of events, as a page reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, Any]:
        """The next event: its name and its content."""
        name = ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    def until(self, name: str, holds: Any = lambda content: True) -> Any:
        """The next event of this name of which the condition holds."""
        for _ in range(120):
            told, content = self.next()
            if told == name and holds(content):
                return content
        raise AssertionError(f"no such event: {name}")


def test_the_moment_is_told_once_a_second_with_the_worker_and_its_rows(running: Running) -> None:
    with running.client.stream("GET", "/v1/live") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        stream.until("now", lambda now: now["workers"] and now["workers"][0]["state"] == "running")
        running.system.send_and_see("anna", [1, 2, 3])
        now = stream.until("now", lambda now: now["freshness_ms"] and now["rows"])
    (worker,) = now["workers"]
    assert worker["partitions"] == [0, 1]
    assert (now["partitions"], now["partitions_without_worker"], now["lag"]) == (2, [], 0)
    assert 0 < now["freshness_ms"]["p50"] <= now["freshness_ms"]["p99"] < 60_000
    (version,) = now["versions"]
    assert (version["version"], version["share"], version["live"]) == (running.version.id, 1.0, True)
    assert version["rows"] == now["rows"]
    history = running.client.get("/v1/live/history").json()
    assert history["interval_ms"] == 1000
    assert history["points"][-1].keys() == now.keys()


def test_a_person_s_list_is_told_again_when_an_event_of_theirs_is_applied(running: Running) -> None:
    with running.client.stream("GET", "/v1/users/berta/live?k=3") as response:
        stream = Stream(response)
        first = stream.until("list")
        assert (first["answer"]["known"], first["events"], first["row"]) == (False, [], None)
        posted = running.client.post("/v1/events", json={"user_id": "berta", "item_id": item_id(4)})
        assert int(posted.headers["x-eddy-time"]) > 0
        then = stream.until("list")
        assert [event["item_id"] for event in then["events"]] == [item_id(4)]
        assert (
            f"{then['row']['partition']}:{then['row']['offset']}" == posted.json()["accepted"][0]["wait_for"]
        )
        assert then["received_ms"] <= then["time"]
        assert [item["explanation"] is not None for item in then["answer"]["items"]] == [True] * 3
        running.client.post("/v1/events", json={"user_id": "berta", "item_id": item_id(4)})
        assert len(stream.until("list")["events"]) == 1
        assert running.client.delete("/v1/users/berta").status_code == 202
        assert stream.until("erased")["user_id"] == "berta"


def test_who_was_active_last_comes_first(running: Running) -> None:
    for user in ("carl", "dora", "carl"):
        running.system.send_and_see(user, [5])
    (last,) = running.client.get("/v1/users/active?limit=1").json()["users"]
    assert (last["user_id"], last["events"]) == ("carl", 2)


def test_a_dead_letter_is_shown_with_its_reason_and_its_bytes_as_text(running: Running) -> None:
    topic = running.settings.topics.events
    running.system.producer.send(topic, key=b"x", value=b"<b>\xff no json").get(timeout=30)

    def letters() -> Any:
        return running.client.get("/v1/dead-letters").json()

    eventually(lambda: letters()["samples"])
    (letter,) = letters()["samples"]
    assert (letter["topic"], letter["key"], letter["value"]) == (topic, "x", "<b>� no json")
    assert letter["reason"].endswith("(byte 0)")
    assert letters()["by_reason"] == {letter["reason"].replace("byte 0", "byte …"): 1}
    assert letters()["total"] == 1


def test_unreadable_reports_are_counted_and_change_nothing(running: Running) -> None:
    topic = running.settings.topics.metrics
    for key, value in (
        (KEY_PREFIX + b"stranger", b"{"),
        (b"nonsense", b"\xff"),
        (KEY_PREFIX + b"\xff", b"{}"),
    ):
        running.system.producer.send(topic, key=key, value=value).get(timeout=30)
    counted = f'eddy_unreadable_total{{topic="{topic}"}} 3.0'
    eventually(lambda: counted in running.client.get("/metrics").text)
    assert running.client.get("/readyz").status_code == 200
    points = running.client.get("/v1/live/history").json()["points"]
    assert [worker["worker"] == "stranger" for worker in points[-1]["workers"]] == [False]


def test_a_person_s_hidden_state_is_shown_through_time(running: Running) -> None:
    running.system.send_and_see("emil", [1, 2, 3, 4])
    trace = running.client.get("/v1/users/emil/trace").json()
    assert [step["item_id"] for step in trace["steps"]] == [item_id(number) for number in (1, 2, 3, 4)]
    assert (len(trace["states"]), len(trace["states"][0])) == (5, 16)
    assert sorted(trace["gates"]) == ["reset", "update"]
    listed = [item["item_id"] for item in running.system.ask("emil", k=10)["items"]]
    assert [item["item_id"] for item in trace["list"]] == listed
    assert running.client.get("/v1/users/nobody/trace").status_code == 404
    dynamics = running.client.get(f"/v1/versions/{running.version.id}/dynamics").json()
    assert dynamics["users"] >= 1
    assert len(dynamics["gradient_flow"]) == dynamics["window"] >= 4
    assert running.client.get("/v1/versions/v000099-00000000/dynamics").status_code == 404


def test_items_are_found_and_shown(running: Running) -> None:
    running.system.send_and_see("frida", [9])
    found = running.client.get("/v1/items", params={"q": item_id(9), "limit": 1}).json()["items"]
    assert [item["item_id"] for item in found] == [item_id(9)]
    detail = running.client.get(f"/v1/items/{item_id(9)}").json()
    assert (detail["item_id"], detail["versions"]) == (item_id(9), [running.version.id])
    assert running.client.get("/v1/items/nothing").status_code == 404


def test_versions_share_users_and_one_takes_them_back(running: Running) -> None:
    second = random_version(
        running.settings.registry, hidden=16, items=ITEMS, half_lives_ms=(86_400_000,), seed=2
    )

    def told() -> dict[str, Any]:
        answer: dict[str, Any] = running.client.get("/v1/versions").json()
        return answer

    def loaded() -> set[str]:
        return {version["id"] for version in told()["versions"] if version["loaded"]}

    before = told()
    assert before["shares"] == {running.version.id: 1.0}
    refused = running.client.post("/v1/versions/announce", json={"shares": {second.id: 50}})
    assert (refused.status_code, "add up to 50" in refused.json()["detail"]) == (409, True)
    for headers, status in (({"Content-Type": "text/plain"}, 400), ({}, 415)):  # what any page could send
        foreign = running.client.post("/v1/versions/rollback", content=b"{}", headers=headers)
        assert foreign.status_code == status
    announced = running.client.post(
        "/v1/versions/announce", json={"shares": {running.version.id: 90, second.id: 10}}
    )
    assert (announced.status_code, announced.json()) == (202, {"epoch": before["epoch"] + 1})
    eventually(lambda: loaded() == {running.version.id, second.id})
    eventually(lambda: told()["shares"] == {running.version.id: 0.9, second.id: 0.1})
    running.client.post("/v1/versions/announce", json={"shares": {second.id: 100}})
    eventually(lambda: told()["shares"] == {second.id: 1.0})
    went_live = next(version for version in told()["versions"] if version["id"] == second.id)
    assert (went_live["decision"]["kind"], went_live["decision"]["live"]) == ("went live", True)
    back = running.client.post("/v1/versions/rollback", json={})
    assert back.status_code == 202, back.text
    eventually(lambda: told()["shares"] == {running.version.id: 1.0})
    again = next(version for version in told()["versions"] if version["id"] == running.version.id)
    assert (again["decision"]["kind"], again["epoch"]) == ("rolled back", back.json()["epoch"])
    labels = [f'version="{running.version.id}"', f'epoch="{back.json()["epoch"]}"']
    names = ("eddy_followed_lag", "eddy_versions_loaded", "eddy_http_streams", "eddy_state_age_seconds")

    def shown() -> bool:
        metrics = running.client.get("/metrics").text
        rows = [line for line in metrics.splitlines() if line.startswith("eddy_version_rows{")]
        with_rows = any(all(label in line for label in labels) for line in rows)
        return with_rows and all(name in metrics for name in names)

    eventually(shown)
