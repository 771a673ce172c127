"""Who is kept waiting by the cluster ends as soon as it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from eddy.serving.server import run_server
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.worker.app import run_worker
from tests.deploy.files import DEPLOY, read_yaml, walk
from tests.support.waiting import eventually

HOST = "127.0.0.1"
CONNECTS_WITHIN_S = 90.0
ENDS_WITHIN_S = 10.0
"""Much less than a cluster that does not answer is waited for."""


def ended_while_it_waits(arguments: list[str], told_by: signal.Signals, folder: Path) -> int:
    """The exit code of a command that waits for a silent cluster when it gets the signal."""
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(CONNECTS_WITHIN_S)
        address = f"{HOST}:{silent.getsockname()[1]}"
        environment = {
            **os.environ, "EDDY_BOOTSTRAP_SERVERS": address, "EDDY_PORT": "0",
            "EDDY_REGISTRY": str(folder / "registry"),
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "eddy", *arguments], env=environment)
        try:
            connection, _ = silent.accept()  # it has asked, and gets no answer
            with connection:
                process.send_signal(told_by)
                return process.wait(ENDS_WITHIN_S)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("command", "told_by"), [("worker", signal.SIGINT), ("serve", signal.SIGTERM)])
def test_who_waits_for_a_silent_cluster_ends_when_told_to(
    command: str, told_by: signal.Signals, tmp_path: Path
) -> None:
    assert ended_while_it_waits([command], told_by, tmp_path) == 0


def test_the_refresh_of_the_cron_job_ends_when_its_pod_is_to_end(tmp_path: Path) -> None:
    """At once, and not as if it had done its work: the Job's next pod goes on with it."""
    cron_job = read_yaml(DEPLOY / "kubernetes" / "base" / "refresh.yaml")
    (container,) = next(at["containers"] for at in walk(cron_job) if "containers" in at)
    assert ended_while_it_waits(container["args"], signal.SIGTERM, tmp_path) == -signal.SIGTERM


@pytest.mark.parametrize("run", [run_worker, run_server])
def test_who_ends_early_leaves_no_handler_of_signals_and_no_thread_behind(
    run: Callable[[Settings], Coroutine[Any, Any, None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:9")
    before = set(threading.enumerate())

    async def ended_early(silent: socket.socket, settings: Settings) -> list[bool]:
        """Whether each signal has a handler still."""
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(run(settings))
        with (await loop.run_in_executor(None, silent.accept))[0]:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(running, ENDS_WITHIN_S)
        return [loop.remove_signal_handler(number) for number in (signal.SIGTERM, signal.SIGINT)]

    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(CONNECTS_WITHIN_S)
        address = f"{HOST}:{silent.getsockname()[1]}"
        settings = load_settings(bootstrap_servers=address, port=0, registry=tmp_path / "registry")
        assert asyncio.run(ended_early(silent, settings)) == [False, False]
    # Once the cluster is gone, so is who has asked it.
    eventually(lambda: set(threading.enumerate()) <= before, within_s=CONNECTS_WITHIN_S)
