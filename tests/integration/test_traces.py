"""One trace from the POST of an event over Kafka and a worker to the list that includes it, as a collector of
spans sees it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.records.trace_context import TraceContext, trace_of_record
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id, random_version
from tests.support.otlp_collector import Collector, Span, collecting
from tests.support.serving_system import ITEMS, process, server, with_topics
from tests.support.spans import SAMPLED, SPAN, UNSAMPLED
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

LIST = "GET /v1/users/{user_id:path}/recommendations"
PATIENCE_S = 120


class System:
    """A worker and a server that record spans, and the collector of these."""

    def __init__(self, settings: Settings, client: httpx.Client, collector: Collector) -> None:
        self.settings, self.client, self._collector = settings, client, collector

    def post(self, user: str, **headers: str) -> str:
        """Post an event; returns what a list waits for."""
        event = {"user_id": user, "item_id": item_id(1)}
        response = self.client.post("/v1/events", json=event, headers=headers)
        assert response.status_code == 202, response.text
        token: str = response.json()["accepted"][0]["wait_for"]
        return token

    def await_list(self, user: str, token: str, **headers: str) -> None:
        """Ask for a user's list until it includes the event."""
        asked: dict[str, str | int] = {"wait_for": token, "wait": 10_000}

        def includes() -> Any:
            path = f"/v1/users/{user}/recommendations"
            return self.client.get(path, params=asked, headers=headers).json()["includes"]

        eventually(includes, PATIENCE_S, "a list that includes the event")

    def spans(self, trace_id: str) -> dict[str, Span]:
        """The last span of each name in a trace."""
        return {span.name: span for span in self._collector.spans if span.trace_id == trace_id}

    def answer(self, user: str) -> TraceContext | None:
        """What the message with a user's list carries on."""
        answers = Cluster(self.settings).read(self.settings.topics.recommendations, self.settings.partitions)
        (context,) = (trace_of_record(record.headers) for record in answers if record.key == user.encode())
        return context


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("traces")
    settings = load_settings(
        bootstrap_servers=broker, topic_prefix="test-traces.", group="test-traces", partitions=1,
        registry=folder / "registry",
    )  # fmt: skip
    announce(with_topics(settings), random_version(settings.registry, items=ITEMS))
    with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }  # fmt: skip
        with (
            patch.dict(os.environ, variables),
            process(settings, "eddy.stream.worker.app", "run_worker"),
            server(settings) as client,
        ):
            eventually(lambda: client.get("/readyz").status_code == 200, PATIENCE_S, "a server")
            yield System(settings, client, collector)


def test_a_post_the_worker_and_the_list_that_waited_are_one_trace(system: System) -> None:
    traceparent = SAMPLED.traceparent
    token = system.post("secret-user", traceparent=traceparent)
    system.await_list("secret-user", token, traceparent=traceparent)
    process_name = f"process {system.settings.topics.events}"

    def spans() -> dict[str, Span]:
        return system.spans(SAMPLED.trace_id)

    eventually(lambda: {"POST /v1/events", process_name, LIST} <= spans().keys(), PATIENCE_S, "all spans")
    posted, applied, listed = (spans()[name] for name in ("POST /v1/events", process_name, LIST))
    assert (posted.service, posted.parent_id) == ("eddy-serve", SPAN)
    assert (applied.service, applied.parent_id) == ("eddy-worker", posted.span_id)
    assert (listed.parent_id, listed.links) == (SPAN, (applied.span_id,))
    assert system.answer("secret-user") == TraceContext(SAMPLED.trace_id, applied.span_id, 1)
    assert not any("secret" in span.text for span in spans().values())


def test_what_is_not_sampled_leads_to_no_spans_and_no_headers(system: System) -> None:
    other = TraceContext("1" * 32, "2" * 16)
    assert not UNSAMPLED.is_sampled
    for user, headers in (("plain", {}), ("unsampled", {"traceparent": other.traceparent})):
        system.await_list(user, system.post(user, **headers), **headers)
        assert system.answer(user) is None
    events = Cluster(system.settings).read(system.settings.topics.events, 1)
    carried = {record.key: trace_of_record(record.headers) for record in events}
    unsampled = carried[b"unsampled"]
    assert unsampled is not None
    assert (unsampled.trace_id, unsampled.is_sampled) == (other.trace_id, False), "as W3C says"
    assert system.spans(other.trace_id) == {}
