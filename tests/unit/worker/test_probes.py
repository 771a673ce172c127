"""The probes of a worker, over HTTP."""

import socket
import struct
import urllib.error
import urllib.request

import pytest

from eddy.stream.records.settings import load_settings
from eddy.stream.worker import probes
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


def test_a_client_that_says_nothing_more_is_given_up_and_one_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.2)
    address = "127.0.0.1", serve_metrics(load_settings(host="127.0.0.1"), 0, WorkerMetrics().registry)
    with socket.create_connection(address, timeout=10) as gone:
        gone.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
    with socket.create_connection(address, timeout=10) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        assert silent.recv(100) == b"", "the server has closed it"
    assert get(address[1], "/healthz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err
