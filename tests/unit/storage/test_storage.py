"""Locations: the same operations on this machine and on object storage."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from unittest.mock import Mock

import pyarrow.fs
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.models.logs.item_features import read_features
from eddy.models.storage import Location, located
from eddy.stream.records.settings import load_settings
from tests.unit.storage.conftest import BUCKET

pytestmark = pytest.mark.unit

EVENTS = b"user_id,item_id,timestamp\nada,heat,2020-01-01\nbob,alien,2020-01-02\n"


def test_what_is_written_is_read_listed_and_deleted(folder: Location) -> None:
    assert not folder.is_folder()
    assert folder.children() == []
    assert folder.files() == []
    for name in ("b/two", "a", "b/one/deep"):
        (folder / name).write(name.encode())
    assert folder.is_folder()
    assert folder.children() == ["a", "b"]
    assert [(*file.folders, file.location.name, file.bytes) for file in folder.files()] == [
        ("a", 1), ("b", "one", "deep", 10), ("b", "two", 5),
    ]  # fmt: skip
    assert (folder / "b/two").read() == b"b/two"
    assert (folder / "b/two").read(3) == b"b/t"
    assert folder.files()[1].location == folder / "b" / "one" / "deep"
    (folder / "a").delete()
    (folder / "a").delete()
    assert not (folder / "a").is_file()
    with pytest.raises(FileNotFoundError):
        (folder / "a").read()


def test_a_file_that_another_process_removes_meanwhile_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and exports list an event log whose manifests another export replaces all the time."""
    for name in ("goes", "stays"):
        (tmp_path / name).write_bytes(b"content")
    is_file = Path.is_file

    def is_file_and_goes(path: Path) -> bool:
        answer = is_file(path)
        if path.name == "goes":
            path.unlink()
        return answer

    monkeypatch.setattr(Path, "is_file", is_file_and_goes)
    assert [file.location.name for file in located(tmp_path).files()] == ["stays"]


def test_a_file_is_replaced_as_a_whole_and_copied(folder: Location) -> None:
    for content in (b"first", b"second"):
        (folder / "file").write(content)
    (folder / "file").copy_to(folder / "copy")
    assert [file.location.read() for file in folder.files()] == [b"second", b"second"]


def test_what_an_exception_interrupts_is_not_there(folder: Location) -> None:
    def write_half() -> None:
        with (folder / "file").writing() as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert folder.files() == []


def test_names_parents_and_texts_are_those_of_paths_and_uris(remote: Location, tmp_path: Path) -> None:
    file = remote / "part.jsonl.gz"
    assert (file.name, file.suffixes, file.parent) == ("part.jsonl.gz", [".jsonl", ".gz"], remote)
    assert str(file) == f"{remote}/part.jsonl.gz"
    assert str(located("s3://b/f?region=eu-west-1") / "x") == "s3://b/f/x?region=eu-west-1"
    local = located(tmp_path) / "part.jsonl.gz"
    assert (local.name, local.suffixes) == ("part.jsonl.gz", [".jsonl", ".gz"])
    assert local.parent == located(tmp_path)
    assert Path(local) == tmp_path / "part.jsonl.gz"
    with pytest.raises(TypeError, match="no path on this machine"):
        Path(file)


def test_what_has_to_be_local_lies_in_the_cache_under_a_name_of_the_uri(
    remote: Location, tmp_path: Path
) -> None:
    assert located(tmp_path).work_folder == tmp_path
    assert remote.work_folder.parent == tmp_path / "cache" / "storage"
    assert remote.work_folder == located(str(remote)).work_folder
    assert remote.work_folder != (remote / "x").work_folder


def test_a_place_is_the_same_with_and_without_a_slash_at_its_end(remote: Location) -> None:
    """Two exports to one log, or two writers to one registry, take the same locks."""
    slashed = located(f"{remote}//")
    assert slashed == remote
    assert slashed.work_folder == remote.work_folder == (remote / "x").parent.work_folder
    assert str(located("s3://b/f/?region=eu-west-1")) == "s3://b/f?region=eu-west-1"


def test_a_key_with_a_hash_is_that_key(remote: Location) -> None:
    (remote / "events#1.csv").write(EVENTS)
    assert located(f"{remote}/events#1.csv").path == f"{remote.path}/events#1.csv"
    assert len(read_events(f"{remote}/events#1.csv")) == 2
    with pytest.raises(EddyError, match="holds credentials"):
        located("s3://bucket/log#1?access_key_secret=s3cr3t")


def test_where_pyarrow_reads_the_uri_a_hash_is_written_by_its_number() -> None:
    with pytest.raises(EddyError, match=r"gs://anonymous@bucket/log#1: cannot be used \(write %23 for #\)"):
        located("gs://anonymous@bucket/log#1")
    assert located("gs://anonymous@bucket/log%231").path == "bucket/log#1"


