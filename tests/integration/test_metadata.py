"""An item that nobody has touched is recommended by its metadata as soon as that is on `items`; items that
nobody touches any more leave.
"""

from __future__ import annotations

import json

import httpx
from kafka import KafkaProducer

from eddy.models.hashing import item_hash
from eddy.models.registry import publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import train
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import announce
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_key
from tests.support.engines import item_id, random_version
from tests.support.serving_system import START, message_at, newest, process, server, with_topics
from tests.support.waiting import eventually
from tests.unit.logs.test_item_features import FAST, ITEMS, SMALL, kinds, kinds_log


def test_worker_and_server_rank_a_new_item_by_what_is_known_of_it(settings: Settings) -> None:
    """After an item of kind 0 comes one of kind 1 in the log that the version learned from."""
    announce(
        with_topics(settings),
        publish(settings.registry, train(kinds_log(), SMALL, FAST, EVERY_EVENT, features=kinds()), {}),
    )
    producer = KafkaProducer(**client_config(settings), acks="all")
    new = {"follows": "k1", "does-not": "k2"}
    settings = settings.model_copy(update={"k": ITEMS + len(new)})
    for item, kind in new.items():
        value = json.dumps({"item_id": item, "kind": kind}).encode()
        producer.send(settings.topics.items, key=item.encode(), value=value).get(timeout=30)
    with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
        event = encode(Event("user", "i0", START, "rating"))
        sent = producer.send(settings.topics.events, key=b"user", value=event).get(timeout=30)
        producer.close()
        message = message_at(settings, (sent.partition, sent.offset))
        path = "/v1/users/user/recommendations"
        eventually(lambda: client.get(path).json()["offset"] == sent.offset)
        answer = client.get(path).json()
    for listed in (message, answer):
        places = [item["item_id"] for item in listed["items"]]
        assert len(places) == settings.k
        assert places.index("follows") < places.index("does-not")


def test_items_that_nobody_touched_for_long_leave_the_lists_and_the_dictionary(settings: Settings) -> None:
    """Of a bad client, whose random ids cost everybody's lists time."""
    settings = settings.model_copy(update={"k": 1000, "item_idle_days": 1.0})
    announce(with_topics(settings), random_version(settings.registry, items=20))
    producer = KafkaProducer(**client_config(settings), acks="all")
    events, items = settings.topics.events, settings.topics.items
    junk = [f"junk-{number}" for number in range(700)]

    def send(user: str, chosen: list[str], time: int) -> tuple[int, int]:
        for number, item in enumerate(chosen):
            event = encode(Event(user, item, time + number))
            sent = producer.send(events, key=user.encode(), value=event)
        at = sent.get(timeout=30)
        return at.partition, at.offset

    def listed(client: httpx.Client, at: tuple[int, int]) -> list[set[str]]:
        """Items in what worker and server say of the user, and the server to a stranger."""
        answers = [message_at(settings, at)]
        answers += [client.get(f"/v1/users/{user}/recommendations?k=1000").json() for user in ("u", "nobody")]
        return [{item["item_id"] for item in answer["items"]} for answer in answers]

    def in_dictionary(names: list[str]) -> set[bytes]:
        return newest(settings, items).keys() & {dictionary_key(item_hash(name)) for name in names}

    usual = [item_id(number) for number in range(20)]
    later = START + 2 * 86_400_000
    with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
        send("bad", junk, START)
        send("u", ["news", *usual], START)
        eventually(lambda: "junk-699" in listed(client, send("u", usual, START))[1])
        assert len(in_dictionary(junk)) == len(junk)
        send("u", ["news", *usual], later)
        eventually(lambda: not in_dictionary(junk), within_s=60)
        eventually(
            lambda: all(
                {"news", *usual} <= found and not found & set(junk)
                for found in listed(client, send("u", ["news"], later))
            )
        )
        assert in_dictionary(["news"])
    producer.close()
