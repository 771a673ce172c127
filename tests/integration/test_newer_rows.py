"""Rows of a newer epoch than a worker can load: they wait for their version, and are never encoded back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import numpy as np

from eddy.stream.kafka.versions import announce
from eddy.stream.state.rows import NO_TIME, Rows, decode_rows
from tests.chaos.traffic import START_MS
from tests.chaos.verify import invariant_difference, stored_rows
from tests.support.engines import TOLERANCE, item_id, new_engine, random_version
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually

USERS = 6
EVENTS_A_ROUND = 60
"""More than a window, so that rows have an anchor that another encoding would lose."""


def rounds(number: int) -> Iterator[tuple[bytes, bytes]]:
    for i in range(EVENTS_A_ROUND):
        for user in range(USERS):
            time = START_MS + (number * EVENTS_A_ROUND + i) * 1000
            event = {"user_id": f"user-{user}", "item_id": item_id(i * 7 % 200), "timestamp": time}
            yield f"user-{user}".encode(), json.dumps(event).encode()


def rows_now(stage: Stage) -> Rows:
    newest = sorted(stored_rows(stage.cluster).items())
    (rows,) = decode_rows([user for user, _ in newest], [value for _, (_, value) in newest])
    return rows


def test_a_worker_without_the_newest_version_leaves_its_rows_alone_until_it_has_it(stage: Stage) -> None:
    synced, announced_at = stage.folder / "synced", stage.folder / "announced"
    newer = random_version(announced_at, "lstm", hidden=8, seed=1)
    ahead, behind = stage.fleet.start(registry=synced), stage.fleet.start()
    eventually(
        lambda: all(b"rows from the changelog" in worker.log() for worker in (ahead, behind)),
        PATIENCE_S,
        "both own a partition",
    )
    stage.send(rounds(0))
    stage.await_end()
    shutil.move(announced_at, synced)
    announce(stage.settings, newer)
    eventually(lambda: ahead.metrics()["eddy_epoch"] == 2, PATIENCE_S, "the newer version is live")
    eventually(lambda: b"is not taken, the version before stays" in behind.log(), PATIENCE_S, "it is missed")
    stage.send(rounds(1))
    stage.await_end()
    before = rows_now(stage)
    assert set(before.epoch.tolist()) == {1, 2}

    stage.fleet.remove(ahead)
    eventually(lambda: b"its events are held back" in behind.log(), PATIENCE_S, "newer rows wait")
    told = behind.metrics()
    assert (told["eddy_ready"], told["eddy_epoch_awaited"]) == (0, 2)
    assert f"epoch 2, version {newer.id}, cannot be loaded" in behind.log().decode()
    stage.send(rounds(2))
    shutil.move(synced / newer.id, stage.settings.registry / newer.id)
    stage.await_end()
    eventually(lambda: behind.metrics()["eddy_rows_of_older_epochs"] == 0, PATIENCE_S, "all rows are newer")
    stage.fleet.stop()
    assert stage.fleet.unexpected == []

    after = rows_now(stage)
    assert set(after.epoch.tolist()) == {2}
    assert after.applied.tolist() == [3 * EVENTS_A_ROUND] * USERS
    assert invariant_difference(new_engine(newer, epoch=2), after) < TOLERANCE
    ours = before.epoch == 2
    epochs: dict[bytes, int] = {}
    for record in stage.cluster.read(stage.settings.topics.user_state, 2):
        (row,) = decode_rows([record.key], [record.value])
        assert row.epoch[0] >= epochs.get(record.key, 0), "epochs of a user never go back"
        epochs[record.key] = int(row.epoch[0])
        if record.key in np.array(before.user)[ours] and row.offset[0] >= before.offset[ours].min():
            assert row.anchor_time[0] != NO_TIME, "what is before the window is kept"
