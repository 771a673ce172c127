"""The registry on object storage: a version is what has a description, and is fetched once."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from eddy.cli.models import list_versions, show_version
from eddy.models import registry, version_folders
from eddy.models.decisions import Decision, read_decisions, record_decision
from eddy.models.descriptions import versions
from eddy.models.errors import EddyError
from eddy.models.storage import Location
from eddy.refresh.job import JobFile
from eddy.stream.kafka.versions import open_version
from eddy.stream.records.schema import Share
from eddy.stream.records.settings import load_settings
from tests.unit.models.test_registry import trained

pytestmark = pytest.mark.unit


def same(a: registry.Version, b: registry.Version) -> bool:
    ours, theirs = a.recommender.state_dict(), b.recommender.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def copies(location: Location) -> set[str]:
    folder = location.work_folder / "versions"
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


def test_a_version_is_published_listed_and_loaded(remote: Location) -> None:
    assert registry.versions(remote) == []
    first, second = (registry.publish(remote, trained(), {"events": "a"}) for _ in range(2))
    assert registry.versions(remote) == [first.id, second.id]
    assert first.location == remote / first.id
    shutil.rmtree(remote.work_folder)
    loaded = registry.latest(remote)
    assert (loaded.id, loaded.lineage, loaded.location) == (second.id, {"events": "a"}, remote / second.id)
    assert same(loaded, second)
    assert copies(remote) == {second.id}


def test_a_version_is_fetched_once_and_again_when_its_copy_is_damaged(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.publish(remote, trained(), {})
    with monkeypatch.context() as patch:
        patch.setattr(version_folders, "_fetch", lambda *_: pytest.fail("fetched again"))
        registry.load(version.location)
    (version.path / "model.safetensors").unlink()  # the loaded weights are mapped from it
    (version.path / "model.safetensors").write_bytes(b"noise")
    assert same(registry.load(version.location), version)


def test_a_version_that_is_damaged_there_is_refused(remote: Location) -> None:
    version = registry.publish(remote, trained(), {})
    shutil.rmtree(remote.work_folder)
    (version.location / "vocabulary.parquet").write(b"noise")
    with pytest.raises(EddyError, match=r"s3://.*vocabulary\.parquet: not what was published"):
        registry.load(version.location)


class Killed(BaseException):
    pass


def test_a_version_whose_description_is_missing_is_none_and_goes_when_it_is_old(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.publish(remote, trained(), {})
    writing = Location.writing

    def killed(location: Location) -> AbstractContextManager[Any]:
        if location.name == "version.json":
            raise Killed
        return writing(location)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "writing", killed)
        with pytest.raises(Killed):
            registry.publish(remote, trained(), {})
    assert registry.versions(remote) == [first.id]
    assert len(remote.children()) == 2
    second = registry.publish(remote, trained(), {})
    assert registry.versions(remote) == [first.id, second.id]
    monkeypatch.setattr(version_folders, "_UNFINISHED_S", -1)
    assert registry.remove(remote, [], list) == []
    assert sorted(remote.children()) == [first.id, second.id]


def test_two_machines_that_publish_at_once_both_get_a_version(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_folders, "numbered", lambda _: {})  # neither sees the other's
    ids = sorted(registry.publish(remote, trained(), {}).id for _ in range(2))
    assert versions(remote) == ids
    assert [id_[:8] for id_ in ids] == ["v000001-"] * 2


def test_removed_versions_are_gone_and_needed_ones_come_back(remote: Location) -> None:
    first, second, third = (registry.publish(remote, trained(), {}).id for _ in range(3))
    seen: list[str] = []

    def needed() -> list[str]:
        seen.extend(registry.versions(remote))
        with pytest.raises(EddyError):
            registry.load(remote / first)
        return [second]

    assert registry.remove(remote, [first, second], needed) == [first]
    assert seen == [third]
    assert registry.versions(remote) == [second, third]
    assert registry.load(remote / second).id == second
    assert not any(first in file.folders for file in remote.files())


def test_copies_of_versions_that_are_gone_go_with_the_next_fetch(remote: Location) -> None:
    first, second = (registry.publish(remote, trained(), {}) for _ in range(2))
    registry.remove(remote, [first.id], list)
    shutil.rmtree(second.path)
    registry.load(second.location)
    assert copies(remote) == {second.id}


def test_a_version_that_is_being_published_survives_another_process_that_fetches_one(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may load the live version for the first time on the machine that publishes the next one."""
    first = registry.publish(remote, trained(), {})
    writing = Location.writing

    def after_a_fetch(location: Location) -> AbstractContextManager[Any]:
        shutil.rmtree(first.path, ignore_errors=True)
        registry.load(first.location)
        return writing(location)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "writing", after_a_fetch)
        second = registry.publish(remote, trained(), {})
    assert registry.versions(remote) == [first.id, second.id]
    assert copies(remote) == {first.id, second.id}


def test_what_a_killed_publisher_left_on_this_machine_is_in_nobodys_way(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = remote.work_folder / "versions" / ".writing"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    version = registry.publish(remote, trained(), {})
    assert same(registry.load(version.location), version)
    assert copies(remote) == {version.id}


def test_decisions_are_recorded_in_order_also_of_two_machines(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reason in ("first", "second"):
        record_decision(remote, Decision("refused", "", "", None, reason, {}, "refresh"))
    assert [decision.reason for decision in read_decisions(remote)] == ["first", "second"]
    monkeypatch.setattr("eddy.models.decisions._numbered", lambda _: [])
    record_decision(remote, Decision("refused", "", "", None, "of another machine", {}, "refresh"))
    monkeypatch.undo()
    monkeypatch.setenv("EDDY_CACHE_DIR", str(remote.work_folder))
    assert {decision.reason for decision in read_decisions(remote)} == {
        "first", "second", "of another machine",
    }  # fmt: skip


def test_a_refresh_keeps_its_unfinished_work_in_the_cache(remote: Location, tmp_path: Path) -> None:
    assert tmp_path / "cache" in JobFile(remote).folder.parents
    assert JobFile(tmp_path).folder == tmp_path / ".refresh"


def test_versions_are_shown_and_opened_by_announcement(
    remote: Location, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    version = registry.publish(remote, trained(), {})
    settings = load_settings(registry=str(remote))
    list_versions(settings, None)
    show_version(settings, version.id, None)
    assert str(version.location) in capsys.readouterr().out
    share = Share(version.id, str(version.location), 100)
    assert open_version(share, settings.registry).id == version.id
    # Another registry's process does not follow the announcement there, with its own credentials.
    with pytest.raises(EddyError, match="set EDDY_REGISTRY to the registry there"):
        open_version(share, tmp_path / "elsewhere")
