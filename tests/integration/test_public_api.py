"""The API as strangers meet it: by its description, by the examples, and with hostile requests."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from eddy.serving.api_keys import SCOPES, new_key
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import load_settings
from tests.support.engines import random_version
from tests.support.hostile_requests import hostile_request, send_all
from tests.support.serving_system import server, with_topics
from tests.support.waiting import eventually

EXAMPLES_FOLDER = Path(__file__).parents[2] / "deploy" / "examples"
EXAMPLES = 25
"""Requests that are made up for each operation."""

STREAMS = ("/v1/live", "/v1/users/{user_id}/live")
"""Answers that never end, which no client that waits for their end can check: `unit/serving/test_streams.py`
and `test_live_page_api.py` do.
"""

HOSTILE = 2_000
"""Raw requests; `python -m tests.support.hostile_requests URL 100000` sends more."""


@pytest.fixture(scope="module")
def key() -> tuple[str, str]:
    """A key with all scopes, and its line."""
    return new_key("tester", SCOPES)


@pytest.fixture(scope="module")
def client(
    broker: str, key: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a server that has a version and asks for keys."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "keys").write_text(key[1])
    settings = with_topics(
        load_settings(bootstrap_servers=broker, topic_prefix="test-hostile.", registry=folder / "registry")
    )
    announce(settings, random_version(settings.registry, items=50))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDDY_API_KEYS_FILE", str(folder / "keys"))
        with server(settings) as started:
            eventually(lambda: started.get("/readyz").status_code == 200, within_s=120)
            yield started


def resident_bytes(client: httpx.Client) -> int:
    """What the server's process has in memory."""
    connections = psutil.net_connections("tcp")
    (pid,) = {
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == client.base_url.port
    }
    return int(psutil.Process(pid).memory_info().rss)


def test_every_answer_is_one_that_the_description_promises(
    client: httpx.Client, key: tuple[str, str]
) -> None:
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    tried = 0
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]
        if operation.path in STREAMS:
            continue

        @hypothesis_settings(
            max_examples=EXAMPLES, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def answers_as_described(case: Any) -> None:
            nonlocal tried
            tried += 1
            # What contradicts another parameter is refused, and a schema cannot say that.
            case.call_and_validate(
                headers={"X-API-Key": key[0]}, timeout=10, excluded_checks=[positive_data_acceptance]
            )

        answers_as_described()
    assert tried >= EXAMPLES


@pytest.mark.parametrize("example", ["ask.sh", "ask.py", "ask.mjs"])
def test_the_examples_run(client: httpx.Client, key: tuple[str, str], example: str) -> None:
    program = {"sh": "sh", "py": sys.executable, "mjs": "node"}[example.partition(".")[2]]
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    environment = {**os.environ, "EDDY_URL": str(client.base_url), "EDDY_API_KEY": key[0]}
    command = [program, str(EXAMPLES_FOLDER / example), "a stranger".replace(" ", "%20")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    environment["EDDY_API_KEY"] = "wrong"
    refused = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert "this API key is not valid" in refused.stdout + refused.stderr


def test_hostile_requests_are_refused_and_leave_the_server_as_it_was(
    client: httpx.Client, key: tuple[str, str]
) -> None:
    address, seed = (client.base_url.host, client.base_url.port or 80), random.Random(1)
    asyncio.run(send_all(address, (hostile_request(seed, key[0]) for _ in range(HOSTILE // 2))))
    before = resident_bytes(client)
    statuses = asyncio.run(send_all(address, (hostile_request(seed, key[0]) for _ in range(HOSTILE // 2))))
    assert not {status for status in statuses if status >= 500}
    assert statuses[400] > 0
    assert client.get("/healthz").status_code == 200
    answer = client.get("/v1/users/u/recommendations", headers={"X-API-Key": key[0]})
    assert answer.status_code == 200
    assert resident_bytes(client) < before + (64 << 20)
