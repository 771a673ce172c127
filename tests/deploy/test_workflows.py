"""The workflows of GitHub: valid, with few rights, and made of the same targets that everybody runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deploy.files import ROOT, make_targets, read_yaml, schema, walk

pytestmark = pytest.mark.unit

CHECKS: dict[Any, Any] = read_yaml(ROOT / ".github" / "workflows" / "checks.yaml")
STEPS = [step for at in walk(CHECKS["jobs"]) for step in at.get("steps", [])]


def test_the_workflow_follows_githubs_schema() -> None:
    as_text = {
        "on" if key is True else key: value for key, value in CHECKS.items()
    }  # YAML 1.1 reads "on" as true
    jsonschema.validate(as_text, schema("github-workflows"))


def test_it_runs_targets_of_the_makefile() -> None:
    run = {word for step in STEPS for word in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert {"test", "deploy-check", "dist", "audit"} <= run <= make_targets()


def test_it_tests_every_python_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = CHECKS["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={versions[0]}"
    assert versions == [f"3.{minor}" for minor in range(11, 15)]


def test_it_may_read_the_repository_and_nothing_else() -> None:
    assert CHECKS["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in CHECKS["jobs"].values())
    for step in STEPS:
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        # What a caller chooses must not become part of a script.
        assert "${{" not in step.get("run", "")


def test_every_action_is_named_by_its_commit() -> None:
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in actions)


def test_zizmor_finds_nothing_unsafe() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    if not zizmor.exists():
        pytest.skip("`make deploy-check` installs zizmor")
    done = subprocess.run(
        [zizmor, "--offline", "--quiet", ROOT / ".github" / "workflows"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_job_ends_in_time() -> None:
    assert all(job["timeout-minutes"] <= 60 for job in CHECKS["jobs"].values())
