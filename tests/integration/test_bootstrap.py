"""The set-up on a newcomer's machine: each trap is one line, and a finished set-up is not done again."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SHELL = shutil.which("sh") or "/bin/sh"


def machine_with(folder: Path, **programs: str) -> str:
    """A PATH with these shell scripts and nothing else but what the set-up's own script needs."""
    folder.mkdir()
    (folder / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
    for name, script in programs.items():
        program = folder / name
        program.write_text(f"#!{SHELL}\n{script}\n")
        program.chmod(0o755)
    return str(folder)


def set_up_with(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHELL, DEPLOY / "bootstrap.sh"], env={"PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up's second half, for a project in a folder of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", DEPLOY / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "eddy-setup.json")
    return module


@pytest.fixture
def installed(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What was installed, in place of the installer, which needs the network; pip is not needed either."""

    def run_quickly(failure: str, *command: str) -> None:
        subprocess.run([*command, "--without-pip"], check=True)

    calls: list[set[str]] = []
    monkeypatch.setattr(bootstrap, "run", run_quickly)
    monkeypatch.setattr(bootstrap, "install", calls.append)
    monkeypatch.setattr(bootstrap, "fetch_kafka", lambda: None)
    return calls


def test_without_a_fitting_python_the_versions_that_fit_are_named(tmp_path: Path) -> None:
    done = set_up_with(machine_with(tmp_path / "bin", python3="exit 1"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "set-up: no Python 3.11, 3.12, 3.13 or 3.14 on the PATH: install one and run this again"
    ]


def test_without_ensurepip_the_package_to_install_is_named(tmp_path: Path) -> None:
    python = 'case "$2" in *ensurepip*) exit 1;; *%d.%d*) echo 3.11;; esac'
    done = set_up_with(machine_with(tmp_path / "bin", python3=python))
    assert done.returncode == 1
    assert "sudo apt install python3.11-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_python_that_can_make_environments_is_preferred_to_one_that_cannot(tmp_path: Path) -> None:
    incomplete = 'case "$2" in *ensurepip*) exit 1;; esac'
    complete = 'case "$1" in *bootstrap.py) echo chosen;; esac'
    path = machine_with(tmp_path / "bin", **{"python3.12": incomplete, "python3": complete})
    assert set_up_with(path).stdout == "chosen\n"


def test_the_second_run_installs_nothing(bootstrap: ModuleType, installed: list[set[str]]) -> None:
    bootstrap.set_up({"dev"})
    bootstrap.set_up({"dev"})
    assert installed == [{"dev"}]


def test_an_extra_is_added_once_and_kept(bootstrap: ModuleType, installed: list[set[str]]) -> None:
    for extras in ({"dev"}, {"dev", "bench"}, {"dev"}):
        bootstrap.set_up(extras)
    assert installed == [{"dev"}, {"dev", "bench"}]


def test_a_changed_project_is_installed_again_into_the_same_environment(
    bootstrap: ModuleType, installed: list[set[str]]
) -> None:
    bootstrap.set_up({"dev"})
    (bootstrap.VENV / "kept").touch()
    (bootstrap.ROOT / "pyproject.toml").write_text("[project] # another dependency")
    bootstrap.set_up({"dev"})
    assert len(installed) == 2
    assert (bootstrap.VENV / "kept").exists()


def test_what_an_interrupted_set_up_left_is_made_again(
    bootstrap: ModuleType, installed: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(extras: set[str]) -> None:
        (bootstrap.VENV / "half-installed").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.set_up({"dev"})
    bootstrap.set_up({"dev"})
    assert installed == [{"dev"}]
    assert not (bootstrap.VENV / "half-installed").exists()


def test_a_moved_project_gets_a_new_environment(bootstrap: ModuleType, installed: list[set[str]]) -> None:
    bootstrap.set_up({"dev"})
    stamp = json.loads(bootstrap.STAMP.read_text())
    bootstrap.STAMP.write_text(json.dumps({**stamp, "root": "/where/it/was"}))
    (bootstrap.VENV / "old").touch()
    bootstrap.set_up({"dev"})
    assert not (bootstrap.VENV / "old").exists()


def test_an_environment_of_the_users_own_is_not_touched(bootstrap: ModuleType) -> None:
    (bootstrap.VENV / "precious").mkdir(parents=True)
    with pytest.raises(bootstrap.SetupError, match="move it away"):
        bootstrap.set_up({"dev"})
    assert (bootstrap.VENV / "precious").exists()


def test_a_full_disk_is_noticed_before_the_download(
    bootstrap: ModuleType, installed: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "NEEDED_BYTES", 10**18)
    with pytest.raises(bootstrap.SetupError, match="GB free, 1000000000 GB are needed"):
        bootstrap.set_up({"dev"})
    assert installed == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"SOABI": "cpython-312-x86_64-linux-musl"}, "musl"),
        ({"SOABI": "cpython-312-x86_64-linux-gnu", "HOST_GNU_TYPE": "x86_64-alpine-linux-musl"}, "musl"),
    ],
)
def test_musl_is_refused_with_a_reason(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, what: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    monkeypatch.setattr(bootstrap.sysconfig, "get_config_var", what.get)
    with pytest.raises(bootstrap.SetupError, match=reason):
        bootstrap.check_platform()


def test_the_interpreter_of_these_tests_passes_the_check(bootstrap: ModuleType) -> None:
    bootstrap.check_platform()
    assert bootstrap.works(Path(sys.executable))
    assert not bootstrap.works(Path("/no/such/python"))
