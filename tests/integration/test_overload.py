"""A server on a real broker that is asked more at once than it can answer in time."""

from __future__ import annotations

import contextlib
import http.client
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import load_settings
from tests.support.engines import item_id, random_version
from tests.support.serving_system import server, with_topics
from tests.support.waiting import eventually

ITEMS = 20_000
AT_ONCE = 200
REFUSED_AFTER_MS = 1


@pytest.fixture(scope="module")
def url(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that keeps nobody waiting for long."""
    registry = tmp_path_factory.mktemp("overload") / "registry"
    settings = with_topics(
        load_settings(bootstrap_servers=broker, topic_prefix="test-overload.", registry=registry)
    )
    announce(settings, random_version(registry, items=ITEMS, half_lives_ms=(86_400_000,)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDDY_HTTP_MAX_WAIT_MS", str(REFUSED_AFTER_MS))
        with server(settings) as client:
            eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
            yield str(client.base_url)


def statuses(url: str, path: str) -> Counter[int]:
    """Of the answers to as many requests at once. Each refusal says when to ask again."""
    where = httpx.URL(url)
    with contextlib.ExitStack() as stack:
        connections = [http.client.HTTPConnection(where.host, where.port or 80) for _ in range(AT_ONCE)]
        for connection in connections:
            stack.callback(connection.close)
            connection.connect()
        for connection in connections:
            connection.request("GET", path)
        found = Counter[int]()
        for connection in connections:
            answer = connection.getresponse()
            answer.read()
            found[answer.status] += 1
            assert answer.status != 503 or answer.headers["Retry-After"] == "1"
        return found


@pytest.mark.parametrize(
    "path", [f"/v1/items/{quote(item_id(1))}/similar", "/v1/popular", "/v1/items", "/v1/items?q=item"]
)
def test_what_grows_with_the_catalogue_is_refused_when_too_much_of_it_is_asked_at_once(
    url: str, path: str
) -> None:
    assert httpx.get(url + path).status_code == 200
    assert set(statuses(url, path)) == {200, 503}
    assert httpx.get(url + path).status_code == 200, "who asks alone is answered"
