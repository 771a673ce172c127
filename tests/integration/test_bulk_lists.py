"""`eddy recommend` where no version can score says so: a scheduled command must not wait for ever."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from eddy.models.errors import EddyError
from eddy.serving.bulk.run import make_lists
from eddy.serving.lists.questions import Question
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings
from tests.support.engines import random_version

WITHIN_S = 60.0


def make(settings: Settings, out: Path) -> None:
    asyncio.run(asyncio.wait_for(make_lists(settings, None, Question("", k=5), out, None), WITHIN_S))


def test_before_a_version_is_announced_no_lists_are_made(installed: Settings, tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="no model version is announced yet"):
        make(installed, tmp_path / "lists.parquet")
    assert not (tmp_path / "lists.parquet").exists()


def test_a_version_without_its_files_is_named(installed: Settings, tmp_path: Path) -> None:
    version = random_version(installed.registry)
    announce(installed, version)
    shutil.rmtree(str(version.path))
    with pytest.raises(EddyError, match=f"version {version.id}"):
        make(installed, tmp_path / "lists.parquet")
