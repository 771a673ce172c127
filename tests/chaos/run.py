"""`make chaos`: kill, pause and move workers and the broker under load, erase users and change the live
version meanwhile, then hold every row against an undisturbed run.

Prints what it does and `missing N doubled N`; writes tests/chaos/results/chaos.json; exits with 1 if a
promise was broken, or a worker ended that nobody had ended.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.kafka.versions import announce, announce_shares
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.state.rows import decode_rows
from eddy.stream.worker.checkpoint import STEPS
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Die
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.plan import FULL, SHORT, Plan, announcements
from tests.chaos.report import origin
from tests.chaos.traffic import MAX_GAP_MS, START_MS, Feeder, traffic
from tests.chaos.verify import Verdict, check_shares, stored_rows, verify
from tests.support.ending import end_on_sigterm
from tests.support.engines import random_version
from tests.support.waiting import eventually

RESULTS = Path(__file__).parent / "results"
HEAL_S = 120.0
"""The longest that a group may stand still after anything that is done to it."""
START_S = 360.0
"""The longest that the first workers may take: on a busy machine that has compiled nothing yet."""


@dataclass
class Story:
    """What happened in a run."""

    kills: int = 0
    stalls: int = 0
    joins: int = 0
    leaves: int = 0
    erasures: int = 0
    """tombstones sent, three at a time (see `Feeder.erase`)"""
    swaps: int = 0
    broker_restarts: int = 0
    survived_broker_restarts: int = 0
    unexpected_exits: list[str] = field(default_factory=list)
    slowest_heal_s: float = 0.0


class Chaos:
    """One run against a running broker."""

    def __init__(self, plan: Plan, settings: Settings, fleet: Fleet, broker: LocalBroker | None) -> None:
        self.plan, self.fleet, self.broker = plan, fleet, broker
        self.cluster = Cluster(settings)
        self.feeder = Feeder(settings, plan.events, plan.users, plan.seed)
        self.story = Story()
        self._random = random.Random(plan.seed)
        self._started = 0

    def acts(self) -> list[tuple[str, str]]:
        """The acts of the run, in an order that only the seed decides: (act, detail)."""
        plan = self.plan
        acts = [("kill", "")] * plan.random_kills + [("stall", "")] * plan.stalls
        acts += [("step", step) for step in STEPS] * plan.step_kills
        acts += [("restart broker", "")] * plan.broker_restarts
        acts += [("join", ""), ("leave", "")] * plan.moves
        acts += [("erase", "")] * plan.erasures
        self._random.shuffle(acts)
        return acts

    def _eventually(self, condition: Callable[[], object], what: str, within_s: float = HEAL_S) -> None:
        """Wait for the condition. Workers that end by themselves are replaced meanwhile, as by a
        supervisor.
        """

        def mended() -> object:
            self.fleet.mend()
            return condition()

        eventually(mended, within_s, what)

    def _moved(self, records: int) -> None:
        """Wait until the group has committed so many more records."""
        started = time.monotonic()
        before = sum(self.cluster.committed().values())
        goal = min(before + records, self.feeder.sent)

        self._eventually(
            lambda: sum(self.cluster.committed().values()) >= goal,
            f"{goal} records committed ({before} were)",
        )
        self.story.slowest_heal_s = max(self.story.slowest_heal_s, time.monotonic() - started)

    def play(self) -> None:
        """Play all acts, each while records are coming in, then wait until the log's end is committed."""
        self._start(static_name="static-a")
        self._start()
        self._settled(START_S)
        acts = self.acts()
        share = self.plan.events // (len(acts) + 1)
        for number, (act, detail) in enumerate(acts):
            print(f"  {number + 1}/{len(acts)} {act} {detail}", flush=True)
            self.feeder.send(share)
            self._moved(self._random.randrange(1, share))
            self._act(act, detail)
        self.feeder.send(max(self.plan.events - self.feeder.sent, 1))
        self._moved(self.feeder.sent)
        self._settled()

    def swap(self, epoch: int, versions: Sequence[tuple[Version, int]]) -> Verdict:
        """Announce versions with their shares of the users, while records and tombstones come in, a worker is
        killed, and something else happens to the group; returns what is to be said of the rows when the log's
        end is committed and every row is of this epoch.

        No event is late any more: where it belongs would depend on the anchors that the versions before left.
        """
        disturbances = self._disturbances()
        disturb = disturbances[(epoch - 2) % len(disturbances)]
        print(f"  swap to epoch {epoch}, {len(versions)} versions, {disturb.__name__.strip('_')}", flush=True)
        self._settled()
        share = self.plan.swap_events // self.plan.swaps
        start = START_MS + (10 * self.plan.events + epoch * share) * MAX_GAP_MS  # after all that was sent
        seed = 1_000_000 * epoch + self.plan.seed
        self.feeder.go_on(traffic(share, self.plan.users, seed, start, late_share=0.0))
        self.feeder.send(share // 4)
        self._erase()
        announce_shares(self.cluster.settings, versions)
        for disturbance in (self._kill_any, disturb):
            self._erase()
            self.feeder.send(share // 4)
            disturbance()
        self._erase()
        self.feeder.send(share)
        self._moved(self.feeder.sent)
        self._settled()
        self._eventually(lambda: self._epochs() == {epoch}, f"every row of epoch {epoch}")
        self.story.swaps += 1
        verdict = Verdict()
        check_shares(self.cluster, versions, epoch, verdict)
        return verdict

    def _disturbances(self) -> list[Callable[[], object]]:
        """What happens during one swap and the next."""
        if not self.plan.stalls:
            return [self._kill_any]
        return [self._join_and_leave, self._stall, self._restart_broker]

    def _kill_any(self) -> None:
        self._kill(self._random.choice(self.fleet.workers))

    def _join_and_leave(self) -> None:
        self._start()
        self.story.joins += 1
        self._settled()
        self._leave()

    def _epochs(self) -> set[int]:
        rows = stored_rows(self.cluster)
        groups = decode_rows(list(rows), [value for _, value in rows.values()])
        return {epoch for group in groups for epoch in group.epoch.tolist()}

    def end(self) -> None:
        """Stop all workers."""
        self.fleet.stop()
        self.story.unexpected_exits = self.fleet.unexpected

    def close(self) -> None:
        """Leave the cluster."""
        self.feeder.close()
        self.cluster.close()

    def _settled(self, within_s: float = HEAL_S) -> None:
        """Wait until every worker is a member of a stable group."""
        self._eventually(
            lambda: self.cluster.members() == len(self.fleet.workers),
            "every worker in a stable group",
            within_s,
        )

    def _act(self, act: str, detail: str) -> None:
        fleet, story = self.fleet, self.story
        if act != "kill":  # a kill may come at any moment, also while workers start
            self._settled()
        if act == "join" and len(fleet.workers) > 2:
            self._leave()
        victim = self._random.choice(fleet.workers)
        if act == "kill":
            self._kill(victim)
        elif act == "step":
            self._kill_at(detail)
        elif act == "stall":
            self._stall()
        elif act == "erase":
            self._erase_in_a_rebalance()
        elif act == "join":
            self._start()
            story.joins += 1
        elif act == "leave":
            self._leave()
        else:
            self._restart_broker()

    def _kill(self, victim: Worker) -> None:
        self.fleet.kill(victim)
        self._start(victim.static_name)
        self.story.kills += 1

    def _start(self, static_name: str | None = None) -> Worker:
        """Start a worker; every second one keeps stand-by copies."""
        self._started += 1
        return self.fleet.start(static_name, standby=self._started % 2 == 0)

    def _erase(self) -> None:
        self.feeder.erase()
        self.story.erasures += 3

    def _erase_in_a_rebalance(self) -> None:
        """A worker comes and one goes, with tombstones and records all the while."""
        self._erase()
        self.fleet.start()

        def joined() -> bool:
            self._erase()
            self.feeder.send(20)
            return self.cluster.members() == len(self.fleet.workers)

        self._eventually(joined, "the group with one worker more")
        self._leave()
        self._erase()

    def _leave(self) -> None:
        self.fleet.remove(self._random.choice(self.fleet.workers))
        self.story.leaves += 1
        if not self.fleet.workers:
            self.fleet.start()

    def _kill_at(self, step: str) -> None:
        """A worker of its own dies at its n-th arrival at a step of the checkpoint; records keep coming
        meanwhile.
        """
        while len(self.fleet.workers) > 1:  # Faust's assignor is sticky: a third worker may get no partition
            self._leave()
        self._settled()
        doomed = self.fleet.start(fault=Die(step, self._random.randrange(1, 6)))
        self._eventually(lambda: not doomed.alive or self.cluster.members() == 2, "the doomed worker joined")

        def dead() -> bool:
            self.feeder.send(20)
            doomed.process.join(0.2)
            return not doomed.alive

        self._eventually(dead, f"the doomed worker at {step}")
        self.fleet.await_death(doomed, within_s=1)
        self.fleet.start()
        self.story.kills += 1

    def _stall(self) -> None:
        """SIGSTOP until the others have taken over and gone on, then SIGCONT: it wakes up with
        partitions not its own.
        """
        if len(self.fleet.workers) < 2:
            self.fleet.start()
            self._settled()
        members = len(self.fleet.workers)
        sleeper = self._random.choice(self.fleet.workers)
        self.feeder.send(500)
        sleeper.signal(signal.SIGSTOP)
        self.feeder.send(500)
        self._eventually(lambda: 0 < self.cluster.members() < members, "the sleeper thrown out of the group")
        self._moved(self.feeder.sent)
        self.feeder.send(500)
        sleeper.signal(signal.SIGCONT)
        self._moved(self.feeder.sent)
        self.story.stalls += 1

    def _restart_broker(self) -> None:
        assert self.broker is not None
        self._settled()  # a worker that only begins would find no cluster, and end
        before = list(self.fleet.workers)
        self.broker.restart()
        self.story.broker_restarts += 1
        self.feeder.send(500)
        self._moved(self.feeder.sent)
        self.story.survived_broker_restarts += all(worker.alive for worker in before)


def run(
    plan: Plan, settings: Settings, folder: Path, broker: LocalBroker | None
) -> tuple[Story, Verdict, Verdict]:
    """Set the scene, play, and verify; the second verdict is that after the version changes."""
    with admin_client(settings) as admin:
        ensure_topics(admin, settings)
        topic_id = topic_ids(admin, [settings.topics.events])[settings.topics.events].bytes
    version: Version = random_version(settings.registry)
    announce(settings, version)
    with Fleet(settings, folder) as fleet:
        chaos = Chaos(plan, settings, fleet, broker)
        try:
            chaos.play()
            first = verify(chaos.cluster, version, topic_id)
            problems: list[str] = []
            for epoch, versions in enumerate(announcements(settings.registry, plan.swaps), start=2):
                problems += chaos.swap(epoch, versions).problems
            chaos.end()
            ((version, _),) = versions
            last = verify(chaos.cluster, version, topic_id, 1 + plan.swaps, swapped=True)
            last.problems += problems
            return chaos.story, first, last
        except BaseException:
            fleet.interrogate()
            raise
        finally:
            chaos.close()


def chaos_settings(address: str, folder: Path, plan: Plan, **values: object) -> Settings:
    """Short sessions, so that a crash heals soon."""
    defaults = {
        "session_timeout_s": 6,
        "k": 5,
        "partitions": plan.partitions,
        "registry": folder / "registry",
    }
    return load_settings(**{"bootstrap_servers": address, **defaults, **values})


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--short", action="store_true", help="the form that runs inside make test")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    end_on_sigterm()
    plan = Plan(**{**asdict(SHORT if options.short else FULL), "seed": options.seed})
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, LocalBroker(Path(name) / "broker", progress=print) as broker:
        folder = Path(name)
        try:
            story, *verdicts = run(
                plan, chaos_settings(broker.bootstrap_servers, folder, plan), folder, broker
            )
        except BaseException:
            for log in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[-6:]:
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-20_000:]}", file=sys.stderr)
            raise
    outcome = {"story": asdict(story), "verdict": asdict(verdicts[0]), "after_swaps": asdict(verdicts[1])}
    print(json.dumps(outcome, indent=1))
    missing, doubled = (
        sum(getattr(verdict, name) for verdict in verdicts) for name in ("missing", "doubled")
    )
    print(f"missing {missing} doubled {doubled} unexpected exits {len(story.unexpected_exits)}")
    report = {
        **origin(),
        "seconds": round(time.monotonic() - started),
        "plan": asdict(plan),
        **outcome,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "chaos-short.json" if options.short else "chaos.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n")
    broken = missing or doubled or any(verdict.problems for verdict in verdicts) or story.unexpected_exits
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
