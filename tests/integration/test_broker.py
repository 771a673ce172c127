"""The local broker: a real Kafka that starts anywhere, fails in one line, and never outlives its parent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient

from eddy.models.errors import EddyError
from eddy.stream.local_kafka import broker as broker_module
from eddy.stream.local_kafka.broker import LocalBroker, broker_or_local
from eddy.stream.local_kafka.config import HOST
from eddy.stream.local_kafka.disk import require_disk
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import load_settings
from tests.support.waiting import eventually

UNREACHABLE_PROXY = "http://127.0.0.1:9"


@pytest.fixture
def disk_folder() -> Iterator[Path]:
    """A folder on a real disk: temporary folders are in memory on some machines."""
    folder = load_settings().cache_dir / "tests" / uuid.uuid4().hex
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def topics_at(address: str) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        return list(admin.list_topics())
    finally:
        admin.close()


def make_topic(address: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True)
    finally:
        admin.close()


def parent_of_a_broker(with_broker: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process group that starts a broker, prints its pid and folder, and waits for its input's end."""
    script = f"""
import os, sys
from eddy.stream.local_kafka.broker import LocalBroker
with LocalBroker() as broker:
    {with_broker or "pass"}
    print(broker.pid, broker._home, flush=True)
    sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def broker_of(parent: subprocess.Popen[str]) -> tuple[int, Path]:
    assert parent.stdout is not None
    pid, home = parent.stdout.readline().split()
    assert psutil.pid_exists(int(pid))
    assert Path(home).exists()
    return int(pid), Path(home)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("pass", id="alone"),
        # The child inherits the pipe that the watchdog listens on, so the pipe does not close.
        pytest.param(
            "if os.fork() == 0: sys.stdin.read(); os._exit(0)", id="with a forked child that lives on"
        ),
    ],
)
def test_a_killed_parent_takes_its_broker_and_its_data_with_it(code: str) -> None:
    parent = parent_of_a_broker(code)
    pid, home = broker_of(parent)
    parent.kill()
    parent.wait()
    eventually(lambda: not psutil.pid_exists(pid) and not home.exists())
    parent.communicate()  # the forked child ends with its input


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_parent_takes_its_broker_with_it(how: signal.Signals) -> None:
    parent = parent_of_a_broker()
    pid, home = broker_of(parent)
    os.killpg(parent.pid, how)  # as Ctrl-C in a terminal does: to the whole group
    parent.communicate()
    eventually(lambda: not psutil.pid_exists(pid) and not home.exists())


def test_the_first_start_needs_the_network_and_says_so(disk_folder: Path) -> None:
    parent = parent_of_a_broker(
        EDDY_CACHE_DIR=str(disk_folder), HTTPS_PROXY=UNREACHABLE_PROXY, NO_PROXY="", no_proxy=""
    )
    _, errors = parent.communicate()
    assert "EddyError: cannot download Apache Kafka" in errors.splitlines()[-1]


def test_later_starts_need_neither_network_nor_java(broker: str) -> None:
    parent = parent_of_a_broker(HTTPS_PROXY=UNREACHABLE_PROXY, PATH="/nowhere", JAVA_HOME="/nowhere")
    _, errors = parent.communicate()
    assert (parent.returncode, errors) == (0, "")


def test_a_restart_and_a_crash_keep_address_and_data() -> None:
    # A crashed node may register again when its old session is over: seconds by default.
    with LocalBroker(properties={"broker.session.timeout.ms": "2000"}) as own:
        address = own.bootstrap_servers
        make_topic(address, "kept")
        own.restart()
        assert (own.bootstrap_servers, topics_at(address)) == (address, ["kept"])
        own.kill()
        own.start()
        assert (own.bootstrap_servers, topics_at(address)) == (address, ["kept"])


def test_whoever_waits_for_a_broker_that_ends_by_itself_is_told() -> None:
    with LocalBroker() as broker:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(EddyError, match=r"Kafka ended by itself: .* \(log: .*\.log\)"):
            broker.wait()


def test_a_data_folder_that_was_given_is_kept_for_the_next_run(disk_folder: Path) -> None:
    with LocalBroker(disk_folder) as first:
        make_topic(first.bootstrap_servers, "kept")
        with pytest.raises(EddyError, match="another broker is using"):
            LocalBroker(disk_folder).start()
    with LocalBroker(disk_folder) as second:
        assert topics_at(second.bootstrap_servers) == ["kept"]


def test_a_taken_port_is_one_line_and_nothing_is_left_running() -> None:
    before = psutil.Process().children(recursive=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EddyError, match=f"port {port} is taken"):
            LocalBroker(port=port).start()
    assert psutil.Process().children(recursive=True) == before


def test_a_lost_race_for_a_free_port_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as taken:
        lost = [taken.getsockname()[1], taken.getsockname()[1]]
        # First the client port is lost, then, in the next attempt, the controller's.
        last = free_port(HOST)
        order = iter([lost[0], free_port(HOST), lost[1], last, free_port(HOST, but=last)])
        monkeypatch.setattr(broker_module, "free_port", lambda host, but=None: next(order))
        with LocalBroker() as own:
            assert topics_at(own.bootstrap_servers) == []


def test_a_broker_that_does_not_start_is_one_line_with_the_cause_and_the_log() -> None:
    own = LocalBroker(heap="plenty")
    with pytest.raises(EddyError, match="heap size") as raised:
        own.start()
    assert str(own.log_file) in str(raised.value)
    assert own.log_file.exists()
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(
    not Path("/dev/shm").exists(), reason="a file system in memory at a known place: Linux only"
)
def test_data_never_goes_to_a_file_system_in_memory() -> None:
    with pytest.raises(EddyError, match="in memory"):
        LocalBroker(Path("/dev/shm/eddy")).start()


def test_too_little_room_is_one_line_that_says_how_much_is_needed(disk_folder: Path) -> None:
    with pytest.raises(EddyError, match=r"GB free, 1000000\.0 GB needed"):
        require_disk(disk_folder, 10**15)


def test_the_folder_of_a_broker_that_died_with_its_machine_is_removed() -> None:
    left = load_settings().cache_dir / "brokers" / "left-behind"
    left.mkdir(parents=True)
    (left / "lock").touch()
    with LocalBroker():
        assert not left.exists()


def test_the_cluster_that_the_settings_name_is_used(broker: str) -> None:
    with broker_or_local(load_settings(bootstrap_servers=broker)) as address:
        assert address == broker


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:9092"])
def test_a_cluster_that_does_not_answer_is_one_line_within_seconds(address: str) -> None:
    """Eight by its own limits; a client that waits for its request's end takes thirty and more."""
    started = time.monotonic()
    with (
        pytest.raises(EddyError, match=f"no answer from the Kafka cluster at {address}"),
        broker_or_local(load_settings(bootstrap_servers=address)),
    ):
        pass
    assert time.monotonic() - started < 25
