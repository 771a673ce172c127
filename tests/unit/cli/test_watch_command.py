"""`eddy models watch`, up to the cluster."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from typer.testing import CliRunner

from eddy.cli import terminal
from eddy.cli.models_commands import commands
from eddy.cli.quantities import read_duration, read_percent
from eddy.models.errors import EddyError
from eddy.stream.canary import watch as watching
from eddy.stream.canary.trial import Limit
from eddy.stream.kafka import topics


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("1d", 86_400), (" 1.5h ", 5_400)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert read_duration(text, "--for") == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "h", "0s", "-1h", "2 hours", "1e9d", "infd", "nanh", "٢h", "1h\n2"]
)
def test_anything_else_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(EddyError, match="--for"):
        read_duration(text, "--for")


def test_the_command_watches_within_the_limits_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Limit] = []

    def watch(settings: Any, limit: Limit, *_: Any) -> None:
        limits.append(limit)

    monkeypatch.setattr(watching, "watch", watch)
    monkeypatch.setattr(topics, "prepare_topics", lambda *_: None)
    monkeypatch.setattr(terminal, "set_up_logging", lambda log_format: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for arguments in (["watch"], ["watch", "--for", "30m", "--events", "5000"]):
        assert CliRunner().invoke(commands, arguments).exit_code == 0
    assert limits == [Limit(7_200), Limit(1_800, 5_000)]
    refused = CliRunner().invoke(commands, ["watch", "--for", "soon"])
    assert isinstance(refused.exception, EddyError)


@pytest.mark.parametrize(("text", "percent"), [("10%", 10), ("1", 1), (" 99 % ", 99)])
def test_a_share_of_users_is_a_whole_percent(text: str, percent: int) -> None:
    assert read_percent(text, "--canary") == percent


@pytest.mark.parametrize("text", ["", "0%", "100%", "1.5%", "-1%", "10%%", "ten", "٣%"])
def test_anything_else_is_no_share(text: str) -> None:
    with pytest.raises(EddyError, match="--canary"):
        read_percent(text, "--canary")
