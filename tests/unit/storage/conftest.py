"""Folders to write into: one of this machine, and one on object storage."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from eddy.models.storage import Location, located
from tests.support.object_storage import local_s3

BUCKET = "eddy-tests"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with local_s3(BUCKET) as endpoint:
        yield endpoint


@pytest.fixture
def remote(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A folder on object storage, and a cache of its own."""
    monkeypatch.setenv("EDDY_CACHE_DIR", str(tmp_path / "cache"))
    return located(f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/folder")


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Both, one after the other."""
    if request.param == "local":
        return located(tmp_path / "folder")
    location: Location = request.getfixturevalue("remote")
    return location
