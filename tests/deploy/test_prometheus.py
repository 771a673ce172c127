"""A real Prometheus scrapes a real worker and a real server, and answers what the dashboards ask."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import load_settings
from tests.browser.live_system import LiveSystem, live_system
from tests.deploy.files import DEPLOY, read_yaml, walk
from tests.support.engines import item_id
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not on the PATH"),
]
DASHBOARDS = sorted((DEPLOY / "observability" / "dashboards").glob("*.json"))
FIND_NOTHING = ("node_", "eddy_refresh_", "eddy_epoch_awaited", "eddy_restore_progress", "eddy_unreadable")
"""What is in queries that find nothing here: figures of the node exporter, and of what does not happen."""


class Prometheus:
    """The server at an address, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that a query finds; raises for a query that is refused."""
        answer = httpx.get(f"{self.address}/api/v1/query", params={"query": query}).raise_for_status()
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def sees(self, jobs: int) -> bool:
        """Whether it has scraped so many jobs, and more than once, so that rates can be told."""
        with suppress(httpx.TransportError, httpx.HTTPStatusError):
            return len(self.ask('sum_over_time(up{job=~"eddy.*"}[1m]) >= 3')) == jobs
        return False


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    folder, name = tmp_path_factory.mktemp("scraped"), uuid.uuid4().hex[:8]
    settings = load_settings(
        bootstrap_servers=broker, topic_prefix=f"test-{name}.", group=f"test-{name}",
        registry=folder / "registry", partitions=2, metrics_port=free_port("127.0.0.1"),
        prequential_sample=1, prequential_time=1,
    )  # fmt: skip
    with live_system(settings, folder) as running:
        yield running


def pod(target: str, component: str, port: str, app: str = "eddy", phase: str = "Running") -> dict[str, Any]:
    """A target as Prometheus finds it on Kubernetes."""
    labels = {
        "label_app_kubernetes_io_name": app, "label_app_kubernetes_io_component": component,
        "container_port_name": port, "phase": phase, "name": f"{app}-{component}-0",
    }  # fmt: skip
    found = {f"__meta_kubernetes_pod_{name}": value for name, value in labels.items()}
    return {"targets": [target], "labels": {**found, "__meta_kubernetes_namespace": "shop"}}


@pytest.fixture(scope="module")
def prometheus(system: LiveSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """With the shipped configuration for Kubernetes, but for where the processes are, and how often it asks.
    One pod is another program's, and one has failed.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = read_yaml(DEPLOY / "observability" / "prometheus.yaml")
    configuration["global"]["scrape_interval"] = "1s"
    configuration["scrape_configs"] = read_yaml(DEPLOY / "observability" / "prometheus-kubernetes.yaml")[
        "scrape_configs"
    ]
    (job,) = configuration["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["static_configs"] = [
        pod(f"127.0.0.1:{system.settings.metrics_port}", "worker", "metrics"),
        pod(httpx.URL(system.address).netloc.decode(), "serving", "http"),
        pod("127.0.0.1:1", "worker", "metrics", app="other"),
        pod("127.0.0.1:2", "worker", "metrics", phase="Failed"),
    ]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    shutil.copy(DEPLOY / "observability" / "alerts.yaml", folder)
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        server = Prometheus(f"http://{address}")
        eventually(lambda: server.sees(2), 60, "scrapes of the worker and of the server")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def test_pods_of_eddy_alone_are_scraped_by_the_names_of_their_jobs(prometheus: Prometheus) -> None:
    found = [series["metric"] for series in prometheus.ask("up")]
    assert sorted((up["job"], up["namespace"], up["instance"]) for up in found) == [
        ("eddy-serving", "shop", "eddy-serving-0"),
        ("eddy-worker", "shop", "eddy-worker-0"),
    ]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_has_something_to_show(
    dashboard: Path, system: LiveSystem, prometheus: Prometheus
) -> None:
    queries = {at["expr"] for at in walk(json.loads(dashboard.read_text("utf-8"))) if "expr" in at}
    waiting = {query for query in queries if not any(name in query for name in FIND_NOTHING)}
    assert len(waiting) > len(queries) / 2

    def all_answered() -> bool:
        system.send(8)
        system.ask("v1/users/alice/recommendations")
        system.ask("v1/users/nobody/recommendations")
        posted = {"user_id": "alice", "item_id": item_id(1)}
        key = {"X-API-Key": system.write_key}
        httpx.post(system.address + "v1/events", json=posted, headers=key).raise_for_status()
        waiting.difference_update([query for query in waiting if prometheus.ask(query)])
        return not waiting

    with suppress(AssertionError, TimeoutError):
        eventually(all_answered, 30, "answers to all queries")
    assert waiting == set()


def test_a_healthy_system_raises_no_alert_but_of_what_is_missing(prometheus: Prometheus) -> None:
    rules = httpx.get(f"{prometheus.address}/api/v1/rules").raise_for_status().json()["data"]["groups"]
    every_rule = [rule for group in rules for rule in group["rules"]]
    states = {rule["name"]: rule["state"] for rule in every_rule if rule["type"] == "alerting"}
    assert len(states) > 15
    assert {rule["health"] for rule in every_rule} <= {"ok", "unknown"}
    assert [name for name, state in states.items() if state == "firing"] == []
