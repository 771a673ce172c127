"""The command line's contract: what each command needs, writes and says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eddy import __main__ as eddy
from eddy.models.logs.events import read_events
from eddy.stream.records.settings import Settings
from tests.support.commands import ROOT, run, tiny

COMMANDS = sorted(
    command.name or command.callback.__name__ for command in eddy.app.registered_commands if command.callback
)
OF_MODELS = (
    "models compare",
    "models list",
    "models prune",
    "models rollback",
    "models show",
    "models watch",
)


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    """300 ratings, in which every user goes from one item to the next."""
    lines = [
        f"user-{n % 20},item-{(n // 20 + n % 20) % 30},{1362062307 + n * 60},{1 + n % 10}" for n in range(300)
    ]
    file = tmp_path / "events.csv"
    file.write_text("\n".join(["user_id,item_id,timestamp,rating", *lines]) + "\n")
    return file


@pytest.mark.parametrize("command", [*COMMANDS, *OF_MODELS])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(eddy.app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Example: " in shown.output
    assert f"eddy {command}" in shown.output


def test_the_version_is_that_of_the_distribution() -> None:
    shown = CliRunner().invoke(eddy.app, ["--version"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (shown.exit_code, shown.output) == (0, f"eddy {project['version']}\n")


def test_the_commands_of_the_contract_exist() -> None:
    assert {"demo", "broker", "worker", "serve", "train", "replay", "evaluate"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--events", "nothing.parquet"], "nothing.parquet: no such file"),
        (["train", "--events", "events.csv", "--cell", "cnn"], "no cell named 'cnn'"),
        (["train", "--events", "events.csv", "--set", "hiden=3"], "unknown setting 'hiden'"),
        (["train", "--events", "events.csv", "--set", "hidden"], "write NAME=VALUE"),
        (["evaluate", "--events", "events.csv", "--protocol", "temporal"], "one of --cell"),
        (["evaluate", "--events", "events.csv", "--protocol", "random", "--cell", "gru"], "random"),
        (["train", "--events", "events.csv", "--items", "none.parquet"], "none.parquet: no such file"),
        (["compare", "--events", "events.csv", "--mode", "some"], "mode 'some' is not known"),
        (["announce", "--registry", "registry"], "no version in it"),
        (
            ["train", "--events", "events.csv", "--set", "device=tpu"],
            "--set device=tpu: torch cannot compute",
        ),
        (["train", "--events", "events.csv", "--set", "device=meta"], "--set device=meta: torch cannot"),
        (["train", "--events", "events.csv", "--set", "threads=99999"], "threads is 99999"),
        (["train", "--events", "events.csv", "--set", "dim=1000000000000"], "dim is 1000000000000"),
        (
            ["train", "--events", "events.csv", "--set", "dim=16777216", "--set", "item_buckets=16777216"],
            "not enough memory",
        ),
        (["train", "--events", "events.csv", "--announce"], "no Kafka cluster is named"),
        (
            ["train", "--events", "none.csv", "--registry", "events.csv"],
            "registry events.csv: no version could",
        ),
        (["train", "--events", "none.csv", "--json", "none/f.json"], "none/f.json: no file could be written"),
        (["compare", "--events", "none.csv", "--json", "."], ".: no file could be written"),
        (
            ["train", "--events", "none.csv", "--checkpoint", "."],
            ".: no checkpoint could be written (it is a folder)",
        ),
        (["replay", "--events", "events.csv"], "no Kafka cluster is named"),
        (["topics"], "no Kafka cluster is named"),
        (["worker"], "no Kafka cluster is named"),
        (["recommend", "--out", "lists.csv"], "lists.csv: lists are written as Parquet"),
        (["models", "list"], "no version in it"),
        (["models", "show", "v000001-00000000"], "is not in the registry"),
        (["models", "rollback"], "no Kafka cluster is named"),
        (["models", "prune"], "no Kafka cluster is named"),
        (["refresh", "--canary", ""], "--canary ''"),
        (["refresh", "--every", ""], "--every ''"),
        (["refresh", "--every", "200000d"], "--every '200000d'"),
        (["replay", "--events", "events.csv", "--rate", "inf"], "--rate inf"),
        (["train", "--events", ""], "an empty path"),
        (["figures", "events.csv"], "events.csv: no file could be written there"),
        (["broker", "--data", "events.csv"], "events.csv: is no folder"),
        (
            [
                "evaluate",
                "--events",
                "events.csv",
                "--protocol",
                "temporal",
                "--registry",
                "r",
                "--set",
                "dim=8",
            ],
            "--items and --set go with --cell",
        ),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    events_file: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(events_file.parent)
    monkeypatch.delenv("EDDY_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setattr(sys, "argv", ["eddy", *arguments])
    with pytest.raises(SystemExit) as ended:
        eddy.run()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("eddy: ")
    assert says in error
    assert error.count("\n") == 1


def test_a_wrong_setting_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDDY_PARTITIONS", "four")
    monkeypatch.setattr(sys, "argv", ["eddy", "worker"])
    with pytest.raises(SystemExit) as ended:
        eddy.run()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "EDDY_PARTITIONS" in error
    assert error.count("\n") == 1


def test_an_error_is_also_one_line_as_a_process(tmp_path: Path) -> None:
    ended = run(tmp_path, "replay", "--events", "nothing.parquet")
    assert (ended.returncode, ended.stderr) == (1, "eddy: nothing.parquet: no such file; check the path\n")


def test_a_log_without_times_is_trained_on_with_a_warning(tmp_path: Path) -> None:
    rows = [f"user-{n % 20},item-{(n // 20 + n % 20) % 30}" for n in range(200)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n")
    trained = run(tmp_path, "train", "--events", "events.csv", "--registry", "r", *tiny())
    assert trained.returncode == 0, trained.stderr
    assert "Take care: events.csv has no column timestamp" in trained.stderr


@pytest.mark.timeout(300)
def test_what_is_trained_can_be_evaluated(events_file: Path) -> None:
    folder = events_file.parent
    kinds = [f"item-{n},kind {n % 3}" for n in range(30)]
    (folder / "items.csv").write_text("\n".join(["item_id,kind", *kinds]) + "\n")
    trained = run(
        folder, "train", "--events", str(events_file), "--items", "items.csv", "--registry", "r", *tiny(),
        "--json", "train.json",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    version = Path(trained.stdout.strip())
    assert {"model.safetensors", "features.parquet"} < {file.name for file in (folder / version).iterdir()}
    assert json.loads((folder / "train.json").read_text())["version"] == version.name
    judged = run(
        folder,
        "evaluate",
        "--events",
        str(events_file),
        "--protocol",
        "temporal",
        "--registry",
        "r",
        "--json",
        "e.json",
    )
    assert judged.returncode == 0, judged.stderr
    report = json.loads((folder / "e.json").read_text())
    assert report["mode"] == "all"
    assert set(report["model"]) == set(next(iter(report["baselines"].values())))
    assert f"{version.name} was trained on" in judged.stderr  # on the events it is judged on


@pytest.mark.timeout(300)
def test_what_is_replayed_can_be_exported(events_file: Path, settings: Settings) -> None:
    folder = events_file.parent
    kafka = {
        "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
    }
    replayed = run(folder, "replay", "--events", str(events_file), **kafka)
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout.startswith("300 events written")
    exported = run(folder, "export", "log", **kafka)
    assert exported.returncode == 0, exported.stderr
    before, after = read_events(events_file), read_events(folder / "log")
    assert [before.users[user] for user in before.user] == [after.users[user] for user in after.user]
    assert before.timestamp.tolist() == after.timestamp.tolist()
    assert before.value.tolist() == after.value.tolist()


def test_ctrl_c_ends_a_waiting_worker(tmp_path: Path, settings: Settings) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", "-m", "eddy", "worker"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
            "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    assert any("waiting" in line for line in worker.stderr)
    worker.send_signal(signal.SIGINT)
    rest = worker.communicate(timeout=60)[1]
    assert worker.returncode == 0
    assert "Traceback" not in rest
    assert "ResourceWarning" not in rest
