"""The tools of chaos runs and measurements: one that fails must not pass for one that found nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from eddy.stream.records.settings import load_settings
from tests.bench.background import meanwhile
from tests.chaos.fleet import Fleet
from tests.chaos.soak import failing_threads
from tests.chaos.soak_disk import size_of
from tests.chaos.traffic import endless
from tests.support.waiting import eventually

CHURN_S = 1.0


def test_the_traffic_of_a_soak_goes_on_in_order_behind_the_part_that_was_drawn_first() -> None:
    records = [json.loads(value) for _, value in islice(endless(100, 20, 1, late_share=0.0, habit=0.6), 350)]
    assert len(records) == 350
    events = {each["event_id"]: each for each in records if each.get("event_id")}
    times = [each["timestamp"] for each in events.values()]
    assert len(times) > 100
    assert times == sorted(times)


def test_what_goes_while_a_folder_is_measured_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "stays").write_bytes(bytes(1 << 20))
    ended = time.monotonic() + CHURN_S

    def come_and_go() -> None:
        number = 0
        while time.monotonic() < ended:
            deep = tmp_path / f"part-{number % 50}" / "deep"
            deep.mkdir(parents=True, exist_ok=True)
            (deep / "file").write_text("x")
            shutil.rmtree(tmp_path / f"part-{(number + 25) % 50}", ignore_errors=True)
            number += 1

    changing = threading.Thread(target=come_and_go)
    changing.start()
    while changing.is_alive():
        assert size_of(tmp_path) >= 1 << 20
    changing.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_beside_a_soak_is_a_failure_of_it() -> None:
    def fail() -> None:
        raise ZeroDivisionError("a disk that is gone")

    with failing_threads() as failures:
        watching = threading.Thread(target=fail, name="sampler")
        watching.start()
        watching.join()
    assert failures == ["sampler ended with ZeroDivisionError('a disk that is gone')"]


def test_a_load_that_stops_ends_the_measurement_beside_it() -> None:
    def stop(ended: threading.Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), meanwhile(stop):
        pass

    def until_told(ended: threading.Event) -> None:
        assert ended.wait(10)

    with meanwhile(until_told):
        pass


def test_a_worker_that_ended_by_itself_before_it_was_killed_is_told_with_its_reason(tmp_path: Path) -> None:
    settings = load_settings(registry=tmp_path / "registry").replace(bootstrap_servers=None)
    with Fleet(settings, tmp_path) as fleet:
        worker = fleet.start()
        eventually(lambda: not worker.alive, 120, "the end of a worker that knows no cluster")
        fleet.kill(worker)
    assert fleet.workers == []
    (told,) = fleet.unexpected
    assert "ended with 1:" in told
    assert "EddyError" in told
