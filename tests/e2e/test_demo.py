"""`eddy demo` as a newcomer runs it: it ends by itself, says what it measured, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
QUICK = ("demo", "--quick")
OF_AN_INSTALLATION = {
    "EDDY_API_KEYS_FILE": "/etc/eddy/keys",
    "EDDY_EARLIEST_EVENT": "2020-01-01",
    "EDDY_EMIT": "off",
    "EDDY_GROUP": "shop",
    "EDDY_HTTP_DRAIN_S": "600",
    "EDDY_LOG_FORMAT": "json",
    "EDDY_PARTITIONS": "5000",
    "EDDY_REPLICATION": "3",
    "EDDY_SASL_MECHANISM": "PLAIN",
    "EDDY_SASL_PASSWORD": "secret",
    "EDDY_SASL_USERNAME": "shop",
    "EDDY_SECURITY_PROTOCOL": "SASL_SSL",
    "EDDY_STATE_EVENTS": "purchase",
    "EDDY_TOPIC_PREFIX": "shop.",
}
"""Settings of somebody who runs Eddy elsewhere; each would break the demo, or change what it shows."""


class Demo:
    """A running `eddy demo` in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDDY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eddy", *(arguments or QUICK)],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.family: set[psutil.Process] = set()

    def children(self, command: str) -> list[psutil.Process]:
        """Running processes of the demo that are `eddy command`, not their watchdogs."""
        try:
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            pytest.fail(f"the demo has ended: {self.process.communicate()}")
        return [child for child in self.family if arguments_of(child)[1:4] == ["-m", "eddy", command]]

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        error = self.process.communicate(timeout=600)[1]
        return self.process.returncode, error

    def left(self) -> list[psutil.Process]:
        """Processes that the demo has left behind."""
        return [
            child for child in self.family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]


def arguments_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def demo(tmp_path: Path, broker: str) -> Iterator[Demo]:
    """A quick demo on the session's broker, whose worker has started."""
    running = Demo(tmp_path, EDDY_BOOTSTRAP_SERVERS=broker)
    eventually(lambda: running.children("worker"), within_s=120)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.mark.timeout(900)
def test_the_demo_ends_by_itself_and_keeps_its_promises_whatever_else_the_environment_sets(
    tmp_path: Path,
) -> None:
    demo = Demo(tmp_path, **OF_AN_INSTALLATION)
    assert demo.process.stdout is not None
    said = demo.process.stdout.readline()
    code, error = demo.end()
    assert code == 0, error
    assert said == f"The demo has settings of its own in place of {', '.join(sorted(OF_AN_INSTALLATION))}\n"
    summary = json.loads((tmp_path / "demo-summary.json").read_text())
    assert summary["events_applied"] == summary["events_in"] - summary["dead_letters"]
    assert summary["dead_letters"] == 3
    assert summary["recommendations_out"] > 0
    # On so few events the gate of the refresh may let the second version pass or not; it says why.
    assert summary["refresh"] in ("went live", "refused")
    assert summary["model_versions"] == (2 if summary["refresh"] == "went live" else 1)
    assert "mrr@20" in summary["refresh_reason"]
    assert summary["recall_at_20"] > summary["popularity_recall_at_20"]
    assert summary["http_failures"] == 0
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    assert summary["throughput_events_per_s"] > 0
    assert summary["mode"] == "all"


@pytest.mark.timeout(400)
def test_ctrl_c_ends_everything_without_a_stack_trace(demo: Demo, broker: str) -> None:
    demo.process.send_signal(signal.SIGINT)
    code, error = demo.end()
    assert code == 130
    assert "Traceback" not in error
    eventually(lambda: not demo.left())
    admin = KafkaAdminClient(bootstrap_servers=broker)
    eventually(lambda: not [name for name in admin.list_topics() if name.startswith("eddy-demo-")])
    admin.close()


@pytest.mark.timeout(400)
def test_a_killed_demo_leaves_no_process_behind(demo: Demo) -> None:
    demo.process.kill()
    demo.end()
    eventually(lambda: not demo.left())


@pytest.mark.timeout(400)
def test_a_process_that_dies_ends_the_demo_with_its_log(demo: Demo) -> None:
    for child in demo.children("worker"):
        child.kill()
    code, error = demo.end()
    assert code == 1
    assert "`eddy worker` ended" in error
    assert error.count("\n") == 1
    log = Path(error.partition("log: ")[2].partition(")")[0])
    assert log.exists()
    eventually(lambda: not demo.left())


@pytest.mark.timeout(600)
def test_a_demo_that_is_to_stay_up_says_what_failed_and_keeps_what_still_runs_until_ctrl_c(
    tmp_path: Path, broker: str
) -> None:
    demo = Demo(tmp_path, *QUICK, "--keep", EDDY_BOOTSTRAP_SERVERS=broker)
    try:
        eventually(lambda: demo.children("worker") and demo.children("serve"), within_s=240)
        for child in demo.children("worker"):
            child.kill()
        assert demo.process.stdout is not None
        said = next(line for line in demo.process.stdout if line.startswith("Failed: "))
        assert "`eddy worker` ended" in said
        assert next(line for line in demo.process.stdout if "staying up, until Ctrl-C" in line)
        assert demo.children("serve")
        demo.process.send_signal(signal.SIGINT)
        code, error = demo.end()
        assert code == 130
        assert "Traceback" not in error
        eventually(lambda: not demo.left())
    finally:
        demo.process.kill()


def test_a_taken_port_is_one_line(tmp_path: Path, broker: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, error = Demo(tmp_path, EDDY_BOOTSTRAP_SERVERS=broker, EDDY_PORT=port).end()
    assert code == 1
    assert error == f"eddy: port {port} is taken: stop what listens there, or set EDDY_PORT to another one\n"


def test_an_unreachable_cluster_is_one_line(tmp_path: Path) -> None:
    code, error = Demo(tmp_path, EDDY_BOOTSTRAP_SERVERS="127.0.0.1:9").end()
    assert code == 1
    assert error.startswith("eddy: no answer from the Kafka cluster at 127.0.0.1:9")
    assert error.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, error = Demo(tmp_path, EDDY_CACHE_DIR=str(tmp_path / "file")).end()
    assert code == 1
    assert error.startswith("eddy: ")
    assert error.count("\n") == 1
