"""The probes of a worker, over HTTP."""

import urllib.error
import urllib.request

import pytest

from eddy.stream.records.settings import load_settings
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.probes import serve_metrics

pytestmark = pytest.mark.unit


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def test_a_worker_is_ready_once_its_partitions_are_restored_and_alive_before() -> None:
    metrics = WorkerMetrics()
    port = serve_metrics(load_settings(host="127.0.0.1"), 0, metrics.registry)
    assert get(port, "/healthz") == (200, "alive\n")
    assert get(port, "/readyz") == (503, "not ready\n")
    metrics.ready.set(1)
    assert get(port, "/readyz") == (200, "ready\n")
    assert "eddy_ready 1.0" in get(port, "/metrics")[1]
