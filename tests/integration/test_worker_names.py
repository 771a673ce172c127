"""One name, one worker: of several that go by one EDDY_WORKER_ID, the last that joined goes on."""

from __future__ import annotations

from tests.chaos.fleet import Worker
from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually


def test_workers_of_one_name_leave_the_partitions_to_the_last_of_them_and_say_why(stage: Stage) -> None:
    def start() -> Worker:
        return stage.fleet.start(worker_id="same")

    def left(workers: list[Worker]) -> list[Worker]:
        return [worker for worker in workers if worker.alive]

    first = start()
    stage.send(traffic(300, users=20, seed=1))
    stage.await_end()
    workers = [first, start()]
    eventually(lambda: len(left(workers)) == 1, PATIENCE_S, "one of two goes on")
    assert not first.alive
    workers += [start(), start()]  # at the same moment
    eventually(lambda: len(left(workers)) == 1, PATIENCE_S, "one of all goes on")
    stage.send(traffic(300, users=20, seed=2))
    stage.await_end()
    (last,) = left(workers)
    for worker in workers:
        if worker is not last:
            assert worker.ended() == 1
            assert worker.log().count(b"EDDY_WORKER_ID=same is also the name of") == 1
            stage.fleet.workers.remove(worker)
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
