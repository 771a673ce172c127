"""The files that deploy Eddy, as the tests read them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from eddy.stream.records.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

SETTINGS = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
"""The variables that Eddy reads."""

SECRETS = {f"{ENV_PREFIX}{name}" for name in ("SASL_USERNAME", "SASL_PASSWORD", "SSL_PASSWORD")}
"""Those that no file may hold."""


def loaded(script: Path) -> ModuleType:
    """A script of `deploy/`, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def read_yaml(path: Path) -> Any:
    """The one document of a file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_env(path: Path) -> dict[str, str]:
    """The assignments of a file of environment variables."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within parsed YAML or JSON."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def schema(name: str) -> Any:
    """A JSON schema that check-jsonschema brings; skips the test where that is not installed.

    Only its data is used: its code asks for another version of click than Eddy's command line.
    """
    found = importlib.util.find_spec("check_jsonschema")
    if found is None or not found.submodule_search_locations:
        pytest.skip("`make deploy-check` installs check-jsonschema")
    folder = Path(found.submodule_search_locations[0])
    return json.loads((folder / "builtin_schemas" / "vendor" / f"{name}.json").read_text(encoding="utf-8"))
