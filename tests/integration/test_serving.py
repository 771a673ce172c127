"""The HTTP server on a real broker: it says of users what workers say, and never stops saying it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from eddy.cli.rules import publish_rules
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash
from eddy.models.registry import Version
from eddy.serving.app import new_app
from eddy.serving.bulk.run import make_lists
from eddy.serving.lists.questions import Question
from eddy.serving.service import Service
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.records.schema import RULES_KEY, Announcement, Event, encode
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.state.availability import dictionary_key
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id, random_version
from tests.support.kafka_clusters import MakeSettings
from tests.support.waiting import eventually

START = 1_370_000_000_000  # 2013: replayed logs live in their own time
ITEMS = 200

_RUN = """
import asyncio, logging, sys
logging.basicConfig(level=logging.WARNING)
from eddy.stream.records.settings import load_settings
from {module} import {function}
asyncio.run({function}(load_settings(){more}))
"""


@contextmanager
def process(
    settings: Settings, module: str, function: str, more: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """One of Eddy's processes, ended by SIGTERM; it must then end by itself and well."""
    names = (
        "bootstrap_servers", "topic_prefix", "group", "partitions", "registry", "k", "item_idle_days",
    )  # fmt: skip
    own = {name: getattr(settings, name) for name in names}
    environment = {**os.environ, **{f"EDDY_{name.upper()}": str(value) for name, value in own.items()}}
    environment |= {"EDDY_PORT": "0", "EDDY_CACHE_DIR": str(settings.registry.parent / "cache")}
    code = _RUN.format(module=module, function=function, more=more)
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield child
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@contextmanager
def server(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server process of its own."""
    with process(
        settings, "eddy.serving.server", "run_server", ", lambda url: print(url, flush=True)"
    ) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client


def with_topics(settings: Settings) -> Settings:
    prepare_topics(settings)
    return settings


class System:
    """A worker, a server, and the hands of an operator."""

    def __init__(self, settings: Settings, client: httpx.Client, producer: KafkaProducer) -> None:
        self.settings, self.client, self.producer = settings, client, producer
        self.events = 0

    def send(self, user: str, items: list[int], event_type: str = "view") -> tuple[int, int]:
        """Events of one user, later than all before; returns partition and offset of the last."""
        for number in items:
            self.events += 1
            event = Event(user, item_id(number), START + 1000 * self.events, event_type)
            sent = self.producer.send(self.settings.topics.events, key=user.encode(), value=encode(event))
        at = sent.get(timeout=30)
        return at.partition, at.offset

    def ask(self, user: str, **query: Any) -> dict[str, Any]:
        response = self.client.get(f"/v1/users/{user}/recommendations", params=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def send_and_see(self, user: str, items: list[int], quoted: str | None = None) -> tuple[int, int]:
        """Events of one user; returns, once the server answers as of the last of them, where that is."""
        at = self.send(user, items)
        eventually(lambda: self.serves(quoted or user, at))
        return at

    def serves(self, user: str, at: tuple[int, int]) -> bool:
        answer = self.ask(user)
        return (answer["partition"], answer["offset"]) == at


def message_at(settings: Settings, at: tuple[int, int]) -> dict[str, Any]:
    """The emitted list as of one record of `events`, read as a downstream team would."""
    consumer = KafkaConsumer(
        settings.topics.recommendations,
        **client_config(settings),
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
    )
    try:
        for record in consumer:
            if record.value is None:  # a user was erased
                continue
            message: dict[str, Any] = json.loads(record.value)
            if (message["partition"], message["offset"]) == at:
                return message
    finally:
        consumer.close()
    raise AssertionError(f"no message for {at}")


def newest(settings: Settings, topic: str) -> dict[bytes, bytes]:
    """The newest record of each key of a topic of one partition that is no tombstone."""
    last = {record.key: record.value for record in Cluster(settings).read(topic, 1)}
    return {key: value for key, value in last.items() if value is not None}


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("serving")
    settings = load_settings(
        bootstrap_servers=broker,
        topic_prefix="test-serving.",
        group="test-serving",
        partitions=2,
        registry=folder / "registry",
    )
    announce(with_topics(settings), random_version(settings.registry, items=ITEMS))
    producer = KafkaProducer(**client_config(settings), acks="all")
    try:
        with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
            eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
            yield System(settings, client, producer)
    finally:
        producer.close()


def test_the_server_says_what_the_worker_says(system: System) -> None:
    for number in range(20):
        system.send_and_see(f"before-{number}", [number, number * 3 % ITEMS, number * 7 % ITEMS])
    # Not counted in the item statistics, which a list has only from before its own batch.
    at = system.send("somebody", [3, 1, 4, 1, 5, 9, 2, 6], "dislike")
    message = message_at(system.settings, at)
    expected = [item["item_id"] for item in message["items"]]
    assert len(expected) == 20

    def same() -> bool:  # rows and item statistics are two topics: one may come a moment after the other
        return [item["item_id"] for item in system.ask("somebody")["items"]] == expected

    eventually(lambda: system.serves("somebody", at))
    eventually(same)
    answer = system.ask("somebody")
    for name in ("epoch", "version", "partition", "offset"):
        assert answer[name] == message[name]
    assert answer["known"] is True
    assert answer["stream_time"] == message["timestamp"], (
        "the stream clock stands at the last event of the log"
    )
    scores = [[item["score"] for item in one["items"]] for one in (answer, message)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)


def test_an_unknown_user_gets_what_is_popular(system: System) -> None:
    system.send_and_see("fan", [42] * 40)
    for stranger in (
        "stranger",
        "a/b//c",
        "%00%E2%80%A8%F0%9F%98%80",
        "%FF%FE",
        "..%2F..%2Fetc",
        "x" * 4000,
        "%20",
    ):
        answer = system.ask(stranger, k=3)
        assert answer["known"] is False
        assert answer["epoch"] is None
    eventually(lambda: system.ask("stranger", k=1)["items"][0]["item_id"] == item_id(42))


def test_a_user_whose_id_needs_quoting_is_known(system: System) -> None:
    system.send_and_see("ü/?#&% \u2028", [1, 2], quoted="%C3%BC/%3F%23&%25%20%E2%80%A8")


def test_filters_of_the_caller(system: System) -> None:
    system.send_and_see("choosy", [11, 12, 13])
    everything = [item["item_id"] for item in system.ask("choosy", k=1000)["items"]]
    assert set(everything) == {item_id(i) for i in range(ITEMS)}
    unseen = system.ask("choosy", k=1000, exclude_seen="true", exclude=everything[:2])["items"]
    left_out = {item_id(11), item_id(12), item_id(13), *everything[:2]}
    assert [item["item_id"] for item in unseen] == [item for item in everything if item not in left_out]


@pytest.mark.parametrize("query", ["k=0", "k=1001", "k=many", "exclude_seen=maybe", "limit=3"])
def test_a_question_that_cannot_be_understood_is_refused(system: System, query: str) -> None:
    response = system.client.get(f"/v1/users/u/recommendations?{query}")
    assert response.status_code == 400
    assert query.split("=", maxsplit=1)[0] in response.json()["detail"]


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(system: System) -> None:
    """Each would take 40 ms and more; a loaded machine may delay most of them, but not all."""
    connection = http.client.HTTPConnection(system.client.base_url.host, system.client.base_url.port or 80)
    took = []
    for _ in range(50):
        began = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
    connection.close()
    assert sorted(took)[len(took) // 4] < 0.01


def test_a_posted_question_is_answered_as_the_same_question_in_a_url(system: System) -> None:
    system.send_and_see("poster", [21, 22, 23])
    everything = [item["item_id"] for item in system.ask("poster", k=1000)["items"]]
    many = [*everything[:5], *(f"unknown-{number}" for number in range(5_000))]
    url = "/v1/users/poster/recommendations"
    answer = system.client.post(url, json={"k": 10, "exclude_seen": True, "exclude": many})
    assert answer.status_code == 200
    left = [item for item in everything[5:] if item not in {item_id(21), item_id(22), item_id(23)}]
    assert [item["item_id"] for item in answer.json()["items"]] == left[:10]


def test_five_hundred_exclusions_fit_into_a_url(system: System) -> None:
    exclude = [str(uuid.UUID(int=number)) for number in range(500)]
    assert len(system.ask("somebody else", exclude=exclude, k=3)["items"]) == 3


@pytest.mark.parametrize(
    ("request_bytes", "status", "why"),
    [
        (b"GET /v1/users/u/recommendations?" + b"exclude=a&" * 50_000 + b" HTTP/1.1\r\n\r\n", 400, "POST"),
        (b"no request at all\r\n\r\n", 400, "not an HTTP request"),
        (b"GET /nothing/here HTTP/1.1\r\nhost: a\r\n\r\n", 404, "Not Found"),
        (b"PUT /v1/users/u/recommendations HTTP/1.1\r\nhost: a\r\n\r\n", 405, "Method Not Allowed"),
        (
            b"POST /v1/users/u/recommendations HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n"
            + b" " * 2_000_000,
            413,
            "larger than",
        ),
    ],
    ids=["too long", "no request", "no such path", "no such method", "too large"],
)
def test_every_refusal_is_in_the_documented_form(
    system: System, request_bytes: bytes, status: int, why: str
) -> None:
    address = (system.client.base_url.host, system.client.base_url.port or 80)
    with socket.create_connection(address, timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            connection.sendall(request_bytes)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert why in json.loads(answer.read())["detail"]


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def test_lists_made_in_bulk_are_those_of_the_endpoint(system: System, tmp_path: Path) -> None:
    users = [f"in bulk {number}" for number in range(5)]
    for number, user in enumerate(users):
        system.send_and_see(user, [number, 3 * number + 1])
    out, topic, wanted = tmp_path / "lists.parquet", f"{system.settings.topic_prefix}mail", Question("", k=10)
    with KafkaAdminClient(**client_config(system.settings)) as admin:
        admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])

    def the_same() -> bool:  # item statistics may still be on their way
        asked = {user: system.ask(user, k=10)["items"] for user in users}
        count = asyncio.run(make_lists(system.settings, None, wanted, out, None))
        assert asyncio.run(make_lists(system.settings, None, wanted, None, topic)) == count
        rows = {row["user_id"]: row["items"] for row in pq.read_table(out).to_pylist()}
        records = Cluster(system.settings).read(topic, 2)
        sent = {record.key.decode(): json.loads(record.value)["items"] for record in records}
        assert sent.keys() == rows.keys()
        return all(ids(rows[user]) == ids(sent[user]) == ids(asked[user]) for user in users)

    eventually(the_same, every_s=1)


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
    await service.stop()
