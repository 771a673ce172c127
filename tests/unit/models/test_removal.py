"""Removing versions: gone for everybody at one moment, back when somebody needs them after all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eddy.models import registry
from eddy.models.descriptions import describe
from eddy.models.errors import EddyError
from tests.support.versions import edit_description
from tests.unit.models.test_registry import trained

pytestmark = pytest.mark.unit


def published(folder: Path, count: int = 3) -> list[str]:
    return [registry.publish(folder, trained(), {"events": "a.parquet"}).id for _ in range(count)]


def nothing() -> list[str]:
    return []


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_removed_versions_are_gone_and_the_others_load(tmp_path: Path) -> None:
    first, second, third = published(tmp_path)
    assert registry.remove(tmp_path, [first, second, "v000009-00000000"], nothing) == [first, second]
    assert entries(tmp_path) == {third, ".lock"}
    assert registry.latest(tmp_path).id == third


def test_nobody_can_load_a_version_once_it_is_asked_whether_it_is_needed(tmp_path: Path) -> None:
    first, second, third = published(tmp_path)
    seen: list[str] = []

    def needed() -> list[str]:
        seen.extend(registry.versions(tmp_path))
        with pytest.raises(EddyError):
            registry.load(tmp_path / first)
        return [second]

    assert registry.remove(tmp_path, [first, second], needed) == [first]
    assert seen == [third]
    assert registry.versions(tmp_path) == [second, third]
    assert registry.load(tmp_path / second).id == second


def test_all_versions_are_back_when_it_cannot_be_told_whether_they_are_needed(tmp_path: Path) -> None:
    ids = published(tmp_path)

    def needed() -> list[str]:
        raise EddyError("the cluster is away")

    with pytest.raises(EddyError, match="the cluster is away"):
        registry.remove(tmp_path, ids[:2], needed)
    assert registry.versions(tmp_path) == ids
    assert entries(tmp_path) == {*ids, ".lock"}


_KILLED_WHILE_IT_ASKS = """
import sys
from pathlib import Path
from eddy.models.registry import remove

def needed():
    print(flush=True)
    input()

remove(Path(sys.argv[1]), sys.argv[2:], needed)
"""


def test_what_a_killed_removal_left_is_no_version_and_goes_with_the_next(tmp_path: Path) -> None:
    first, second, third = published(tmp_path)
    command = [sys.executable, "-c", _KILLED_WHILE_IT_ASKS, str(tmp_path), first]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.kill()
    assert registry.versions(tmp_path) == [second, third]
    assert len(entries(tmp_path)) == 4, "the folder of the first is there under another name"
    assert registry.remove(tmp_path, [second], nothing) == [second]
    assert entries(tmp_path) == {third, ".lock"}


def test_a_link_to_a_version_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    (id_,) = published(elsewhere, 1)
    here.mkdir()
    (here / id_).symlink_to(elsewhere / id_)
    assert registry.remove(here, [id_], nothing) == [id_]
    assert registry.versions(here) == []
    assert registry.load(elsewhere / id_).id == id_


def test_a_description_is_what_the_whole_version_says_without_its_weights(tmp_path: Path) -> None:
    (id_,) = published(tmp_path, 1)
    whole = registry.load(tmp_path / id_)
    (tmp_path / id_ / "model.safetensors").unlink()
    (tmp_path / id_ / "vocabulary.parquet").unlink()
    about = describe(tmp_path / id_)
    assert (about.id, about.location, about.config) == (whole.id, whole.location, whole.recommender.config)
    assert (about.metrics, about.lineage, about.created) == (whole.metrics, whole.lineage, whole.created)
    assert (about.items, about.types, about.rules) == (12, whole.vocabulary.types, whole.rules)


@pytest.mark.parametrize("changes", [{"items": "many"}, {"metrics": 3}, {"rules": []}, {"config": None}])
def test_a_description_of_the_wrong_form_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    (id_,) = published(tmp_path, 1)
    edit_description(tmp_path / id_, **changes)
    with pytest.raises(EddyError, match=r"version\.json: unreadable"):
        describe(tmp_path / id_)


def test_a_description_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (id_,) = published(tmp_path, 1)
    (tmp_path / id_ / "version.json").write_text("[" * 100_000)
    with pytest.raises(EddyError, match=r"version\.json: unreadable"):
        describe(tmp_path / id_)
