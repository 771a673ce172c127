"""Restarts: a worker goes on exactly where the last one was, from a snapshot, from the changelog, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.snapshots import snapshot_path
from tests.chaos.traffic import traffic
from tests.stage import Stage


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
