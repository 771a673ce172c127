"""`make soak`: half an hour of steady load with kills, version changes, refreshes and erasures, and lists
over HTTP all the while; then every row is held against an undisturbed run, and memory, files and threads of
workers, server and broker, and the disk, against what they were.

    python -m tests.chaos.soak [--minutes 30] [--rate EVENTS_PER_SECOND] [--refresh-every SECONDS]

Without a rate, 60 % of what the workers apply at the start is sent, or less, so that all events together are
no more than the judge can read again in memory. Prints a table; writes tests/chaos/results/soak.json and
soak.svg; exits with 1 if a promise was broken or something grew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eddy.models.descriptions import UNTIL
from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.kafka.versions import announce, live_announcement, open_version
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.settings import Settings
from tests.chaos.fleet import Fleet
from tests.chaos.plan import FULL
from tests.chaos.report import origin
from tests.chaos.run import START_S, Chaos, chaos_settings
from tests.chaos.soak_disk import Disk
from tests.chaos.soak_http import Asker, new_server
from tests.chaos.soak_refreshes import Refresher
from tests.chaos.soak_resources import Sampler, draw
from tests.chaos.traffic import START_MS, endless
from tests.chaos.verify import Verdict, verify
from tests.support.ending import end_on_sigterm
from tests.support.engines import random_version

RESULTS = Path(__file__).parent / "results"
USERS = 4_000
WARM_UP = 20_000
"""Events that are sent at once, to see how many are applied in a second."""
LOAD = 0.6
HABIT = 0.6
"""So much of the traffic can be learnt: a refresh makes a better version than one with random weights."""
ACT_EVERY_S = 20.0
REFRESH_EVERY_S = 180.0
SLICE_S = 0.5
KEPT = 15
"""Of so many samples one is kept in the JSON: one every half minute."""
MOST_EVENTS = 1_000_000
"""That are sent without a rate, and are judged in the end, all of them in memory."""


@dataclass
class Soak:
    """What a run saw."""

    minutes: float
    rate: float = 0.0
    events: int = 0
    kills: int = 0
    swaps: int = 0
    erasures: int = 0
    refreshes: dict[str, int] = field(default_factory=dict)
    """by how they ended"""
    refresh_seconds: list[float] = field(default_factory=list)


class Play:
    """Steady load, and an act every so often."""

    def __init__(
        self, chaos: Chaos, versions: list[Version], asker: Asker, refresher: Refresher, soak: Soak
    ) -> None:
        self.chaos, self.versions, self.asker, self.soak = chaos, versions, asker, soak
        self.refresher = refresher

    def measured_rate(self) -> float:
        """Events that the workers apply in a second, of a backlog."""
        self.chaos.feeder.send(WARM_UP)
        before, started = self._committed(), time.monotonic()
        self.chaos._moved(self.chaos.feeder.sent)
        return (self._committed() - before) / (time.monotonic() - started)

    def _committed(self) -> int:
        return sum(self.chaos.cluster.committed().values())

    def run(self) -> tuple[Version, int]:
        """Send events at the rate until the time is over; kill, change the version and erase in turns.
        Returns the live version at the end and its epoch, of which every row is then.
        """
        acts = [self._kill, self._erase, self._swap, self._erase]
        started = time.monotonic()
        end, next_act, act = started + 60 * self.soak.minutes, started + ACT_EVERY_S, 0
        sent = 0
        while (now := time.monotonic()) < end:
            due = int((now - started) * self.soak.rate) - sent
            if due > 0:
                self.chaos.feeder.send(due)
                sent += due
            if now >= next_act:
                acts[act % len(acts)]()
                act, next_act = act + 1, now + ACT_EVERY_S
            self.chaos.fleet.mend()
            time.sleep(SLICE_S)
        self.refresher.finish()
        self.soak.events = self.chaos.feeder.sent
        self.soak.refreshes = dict(self.refresher.endings)
        self.soak.refresh_seconds = self.refresher.seconds
        settings = self.chaos.cluster.settings
        live = live_announcement(settings)
        assert live is not None
        self.chaos._moved(self.chaos.feeder.sent)
        self.chaos._settled()
        self.chaos._eventually(lambda: self.chaos._epochs() == {live.epoch}, "every row of the last epoch")
        return open_version(live, settings.registry), live.epoch

    def _kill(self) -> None:
        self.chaos._kill_any()
        self.soak.kills += 1

    def _erase(self) -> None:
        self.chaos._erase()
        self.asker.forget(self.chaos.feeder.gone)
        self.soak.erasures += 3

    def _swap(self) -> None:
        if self.refresher.under_way:
            return  # it would find that the version it was compared with is live no longer
        self.soak.swaps += 1
        announce(self.chaos.cluster.settings, self.versions[self.soak.swaps % len(self.versions)])


@contextmanager
def failing_threads() -> Iterator[list[str]]:
    """Gives a list, to which each thread is added that an exception ends meanwhile: what watches, asks or
    refreshes no more must not pass for something that found nothing.
    """
    failures: list[str] = []
    shown = threading.excepthook

    def note(failed: threading.ExceptHookArgs) -> None:
        shown(failed)
        name = failed.thread.name if failed.thread is not None else "a thread"
        failures.append(f"{name} ended with {failed.exc_value!r}")

    threading.excepthook = note
    try:
        yield failures
    finally:
        threading.excepthook = shown


def run(
    soak: Soak, settings: Settings, folder: Path, broker: LocalBroker, refresh_every_s: float
) -> tuple[Verdict, Asker, Sampler, list[str]]:
    """Set the scene, play, and verify."""
    with admin_client(settings) as admin:
        ensure_topics(admin, settings)
        topic_id = topic_ids(admin, [settings.topics.events])[settings.topics.events].bytes
    untrained = {UNTIL: START_MS}  # of no event, so that a refresh may judge on any
    versions = [random_version(settings.registry, seed=seed, metrics=untrained) for seed in (1, 2)]
    announce(settings, versions[0])
    plan = replace(FULL, events=WARM_UP, users=USERS)
    stop = threading.Event()
    with (
        failing_threads() as failures,
        Fleet(settings, folder) as fleet,
        new_server(settings, folder) as server,
    ):
        chaos = Chaos(plan, settings, fleet, None)
        # Where a late event belongs would depend on the anchors that the versions before left.
        chaos.feeder.go_on(endless(MOST_EVENTS, USERS, 1, late_share=0.0, habit=HABIT))
        asker = Asker(server.url, USERS, stop)
        refresher = Refresher(settings, refresh_every_s, folder / "cache-refresh")
        others = [folder / "cache-server", folder / "cache-refresh"]
        disk = Disk(
            lambda: [*others, *(folder / f"cache-{worker.name}" for worker in list(fleet.workers))],
            folder / "registry", folder / "event-log", folder / "broker", lambda: chaos.feeder.sent,
        )  # fmt: skip
        sampler = Sampler(fleet, server.process.pid, broker, disk, stop)
        try:
            chaos._start()
            chaos._start()
            chaos._settled(START_S)
            server.await_ready(START_S)
            play = Play(chaos, versions, asker, refresher, soak)
            most = MOST_EVENTS / (60 * soak.minutes)
            soak.rate = soak.rate or min(LOAD * play.measured_rate(), most)
            print(f"  {soak.rate:,.0f} events/s for {soak.minutes} minutes", flush=True)
            for thread in (asker, sampler, refresher):
                thread.start()
            live, epoch = play.run()
            stop.set()
            for thread in (asker, sampler):
                thread.join()
            chaos.end()
            verdict = verify(chaos.cluster, live, topic_id, epoch, swapped=True)
            verdict.problems += [*refresher.problems, *failures]
            return verdict, asker, sampler, fleet.unexpected
        finally:
            stop.set()
            chaos.close()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument(
        "--rate",
        type=float,
        default=0,
        help="events per second [default: 60 % of the first, a million in all at most]",
    )
    arguments.add_argument(
        "--refresh-every", type=float, default=REFRESH_EVERY_S, help="seconds between two refreshes"
    )
    options = arguments.parse_args()
    end_on_sigterm()
    soak = Soak(options.minutes, options.rate)
    with (
        tempfile.TemporaryDirectory() as name,
        LocalBroker(Path(name) / "broker", whole_heap=True, progress=print) as broker,
    ):
        folder = Path(name)
        settings = chaos_settings(broker.bootstrap_servers, folder, FULL, event_log=folder / "event-log")
        verdict, asker, sampler, unexpected = run(soak, settings, folder, broker, options.refresh_every)
    growth = sampler.growth()
    report: dict[str, Any] = {
        **origin(), "soak": asdict(soak), "verdict": asdict(verdict), "http": asker.summary(),
        "growth": growth, "unexpected_exits": unexpected,
        "samples": sampler.samples[::KEPT],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(sampler, RESULTS / "soak.svg")
    print(sampler.table())
    print(json.dumps({"soak": asdict(soak), "http": asker.summary(), "problems": verdict.problems}, indent=1))
    print(f"grown: {', '.join(sampler.grown()) or 'nothing'}")
    print(f"missing {verdict.missing} doubled {verdict.doubled} wrong answers {asker.wrong_count}")
    broken = verdict.missing or verdict.doubled or verdict.problems or asker.wrong or unexpected
    return 1 if broken or sampler.grown() else 0


if __name__ == "__main__":
    sys.exit(main())