def test_a_file_uri_names_the_path_that_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "my events, 50%?#.csv"
    assert Path(located(path.as_uri())) == path
    assert Path(located(path.as_uri().replace("file://", "file://localhost"))) == path


@pytest.mark.parametrize("uri", ["file://", "file://events.csv", "file://other/events.csv", "file:///a?b"])
def test_a_file_uri_that_names_no_file_here_is_refused(uri: str) -> None:
    with pytest.raises(EddyError, match="names no file of this machine"):
        located(uri)


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "folder/day=1/part.csv"])
def test_events_and_items_are_read_from_object_storage(remote: Location, name: str) -> None:
    content = gzip.compress(EVENTS) if name.endswith(".gz") else EVENTS
    (remote / name).write(content)
    events = read_events(f"{remote}/{name.partition('/')[0]}")
    assert (events.users, events.items) == (["ada", "bob"], ["heat", "alien"])
    (remote / "items.csv").write(b"item_id,genres\nheat,drama\nalien,horror\n")
    assert len(read_features(str(remote / "items.csv"))) == 2


@pytest.mark.parametrize("path", ["missing", "missing/", "missing.parquet"])
def test_events_that_are_not_there_are_one_line(remote: Location, path: str) -> None:
    with pytest.raises(EddyError, match=r"s3://.*missing.*: no such file; check the path") as told:
        read_events(f"{remote}/{path}")
    assert "\n" not in str(told.value)


def test_a_missing_bucket_and_a_server_that_is_away_are_one_line(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EddyError, match="s3://no-such-bucket/log: no such file") as missing:
        read_events("s3://no-such-bucket/log")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(EddyError, match=r"cannot be listed.*check bucket, credentials") as away:
        read_events(f"s3://{BUCKET}/log")
    for told in (missing, away):
        assert "\n" not in str(told.value)
        assert "unguessable" not in str(told.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://somebody:s3cr3t@bucket/log",
        "s3://somebody@bucket/log",
        "s3://bucket/log?access_key_secret=s3cr3t",
        "abfs://container:s3cr3t@account.dfs.core.windows.net/log",
        "abfs://container@account.dfs.core.windows.net/log?client_secret=s3cr3t",
    ],
)
def test_a_uri_with_credentials_in_it_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(EddyError, match="holds credentials") as told:
        located(uri)
    assert "s3cr3t" not in str(told.value)
    assert "somebody" not in str(told.value)


@pytest.mark.parametrize("uri", ["ftp://host/log", "s3://", "s3://bucket/log?colour=blue", "hdfs://host/log"])
def test_a_uri_that_cannot_be_used_is_one_line(uri: str) -> None:
    with pytest.raises(EddyError, match=r"not a storage that can be used|cannot be used"):
        located(uri)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that says nothing of AWS; returns the path of the SDK's configuration file."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "aws-config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    return file


def test_a_bucket_of_which_nothing_says_where_it_is_is_refused_without_asking_the_network(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(side_effect=AssertionError("the network is asked"))
    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", asked)
    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", asked)
    with pytest.raises(EddyError, match=r"s3://bucket/log: nothing says in which region.*AWS_REGION"):
        located("s3://bucket/log")
    nowhere.write_text("no section")
    with pytest.raises(EddyError, match=r"s3://bucket/log: cannot be used .*aws-config"):
        located("s3://bucket/log")


@pytest.mark.parametrize(
    ("uri", "environment", "region"),
    [
        ("s3://bucket/log", {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "x"}, "eu-north-1"),
        ("s3://bucket/log", {"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
        ("s3://bucket/log?region=sa-east-1", {"AWS_REGION": "eu-north-1"}, "sa-east-1"),
        ("s3://bucket/log", {}, "eu-west-3"),
        ("s3://bucket/log", {"AWS_PROFILE": "other"}, "eu-west-1"),
        (
            "s3://bucket/log",
            {"AWS_PROFILE": "none", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "us-east-1",
        ),
    ],
)
def test_the_region_is_what_the_uri_the_environment_or_the_profile_names(
    uri: str, environment: dict[str, str], region: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere.write_text("[default]\nregion = eu-west-3\n[profile other]\nregion=eu-west-1\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert located(uri).filesystem.region == region


def test_settings_name_folders_of_this_machine_or_of_object_storage(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (str(load_settings().registry), str(load_settings().event_log)) == ("registry", "event-log")
    monkeypatch.setenv("EDDY_REGISTRY", f"{remote}/registry")
    settings = load_settings(event_log=f"{remote}/event-log").replace(partitions=2)
    assert settings.registry == remote / "registry"
    assert settings.event_log.is_remote
    with pytest.raises(EddyError, match=r"EDDY_REGISTRY: .*ftp://: not a storage"):
        load_settings(registry="ftp://host/registry")
