"""Restarts: a worker goes on exactly where the last one was, from a snapshot, from the changelog, or both."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eddy.models.registry import Version
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import RowFormatError
from eddy.stream.state.snapshots import BLOCK_ROWS, snapshot_path, write_snapshot
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import Restorer
from tests.bench.restore import HIDDEN, ITEMS, take_over, write
from tests.chaos.traffic import traffic
from tests.support.engines import TOPIC_ID, new_engine, random_version, stored_rows
from tests.support.kafka_clusters import MakeSettings
from tests.support.stage import Stage


def snapshots(stage: Stage, name: str) -> list[Path]:
    folder = stage.folder / f"cache-{name}"
    return [snapshot_path(folder, stage.settings.group, stage.topic_id, number) for number in range(2)]


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_restarted_worker_goes_on_exactly(stage: Stage, end: str) -> None:
    first = stage.fleet.start("one")
    stage.send(traffic(1_500, users=60, seed=1))
    stage.await_end()
    if end == "stopped":
        stage.fleet.remove(first)
        assert all(path.exists() for path in snapshots(stage, "one"))
    else:
        stage.fleet.kill(first)
    stage.send(traffic(1_500, users=60, seed=2))
    second = stage.fleet.start("one")
    stage.await_end()
    source = b"rows from a snapshot" if end == "stopped" else b"rows from the changelog in"
    lines = [line for line in second.log().splitlines() if b"rows from" in line]
    assert source in lines[-1]
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []


def test_a_torn_snapshot_is_discarded_and_an_old_one_is_completed_from_the_changelog(stage: Stage) -> None:
    first = stage.fleet.start("one")
    stage.send(traffic(800, users=40, seed=1))
    stage.await_end()
    stage.fleet.remove(first)
    torn, _ = snapshots(stage, "one")
    content = bytearray(torn.read_bytes())
    content[-100] ^= 0xFF
    torn.write_bytes(bytes(content))
    other = stage.fleet.start("two")  # the partitions go on elsewhere, and the snapshots grow old
    stage.send(traffic(800, users=40, seed=2))
    stage.await_end()
    stage.fleet.remove(other)
    again = stage.fleet.start("one")
    stage.send(traffic(800, users=40, seed=3))
    stage.await_end()
    assert b"is discarded (checksum" in again.log()
    assert b"rows from a snapshot" in again.log()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []


class Restoring:
    """One partition, brought into an engine's memory as a worker does it."""

    def __init__(self, settings: Settings, version: Version) -> None:
        self.engine, self.metrics = new_engine(version), WorkerMetrics()
        counts = StatisticsReader(self.engine.statistics, self.engine.names.catalogue)
        self._restorer = Restorer(settings, TOPIC_ID, self.engine, counts, self.metrics, at_once)

    def take_over(self) -> PartitionTask:
        async def run() -> PartitionTask:
            owned = await take_over(self._restorer)
            await owned.producer.stop()
            return owned

        return asyncio.run(run())

    def told(self) -> tuple[float | None, float | None]:
        """Rows restored and progress, from the metrics."""
        ask, where = self.metrics.registry.get_sample_value, {"partition": "0"}
        return ask("eddy_restored_rows", where), ask("eddy_restore_progress", where)


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


@pytest.fixture
def changelog(make_settings: MakeSettings, tmp_path: Path, version: Version) -> Settings:
    """Topics with rows of a few more users than a snapshot's block holds."""
    settings = make_settings(partitions=1, cache_dir=tmp_path)
    prepare_topics(settings)
    asyncio.run(write(settings, BLOCK_ROWS + 100, version))
    return settings


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return random_version(tmp_path / "registry", hidden=HIDDEN, items=ITEMS)


def test_damage_inside_a_snapshot_is_noticed_and_nothing_of_it_stays(
    changelog: Settings, version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "eddy.worker")
    first = Restoring(changelog, version)
    owned = first.take_over()
    assert first.told() == (BLOCK_ROWS + 100, 1)
    path = snapshot_path(changelog.cache_dir, changelog.group, TOPIC_ID, 0)
    write_snapshot(path, owned.snapshot(first.engine, TOPIC_ID))
    for damaged in (False, True):
        if damaged:  # the first block is good, and in memory when the second turns out not to be
            content = bytearray(path.read_bytes())
            content[-100_000] ^= 1
            path.write_bytes(content)
        again = Restoring(changelog, version)
        again.take_over()
        assert again.told() == (BLOCK_ROWS + 100, 1)
        said = "is discarded (checksum of block 1 is wrong)" if damaged else "rows from a snapshot"
        assert said in caplog.text
        assert path.exists() != damaged
        found, expected = stored_rows(again.engine), stored_rows(first.engine)
        for name, column in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)


def test_a_row_that_cannot_be_read_keeps_its_partition_from_beginning(
    changelog: Settings, version: Version
) -> None:
    asyncio.run(spoil(changelog, b"ada", b"{" * 100))
    restoring = Restoring(changelog, version)
    with pytest.raises(RowFormatError, match="row of user 'ada' has a format"):
        restoring.take_over()


async def spoil(settings: Settings, key: bytes, value: bytes | None) -> None:
    producer = new_producer(settings)
    await producer.start()
    await producer.send_and_wait(settings.topics.user_state, key=key, value=value)
    await producer.stop()


def test_what_is_no_row_ends_no_restore_once_a_tombstone_took_its_place_or_if_it_is_no_users(
    changelog: Settings, version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    for key, value in ((b"\xff", b"no row"), (b"\xfe", None), (b"ada", b"{" * 100), (b"ada", None)):
        asyncio.run(spoil(changelog, key, value))
    restoring = Restoring(changelog, version)
    restoring.take_over()
    assert len(restoring.engine.rows) == BLOCK_ROWS + 100
    assert caplog.text.count("is not UTF-8, so no user's; passed over") == 2


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[str], None]]:
    """A file system of 4 MiB at `folder`; gives what mounts it again with other options."""
    folder.mkdir()

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(folder)], check=True, capture_output=True)

    try:
        mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_without_room_or_right_to_write_snapshots_a_worker_says_so_and_nothing_is_lost(stage: Stage) -> None:
    cache = stage.folder / "cache-one"
    with small_disk(cache) as remount:
        said: list[str] = []
        for state in ("full", "mended", "read-only"):
            if state == "mended":
                (cache / "filler").unlink()
            elif state == "read-only":
                remount("ro")
            worker = stage.fleet.start("one")
            stage.send(traffic(500, users=40, seed=len(said)))
            stage.await_end()
            if state == "full":
                fill(cache / "filler")
            stage.fleet.remove(worker)
            said.append(worker.log().decode()[len("".join(said)) :])
        full, mended, read_only = said
        assert full.count("cannot be written ([Errno 28] No space left on device); check space") == 2
        assert "the next start reads the changelog instead" in full
        assert "rows from the changelog" in mended
        assert "cannot be written" not in mended
        assert "rows from a snapshot" in read_only
        assert read_only.count("Read-only file system") == 2
        assert "Traceback" not in "".join(said)
        assert all(path.exists() for path in snapshots(stage, "one"))
        assert list(cache.rglob("*.tmp")) == []
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []


def fill(file: Path) -> None:
    """Take all the room there is."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4_096))
