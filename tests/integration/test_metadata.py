"""An item that nobody has touched is recommended by its metadata as soon as that is on `items`."""

from __future__ import annotations

import json

from kafka import KafkaProducer

from models.registry import publish
from models.rules import EVERY_EVENT
from models.train import train
from stream.clients import client_config
from stream.schema import Event, encode
from stream.settings import Settings
from stream.versions import announce
from tests.conftest import eventually
from tests.integration.test_serving import START, message_at, process, server, with_topics
from tests.unit.test_features import FAST, ITEMS, SMALL, kinds, kinds_log


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
    with process(settings, "stream.app", "run_worker"), server(settings) as client:
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
