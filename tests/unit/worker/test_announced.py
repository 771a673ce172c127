"""The newest announced version is loaded as soon as it can be, and who waits for it is told why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from eddy.models.errors import EddyError
from eddy.models.storage import located
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from eddy.stream.worker.announced import AnnouncedVersion
from eddy.stream.worker.worker import Worker
from tests.support.engines import new_live_version, random_version
from tests.support.workers import StubConsumer, StubRestorer, at_once, new_worker


def announced(epoch: int) -> Announcement:
    return Announcement(epoch=epoch, version=f"v{epoch}", folder="elsewhere", announced_at=0)


class Files:
    """Version files that are readable or not."""

    def __init__(self, folder: Path) -> None:
        self._version = random_version(folder)
        self.missing: Callable[[], EddyError] | None = None
        self.attempts = 0

    async def load(self, announcement: Announcement) -> LiveShares:
        self.attempts += 1
        if self.missing is not None:
            raise self.missing()
        return LiveShares.whole(new_live_version(None, self._version, announcement.epoch))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def unreadable() -> EddyError:
    return EddyError("elsewhere/version.json: unreadable")


def test_a_version_that_comes_later_is_loaded_by_itself_and_its_absence_is_told_once(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> list[int]:
        version, loaded = AnnouncedVersion(files.load, retry_s=0), []

        async def on_loaded(live: LiveShares) -> None:
            loaded.append(live.epoch)

        version.on_loaded = on_loaded
        await version.take([announced(1)])
        files.missing = unreadable
        await version.take([announced(3), announced(2)])
        trying = asyncio.create_task(version.keep_trying())
        while files.attempts < 6:
            await asyncio.sleep(0)
        assert version.epoch == 1
        assert "epoch 3, version v3, cannot be loaded: elsewhere/version.json" in version.waiting_for(3, "r")
        files.missing = None
        await asyncio.wait_for(version.reached(3), 30)
        trying.cancel()
        return loaded

    caplog.set_level(logging.ERROR, "eddy.worker")
    assert asyncio.run(run()) == [1, 3]
    assert caplog.text.count("epoch 3, version v3, is not taken, the version before stays live") == 1


def test_without_any_version_to_go_on_with_the_reason_is_an_error(files: Files) -> None:
    files.missing = unreadable
    with pytest.raises(EddyError, match="unreadable"):
        asyncio.run(AnnouncedVersion(files.load).take([announced(1)]))


def test_rows_of_an_epoch_that_was_never_announced_name_what_to_do(files: Files) -> None:
    version = AnnouncedVersion(files.load)
    asyncio.run(version.take([announced(1)]))
    assert "eddy announce" in version.waiting_for(7, "r")


def worker_with_newer_rows(
    tmp_path: Path, files: Files, stall_s: float
) -> tuple[Worker, AnnouncedVersion, StubConsumer]:
    """A worker whose partition 0 holds rows of epoch 2, and the consumer that says what it reads."""
    settings = Settings(registry=located(tmp_path)).model_copy(update={"stall_s": stall_s})
    consumer = StubConsumer()
    worker = new_worker(settings, random_version(tmp_path), consumer)
    version = worker._followed.version = AnnouncedVersion(files.load, retry_s=0)
    worker._followed.caught_up = at_once  # type: ignore[method-assign]

    def read(number: int) -> NewerRows | None:
        return NewerRows(2, 1) if number == 0 and version.epoch != 2 else None

    worker.partitions._restorer = StubRestorer(worker, read)  # type: ignore[assignment]
    return worker, version, consumer


def test_a_partition_with_newer_rows_begins_once_their_version_is_loaded_and_holds_up_no_other(
    files: Files, tmp_path: Path
) -> None:
    async def run() -> None:
        worker, version, consumer = worker_with_newer_rows(tmp_path, files, stall_s=60)
        awaited = worker.partitions.metrics.awaited_epoch
        await version.take([announced(1)])
        files.missing = unreadable
        await version.take([announced(2)])
        await worker.assigned({0, 1}, 1)
        while not awaited._value.get():
            await asyncio.sleep(0)
        assert (awaited._value.get(), consumer.read, worker.partitions.settled) == (2, {1}, False)
        files.missing = None
        trying = asyncio.create_task(version.keep_trying())
        while not worker.partitions.settled:
            await asyncio.sleep(0)
        trying.cancel()
        assert (consumer.read, awaited._value.get()) == ({0, 1}, 0)
        await worker.stop()

    asyncio.run(run())


def test_a_worker_that_waits_for_a_version_too_long_ends_and_says_why(files: Files, tmp_path: Path) -> None:
    async def run() -> None:
        worker, version, _ = worker_with_newer_rows(tmp_path, files, stall_s=0.01)
        await version.take([announced(1)])
        files.missing = unreadable
        await version.take([announced(2)])
        try:
            await worker.assigned({0}, 1)
            await worker.background.failed
        finally:
            await worker.stop()

    with pytest.raises(EddyError, match=r"partition 0: .* epoch 2, version v2, .* EDDY_STALL_S") as ended:
        asyncio.run(run())
    assert "\n" not in str(ended.value)
