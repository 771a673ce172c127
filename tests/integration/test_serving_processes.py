"""Several server processes on one port: they answer alike, outlive one of them, and end together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import Settings
from tests.support.engines import random_version
from tests.support.kafka_clusters import MakeSettings
from tests.support.waiting import eventually

COUNT = 2


@contextmanager
def serving(settings: Settings, port: int, *arguments: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`eddy serve` with these arguments and variables; once it is told to, it must end with all that it
    started.
    """
    environment = {
        **os.environ,
        "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_PORT": str(port),
        **more,
    }
    command = [sys.executable, "-m", "eddy", "serve", *arguments]
    parent = subprocess.Popen(command, env=environment)
    family: list[psutil.Process] = []
    try:
        yield parent
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        assert psutil.wait_procs(family, 5)[1] == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        parent.kill()
        parent.wait()


def test_processes_share_a_port_and_tell_their_metrics_together(make_settings: MakeSettings) -> None:
    settings, port = make_settings(), free_port("127.0.0.1")
    prepare_topics(settings)
    announce(settings, random_version(settings.registry, items=50))
    base = f"http://127.0.0.1:{port}"

    def get(path: str) -> httpx.Response:
        return httpx.get(base + path, timeout=10)  # a connection of its own each time

    def all_ready() -> bool:
        try:
            text = get("/metrics").text if get("/readyz").status_code == 200 else ""
        except httpx.TransportError:  # nobody listens yet, or the kernel gave the connection to a dead one
            return False
        return len(re.findall(r'eddy_ready\{process="\d"\} 1.0', text)) == COUNT

    def servers(parent: subprocess.Popen[bytes]) -> list[psutil.Process]:
        children = psutil.Process(parent.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    with serving(settings, port, "--processes", str(COUNT)) as parent:
        eventually(all_ready, within_s=90)
        asked = 40
        assert {get("/v1/users/u/recommendations").status_code for _ in range(asked)} == {200}
        counted = re.findall(
            r'eddy_http_requests_total\{method="GET",process="(\d)",route="/v1/users/[^"]*",status="200"\}'
            r" ([\d.]+)",
            get("/metrics").text,
        )
        assert {process for process, _ in counted} == {"0", "1"}, "both were asked"
        assert sum(float(count) for _, count in counted) == asked

        killed = servers(parent)[0]
        killed.kill()
        eventually(lambda: all_ready() and killed.pid not in [p.pid for p in servers(parent)], within_s=90)
        assert {get("/v1/users/u/recommendations").status_code for _ in range(asked)} == {200}


@pytest.mark.parametrize("wrong", ["EDDY_API_KEYS_FILE"])
def test_a_process_that_cannot_go_on_ends_all(
    make_settings: MakeSettings, tmp_path: Path, wrong: str
) -> None:
    settings = make_settings()
    environment = {
        **os.environ,
        "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_PORT": "0",
        wrong: str(tmp_path / "nothing"),
    }
    command = [sys.executable, "-m", "eddy", "serve", "--processes", str(COUNT)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"{wrong}: {tmp_path / 'nothing'}: cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_is_told_to_end_says_so_and_answers_until_balancers_know(
    make_settings: MakeSettings,
) -> None:
    settings, port = make_settings(), free_port("127.0.0.1")
    prepare_topics(settings)
    announce(settings, random_version(settings.registry, items=50))
    with (
        serving(settings, port, EDDY_HTTP_DRAIN_S="600") as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
    ):

        def ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, within_s=90)
        server.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["reasons"] == ["the server is ending"]
        assert httpx.get(f"{client.base_url}/v1/users/u/recommendations", timeout=10).status_code == 200
        assert server.poll() is None
