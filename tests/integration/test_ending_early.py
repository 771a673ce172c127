"""A worker and a server that the cluster keeps waiting end as soon as they are told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HOST = "127.0.0.1"
CONNECTS_WITHIN_S = 90.0
ENDS_WITHIN_S = 10.0
"""Much less than a cluster that does not answer is waited for."""


@pytest.mark.parametrize(("command", "told_by"), [("worker", signal.SIGINT), ("serve", signal.SIGTERM)])
def test_who_waits_for_a_silent_cluster_ends_when_told_to(
    command: str, told_by: signal.Signals, tmp_path: Path
) -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(CONNECTS_WITHIN_S)
        address = f"{HOST}:{silent.getsockname()[1]}"
        environment = {
            **os.environ, "EDDY_BOOTSTRAP_SERVERS": address, "EDDY_PORT": "0",
            "EDDY_REGISTRY": str(tmp_path / "registry"),
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "eddy", command], env=environment)
        try:
            connection, _ = silent.accept()  # it has asked, and gets no answer
            with connection:
                process.send_signal(told_by)
                assert process.wait(ENDS_WITHIN_S) == 0
        finally:
            process.kill()
            process.wait()
