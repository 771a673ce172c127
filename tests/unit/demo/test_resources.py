"""What a run of the demo takes for itself: two runs on one machine do not take the same."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from eddy.demo.resources import run_folder, server_port
from eddy.models.errors import EddyError
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import Settings

HOST = "127.0.0.1"


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings without a port of the user's, whose default port is free."""
    monkeypatch.delenv("EDDY_PORT", raising=False)
    settings = Settings()
    object.__setattr__(settings, "port", free_port(HOST))
    settings.model_fields_set.discard("port")
    return settings


def test_of_two_runs_one_has_the_default_port_before_its_server_listens(
    tmp_path: Path, default: Settings
) -> None:
    with server_port(default, tmp_path) as first, server_port(default, tmp_path) as second:
        assert first == default.port
        assert second != first
    with server_port(default, tmp_path) as later:
        assert later == default.port


def test_a_default_port_that_another_program_has_is_left_alone(tmp_path: Path, default: Settings) -> None:
    with socket.create_server((HOST, default.port)), server_port(default, tmp_path) as port:
        assert port != default.port


def test_a_port_that_the_user_has_set_is_taken_or_refused(tmp_path: Path) -> None:
    wanted = free_port(HOST)
    with server_port(Settings(port=wanted), tmp_path) as port:
        assert port == wanted
    with (
        socket.create_server((HOST, wanted)),
        pytest.raises(EddyError, match="EDDY_PORT"),
        server_port(Settings(port=wanted), tmp_path),
    ):
        pass


def test_snapshots_of_a_run_that_was_killed_are_removed_after_a_week(tmp_path: Path) -> None:
    killed, lately, others = (
        tmp_path / "snapshots" / name for name in ("eddy-demo-1", "eddy-demo-2", "shop")
    )
    for folder in (killed, lately, others):
        folder.mkdir(parents=True)
    for folder in (killed, others):
        os.utime(folder, (0, 0))
    with run_folder(tmp_path):
        pass
    assert [folder.exists() for folder in (killed, lately, others)] == [False, True, True]
