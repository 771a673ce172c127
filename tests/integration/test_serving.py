"""The HTTP server on a real broker: it says of users what workers say."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from eddy.client import Client
from eddy.serving.bulk.run import make_lists
from eddy.serving.lists.questions import Question
from eddy.stream.kafka.clients import client_config
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id
from tests.support.serving_system import ITEMS, System, message_at
from tests.support.waiting import eventually


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


@pytest.mark.parametrize("user", [".", ".."])
def test_a_user_whose_id_is_a_folder_in_urls_is_asked_for_and_erased_by_the_client(
    system: System, user: str
) -> None:
    at = system.send(user, [1, 2])
    with Client(str(system.client.base_url), timeout=30) as client:
        eventually(lambda: client.recommendations(user).offset == at[1])
        assert client.recommendations(user).user_id == user
        assert client.erase(user)["user_id"] == user
        eventually(lambda: not client.recommendations(user).known)


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
    assert sorted(took)[len(took) // 4] < 0.03


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


ALIKE = 1e-3
"""Processes count, compute and round scores for themselves, and as of their own moments."""


def agree(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether each list has the other's items with their scores, but for those that score like its last one,
    of which it may hold others. Items that score alike may stand in another order.
    """
    return all(_holds(lists, items) for lists, items in ((one, other), (other, one)))


def _holds(items: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    score = {item["item_id"]: item["score"] for item in items}
    least = others[-1]["score"] + ALIKE
    wanted = [other for other in others if other["score"] > least]
    return all(abs(score.get(each["item_id"], -math.inf) - each["score"]) < ALIKE for each in wanted)


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
        return all(agree(rows[user], sent[user]) and agree(rows[user], asked[user]) for user in users)

    eventually(the_same, every_s=1)
