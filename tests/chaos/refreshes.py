"""Refresh cycles under kills: exporter, trainer and worker die at random points, and each cycle still ends.

    python -m tests.chaos.refreshes [--cycles 20] [--seed 1]

Each cycle brings new events and runs `eddy refresh`, which is killed a few times at random moments before it
may end; a worker is killed and replaced meanwhile. In the end the event log must hold each event once, the
registry no half of a version, every cycle one decision, and the live version must be the one that the last of
them made live. Prints what it does; writes tests/chaos/results/refreshes.json; exits with 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eddy.models.config import configs
from eddy.models.decisions import read_decisions
from eddy.models.errors import EddyError
from eddy.models.registry import load, publish, versions
from eddy.models.training.train import train
from eddy.refresh.endings import NOT_LIVE
from eddy.refresh.job import FOLDER
from eddy.stream.feed import feed
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce, live_announcement
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.settings import Settings, load_settings
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.report import origin
from tests.chaos.run import RESULTS
from tests.support.ending import end_on_sigterm
from tests.support.event_logs import places
from tests.support.waiting import eventually
from tests.support.walks import TRAINING, walks

USERS, FIRST_ROUNDS, ROUNDS = 60, 30, 15
KILLS = 3
"""A cycle's refresh is killed at most so often."""

LONGEST_S = 15.0
"""A kill comes within so many seconds of the start."""

PATIENCE_S = 300.0


@dataclass
class Story:
    """What happened."""

    cycles: int = 0
    went_live: int = 0
    refused: int = 0
    refresh_kills: int = 0
    worker_kills: int = 0
    problems: list[str] = field(default_factory=list)


class Cycles:
    """One run against a running broker."""

    def __init__(self, settings: Settings, fleet: Fleet, seed: int) -> None:
        self.settings, self.fleet = settings, fleet
        self.story = Story()
        self._random = random.Random(seed)
        self._rounds = 0
        self._sent = 0

    def begin(self) -> None:
        """The first events and a first version, which goes live."""
        first = walks(USERS, FIRST_ROUNDS)
        self._send(FIRST_ROUNDS)
        config, training = configs("gru", TRAINING)
        trained = train(first, config, training, self.settings.rules)
        announce(self.settings, publish(self.settings.registry, trained, {"training": training.to_dict()}))

    def cycle(self, worker: Worker) -> Worker:
        """New events, a refresh that is killed a few times, and now and then another worker; returns the
        worker that is running then.
        """
        self._send(ROUNDS)
        for _ in range(self._random.randint(0, KILLS)):
            if self._refresh(kill_after_s=self._random.uniform(0, LONGEST_S)) is not None:
                break
        else:
            self._refresh(None)
        if self._random.random() < 0.5:
            self.fleet.kill(worker)
            self.story.worker_kills += 1
            worker = self.fleet.start()
        self.story.cycles += 1
        return worker

    def _send(self, rounds: int) -> None:
        # The users change their steps from time to time, so that there is something to learn.
        steps = ((1, 5, 7), (2, 3, 11))[self.story.cycles % 2]
        events = walks(USERS, rounds, steps, first_round=self._rounds)
        asyncio.run(feed(self.settings, events))
        self._rounds += rounds
        self._sent += len(events)

    def _refresh(self, kill_after_s: float | None) -> int | None:
        """Run the command; its exit code, None when it was killed."""
        command = [sys.executable, "-m", "eddy", "refresh", "--least-events", "100"]
        command += [part for setting in TRAINING for part in ("--set", setting)]
        process = subprocess.Popen(command, env=environment(self.settings), stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=kill_after_s or PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            if kill_after_s is None:
                raise EddyError(f"a refresh took longer than {PATIENCE_S:.0f} s") from None
            self.story.refresh_kills += 1
            return None
        if process.returncode not in (0, NOT_LIVE):
            self.story.problems.append(f"cycle {self.story.cycles}: exit code {process.returncode}: {said}")
        self.story.went_live += process.returncode == 0
        self.story.refused += process.returncode == NOT_LIVE
        return process.returncode

    def judge(self) -> None:
        """Look for broken promises."""
        settings, problems = self.settings, self.story.problems
        # 1. The event log holds each event once; its last cycle exported all of them.
        in_log = places(settings.event_log)
        if not len(set(in_log)) == len(in_log) == self._sent:
            problems.append(
                f"{self._sent} events were sent, the log has {len(in_log)}, {len(set(in_log))} of them "
                "distinct"
            )
        # 2. The registry holds whole versions and nothing of an unfinished refresh.
        for name in versions(settings.registry):
            load(settings.registry / name)
        leftovers = [name for name in (settings.registry / FOLDER).children() if name != "lock"]
        if leftovers:
            problems.append(f"left of a refresh: {', '.join(leftovers)}")
        # 3. Every cycle came to one decision, and the live version is the last that one made live.
        decisions = read_decisions(settings.registry)
        if len(decisions) != self.story.cycles:
            problems.append(f"{self.story.cycles} cycles, {len(decisions)} decisions")
        live = live_announcement(settings)
        made_live = [decision for decision in decisions if decision.kind == "went live"]
        first = (1, versions(settings.registry)[0])
        last = (made_live[-1].epoch, made_live[-1].version) if made_live else first
        if live is None or (live.epoch, live.version) != last:
            problems.append(f"live is {live}, the last that one made live is {last}")
        if len(versions(settings.registry)) != 1 + len(made_live):
            problems.append(
                f"{len(versions(settings.registry))} versions for {len(made_live)} that went live"
            )


def environment(settings: Settings) -> dict[str, str]:
    """What the command line reads these settings from."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDDY_")}
    return inherited | {
        "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
        "EDDY_PARTITIONS": str(settings.partitions),
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_EVENT_LOG": str(settings.event_log),
    }


def run(cycles: int, seed: int, folder: Path) -> Story:
    """Run the cycles and judge them."""
    with LocalBroker(folder / "broker", progress=print) as broker:
        settings = load_settings(
            bootstrap_servers=broker.bootstrap_servers, partitions=2, session_timeout_s=6, metrics_port=0,
            registry=folder / "registry", event_log=folder / "event-log",
        )  # fmt: skip
        prepare_topics(settings)
        with Fleet(settings, folder) as fleet:
            refreshes = Cycles(settings, fleet, seed)
            refreshes.begin()
            worker = fleet.start()
            for number in range(1, cycles + 1):
                began = time.monotonic()
                worker = refreshes.cycle(worker)
                story = refreshes.story
                print(
                    f"cycle {number} of {cycles}: {time.monotonic() - began:.0f} s; {story.went_live} live, "
                    f"{story.refused} refused, {story.refresh_kills} kills of refreshes, "
                    f"{story.worker_kills} of workers",
                    flush=True,
                )
            # The worker that is left has read everything before it is judged.
            cluster = Cluster(settings)
            ends = cluster.ends(settings.topics.events, settings.partitions)
            eventually(lambda: cluster.committed() == ends, within_s=PATIENCE_S)
            cluster.close()
            refreshes.judge()
    return refreshes.story


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        story = run(chosen.cycles, chosen.seed, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "refreshes.json").write_text(
        json.dumps({**origin(), "seed": chosen.seed, **asdict(story)}, indent=1) + "\n"
    )
    for problem in story.problems:
        print(f"broken: {problem}", file=sys.stderr)
    print(f"{story.cycles} cycles, {len(story.problems)} broken promises")
    sys.exit(1 if story.problems else 0)


if __name__ == "__main__":
    main()
