"""Workers on several machines, on one stream: one, two, four; one is restarted, one is lost with its disk and
replaced. In the end every user's row must be what one undisturbed worker makes of the same records.

    python -m tests.chaos.machines [--events 60000]

A machine is a process with a folder and an `EDDY_WORKER_ID` of its own; machines share Kafka and the registry
and nothing else. Prints what it does; writes tests/chaos/results/machines.json; exits with 1 if a promise was
broken, or a worker ended that nobody had ended.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.kafka.versions import announce
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import keyed
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.plan import SHORT
from tests.chaos.report import origin
from tests.chaos.run import HEAL_S, RESULTS, START_S, Chaos, chaos_settings
from tests.chaos.verify import Verdict, stored_rows, undisturbed, verify
from tests.support.ending import end_on_sigterm
from tests.support.engines import random_version

EVENTS, USERS, PARTITIONS = 60_000, 2_000, 8
ACTS = 6


@dataclass
class Step:
    """What was done, and how the group came out of it."""

    act: str
    seconds: float
    """from the act until every machine had partitions again, and what was sent meanwhile was committed"""
    partitions: dict[str, int]
    """how many each machine had then"""
    began_with: dict[str, list[str]]
    """where the rows came from with which machines began that came"""


@dataclass
class Story:
    """What happened in a run."""

    steps: list[Step] = field(default_factory=list)
    identical_rows: int = 0
    """rows whose bytes are those of one undisturbed worker; others differ in how sums were rounded"""
    unexpected_exits: list[str] = field(default_factory=list)


class Machines:
    """One run against a running broker."""

    def __init__(self, chaos: Chaos, folder: Path, events: int) -> None:
        self._chaos, self._fleet, self._folder = chaos, chaos.fleet, folder
        self._slice = events // (2 * ACTS)
        self.story = Story()

    def play(self) -> None:
        """One machine, two, four; one is restarted, and one is lost with its disk and replaced."""
        self._step("one machine", lambda: self._start("machine-1"), START_S)
        self._step("a second one", lambda: self._start("machine-2"))
        self._step("a third and a fourth one", lambda: (self._start("machine-3"), self._start("machine-4")))
        self._step("one is restarted", self._restart)
        self._step("one is lost with its disk", self._lose)
        self._step("another one in its place", lambda: self._start("machine-5"))

    def _start(self, name: str) -> Worker:
        return self._fleet.start(name)

    def _of(self, name: str) -> Worker:
        (worker,) = (worker for worker in self._fleet.workers if worker.name == name)
        return worker

    def _restart(self) -> None:
        self._fleet.remove(self._of("machine-2"))
        self._chaos.feeder.send(self._slice // 2)
        self._start("machine-2")

    def _lose(self) -> None:
        self._fleet.kill(self._of("machine-3"))
        shutil.rmtree(self._folder / "cache-machine-3")

    def _step(self, act: str, do: Callable[[], object], within_s: float = HEAL_S) -> None:
        """Do something while records come in, and wait until the group is through with it."""
        chaos, began = self._chaos, time.monotonic()
        before = list(self._fleet.workers)
        chaos.feeder.send(self._slice)
        do()
        chaos._eventually(self._all_have_partitions, "partitions on every machine", within_s)
        chaos.feeder.send(self._slice)
        chaos._moved(chaos.feeder.sent)
        came = [worker for worker in self._fleet.workers if worker not in before]
        step = Step(
            act, round(time.monotonic() - began, 1), dict(self._dealt() or {}),
            {worker.name: sorted({*chain(*worker.sources().values())}) for worker in came},
        )  # fmt: skip
        self.story.steps.append(step)
        print(f"  {step.act}: {step.seconds:.0f} s, {step.partitions}, {step.began_with}", flush=True)

    def _dealt(self) -> Counter[str] | None:
        """How many partitions each machine has; None while the group is rebalancing. The id of a static
        member is its name and a UUID.
        """
        owners = self._chaos.cluster.owners()
        return None if owners is None else Counter(owner.rsplit("-", 5)[0] for owner in owners.values())

    def _all_have_partitions(self) -> bool:
        dealt = self._dealt()
        running = {worker.name for worker in self._fleet.workers}
        begun = all(worker.sources() for worker in self._fleet.workers)
        return begun and dealt is not None and dealt.keys() == running and dealt.total() == PARTITIONS


def identical_rows(cluster: Cluster, version: Version, topic_id: bytes) -> int:
    """How many rows on Kafka have the bytes that one worker writes which reads the log once."""
    engine = undisturbed(cluster, version, 1, Verdict()).engine
    slab = engine.newest.slab
    slots = np.flatnonzero(slab.partition[: len(slab.user_of)] >= 0)
    expected = keyed(engine.newest.export(slots, engine.names.catalogue, topic_id))
    stored = stored_rows(cluster)
    return sum(user in stored and stored[user][1] == row for user, row in expected)


def run(settings: Settings, folder: Path, events: int, users: int) -> tuple[Story, Verdict]:
    """Set the scene, play, and verify."""
    with admin_client(settings) as admin:
        ensure_topics(admin, settings)
        topic_id = topic_ids(admin, [settings.topics.events])[settings.topics.events].bytes
    version = random_version(settings.registry)
    announce(settings, version)
    with Fleet(settings, folder) as fleet:
        chaos = Chaos(
            replace(SHORT, events=events, users=users, partitions=PARTITIONS), settings, fleet, None
        )
        try:
            machines = Machines(chaos, folder, events)
            machines.play()
            chaos.end()
            story, verdict = machines.story, verify(chaos.cluster, version, topic_id)
            story.identical_rows = identical_rows(chaos.cluster, version, topic_id)
            story.unexpected_exits = fleet.unexpected
            return story, verdict
        except BaseException:
            fleet.interrogate()
            raise
        finally:
            chaos.close()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=EVENTS)
    options = arguments.parse_args()
    end_on_sigterm()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, LocalBroker(Path(name) / "broker", progress=print) as broker:
        folder = Path(name)
        plan = replace(SHORT, partitions=PARTITIONS)
        settings = chaos_settings(broker.bootstrap_servers, folder, plan)
        story, verdict = run(settings, folder, options.events, USERS)
    outcome = {"story": asdict(story), "verdict": asdict(verdict)}
    print(json.dumps(outcome, indent=1))
    print(f"missing {verdict.missing} doubled {verdict.doubled} unexpected {len(story.unexpected_exits)}")
    RESULTS.mkdir(exist_ok=True)
    report = {**origin(), "seconds": round(time.monotonic() - started), "events": options.events, **outcome}
    (RESULTS / "machines.json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if verdict.missing or verdict.doubled or verdict.problems or story.unexpected_exits else 0


if __name__ == "__main__":
    sys.exit(main())
