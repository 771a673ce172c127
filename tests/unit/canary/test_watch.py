"""The watcher: it decides once, whatever it is killed at, and leaves a record of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError

from eddy.models.decisions import Decision, read_decisions
from eddy.models.errors import EddyError
from eddy.models.storage import Place, located
from eddy.stream.canary import watch as watching
from eddy.stream.canary.trial import Limit
from eddy.stream.canary.watch import watch, watch_canary
from eddy.stream.kafka.clients import NotReadInTime
from eddy.stream.kafka.versions import Overtaken
from eddy.stream.records.rank_counts import Told
from eddy.stream.records.schema import Announcement, Decided, Share
from eddy.stream.records.settings import Settings, load_settings
from tests.unit.canary.ranks import BEGAN_MS, CANARY, EPOCH, LIVE, OTHER, announced, told

LIMIT = Limit(seconds=3600, events=20_000)
WORSE = told(1, 10_000, live=0.3, canary=0.1)


class Killed(BaseException):
    """The watcher's process ends here."""


@dataclass
class Cluster:
    """Announcements and ranks, as the watcher reads and writes them."""

    announced: list[Announcement]
    records: list[Told] = field(default_factory=list)
    failures: dict[str, list[BaseException]] = field(default_factory=dict)
    """by what the watcher does: what comes of its next attempts"""
    waited: int = 0
    on_wait: Callable[[], None] = lambda: None

    def reach(self, step: str) -> None:
        if waiting := self.failures.get(step):
            raise waiting.pop(0)

    def announcement_reader(self, _: Settings) -> SimpleNamespace:
        return SimpleNamespace(all=self.announcements, close=lambda: None)

    def announcements(self) -> list[Announcement]:
        self.reach("announcements")
        return list(self.announced)

    def announce(self, _: Settings, versions: Sequence[tuple[Share, int]], decided: Decided) -> Announcement:
        self.reach("announce")
        newest = self.announced[-1].epoch
        if newest != decided.canary_epoch:
            raise Overtaken("overtaken")
        shares = [Share(share.version, share.folder, percent) for share, percent in versions]
        made = Announcement(
            newest + 1, shares[0].version, shares[0].folder, 0, shares if len(shares) > 1 else [], decided
        )
        self.announced.append(made)
        self.reach("after announcing")
        return made

    def reader(self, _: Settings, since_ms: int) -> Cluster:
        self.reach("reader")
        assert since_ms <= BEGAN_MS
        self._read = 0
        return self

    def read_on(self) -> Iterator[tuple[int, Told]]:
        self.reach("read")
        for record in self.records[self._read :]:
            self._read += 1
            yield BEGAN_MS, record

    def close(self) -> None:
        """Nothing is to be done."""

    @property
    def live(self) -> dict[str, int]:
        return {share.version: share.percent for share in self.announced[-1].every_share}


class Stop(Event):
    """Waiting takes no time; the cluster hears of it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def wait(self, timeout: float | None = None) -> bool:
        self._cluster.waited += 1
        assert self._cluster.waited < 100, "it waits for what does not come"
        self._cluster.on_wait()
        return self.is_set()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a registry that holds three versions."""
    for version in (LIVE, CANARY, OTHER):
        (tmp_path / "registry" / version).mkdir(parents=True)
        (tmp_path / "registry" / version / "version.json").touch()
    return load_settings(bootstrap_servers="nobody", registry=tmp_path / "registry")


def opened(share: Share, registry: Place) -> Share:
    """What stands in for a version: its share, where its folder is there."""
    if not (located(registry) / share.version).is_folder():
        raise EddyError(f"{share.version}: no version is there")
    return share


def remove(settings: Settings, version: str) -> Path:
    """Take a version's folder out of the registry; returns where it is."""
    folder = Path(settings.registry / version)
    return folder.rename(folder.with_name(f"removed-{version}"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A canary of ten percent, of which nothing is known yet."""
    one = Cluster([announced(100, epoch=EPOCH - 1), announced(90, 10)])
    for name, stands_in in {
        "AnnouncementReader": one.announcement_reader,
        "announce_shares": one.announce,
        "open_version": opened,
        "RankReader": one.reader,
        "wall_ms": lambda: BEGAN_MS,
    }.items():
        monkeypatch.setattr(watching, name, stands_in)
    return one


def kinds(settings: Settings) -> list[tuple[str, str, int | None]]:
    return [(each.kind, each.version, each.epoch) for each in read_decisions(settings.registry)]


DECIDED = [("canary began", CANARY, EPOCH), ("taken back", CANARY, EPOCH + 1)]


def test_a_worse_canary_is_taken_back_and_both_decisions_are_recorded(
    settings: Settings, cluster: Cluster
) -> None:
    cluster.records = list(WORSE)
    heard: list[Decision] = []
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster), heard.append)
    assert decision is not None
    assert (decision.kind, decision.live, decision.decided_by) == ("taken back", LIVE, "watch")
    assert decision.figures["high"] < 0
    assert [each.kind for each in heard] == ["canary began"]
    assert kinds(settings) == DECIDED
    assert cluster.live == {LIVE: 100}


def test_it_waits_for_ranks_that_come_later(settings: Settings, cluster: Cluster) -> None:
    left = list(WORSE)

    def one_more() -> None:
        cluster.records.append(left.pop(0))

    cluster.on_wait = one_more
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert kinds(settings) == DECIDED
    assert len(left) > 3, "it did not need them all"


@pytest.mark.parametrize("step", ["announcements", "reader", "read", "announce", "after announcing"])
def test_a_watcher_that_was_killed_goes_on_and_announces_nothing_twice(
    settings: Settings, cluster: Cluster, step: str
) -> None:
    cluster.records = list(WORSE)
    cluster.failures[step] = [Killed()]
    with pytest.raises(Killed):
        watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert DECIDED[1] not in kinds(settings)
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert kinds(settings) == DECIDED
    assert [each.epoch for each in cluster.announced] == [EPOCH - 1, EPOCH, EPOCH + 1]
    again = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert (again, kinds(settings)) == (decision, DECIDED)


def test_what_was_announced_and_not_recorded_is_recorded_by_whoever_watches_next(
    settings: Settings, cluster: Cluster
) -> None:
    cluster.records = list(WORSE)
    cluster.failures["after announcing"] = [Killed()]
    with pytest.raises(Killed):
        watch(settings, LIMIT, Stop(cluster))
    stop = Stop(cluster)
    cluster.on_wait = stop.set
    watch(settings, LIMIT, stop)
    assert kinds(settings) == DECIDED
    assert len(cluster.announced) == 3


@pytest.mark.parametrize("step", ["announcements", "reader", "read", "announce"])
@pytest.mark.parametrize(
    "failure",
    [KafkaTimeoutError(), KafkaConnectionError(), ConnectionResetError(), NotReadInTime("late")],
    ids=repr,
)
def test_a_cluster_that_is_away_for_a_while_does_not_end_it(
    settings: Settings, cluster: Cluster, step: str, failure: BaseException
) -> None:
    cluster.records = list(WORSE)
    cluster.failures[step] = [failure] * 12
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert kinds(settings) == DECIDED
    assert cluster.waited >= 12


def test_a_cluster_that_refuses_it_ends_it_with_the_reason(settings: Settings, cluster: Cluster) -> None:
    cluster.failures["announcements"] = [SaslAuthenticationFailedError()]
    with pytest.raises(EddyError, match="SaslAuthenticationFailed"):
        watch_canary(settings, EPOCH, LIMIT, Stop(cluster))


def test_a_damaged_record_of_another_decision_does_not_end_it(settings: Settings, cluster: Cluster) -> None:
    folder = Path(settings.registry / "decisions")
    folder.mkdir()
    (folder / "000001.json").write_text("{")
    cluster.records = list(WORSE)
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert kinds(settings) == DECIDED


def test_an_announcement_by_hand_ends_the_trial(settings: Settings, cluster: Cluster) -> None:
    by_hand = announced(100, epoch=EPOCH + 1)
    cluster.on_wait = lambda: cluster.announced.append(by_hand)
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert (decision.kind, decision.version, decision.epoch) == ("overtaken", CANARY, EPOCH + 1)
    assert cluster.announced[-1] is by_hand
    assert kinds(settings)[-1] == ("overtaken", CANARY, EPOCH + 1)


def test_one_that_comes_between_its_last_look_and_its_own_announcement_stands(
    settings: Settings, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.records = list(WORSE)
    by_hand, announce = announced(100, epoch=EPOCH + 1), cluster.announce

    def too_late(*arguments: Any) -> Announcement:
        cluster.announced.append(by_hand)
        return announce(*arguments)

    monkeypatch.setattr(watching, "announce_shares", too_late)
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert decision.kind == "overtaken"
    assert cluster.announced[-1] is by_hand


def test_a_better_canary_whose_files_are_gone_is_taken_back(settings: Settings, cluster: Cluster) -> None:
    cluster.records = told(1, 10_000, live=0.1, canary=0.3)
    remove(settings, CANARY)
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert decision.reason.startswith("Its files are gone, so that it cannot go live. ")
    assert "Better than the live version" in decision.reason
    assert cluster.live == {LIVE: 100}
    assert kinds(settings) == DECIDED


def test_others_that_are_whole_go_on_where_one_that_was_to_go_live_is_gone(
    settings: Settings, cluster: Cluster
) -> None:
    cluster.announced[-1] = announced(60, 20, 20)
    cluster.records = told(1, 15_000, live=0.1, canary=0.3, other=0.1)
    remove(settings, CANARY)
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert cluster.live == {LIVE: 80, OTHER: 20}


def test_others_that_are_gone_leave_with_one_that_is_worse(settings: Settings, cluster: Cluster) -> None:
    cluster.announced[-1] = announced(60, 20, 20)
    cluster.records = told(1, 15_000, live=0.3, canary=0.3, other=0.1)
    remove(settings, CANARY)
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert (decision.kind, decision.version) == ("taken back", OTHER)
    assert cluster.live == {LIVE: 100}


def test_where_the_live_version_is_gone_it_says_so_once_and_waits(
    settings: Settings, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.records = list(WORSE)
    folder = remove(settings, LIVE)

    def restored() -> None:
        if cluster.waited == 9:
            folder.rename(folder.with_name(LIVE))

    cluster.on_wait = restored
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert kinds(settings) == DECIDED
    assert cluster.waited == 9
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"epoch {EPOCH} is decided about" in line
    assert f"{LIVE}: no version is there" in line
    assert "eddy announce VERSION" in line


def test_an_announcement_by_hand_ends_the_wait_for_files(settings: Settings, cluster: Cluster) -> None:
    cluster.records = list(WORSE)
    remove(settings, LIVE)
    cluster.on_wait = lambda: cluster.announced.append(announced(100, epoch=EPOCH + 1))
    decision = watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    assert decision is not None
    assert decision.kind == "overtaken"


def test_it_watches_one_canary_after_the_other(settings: Settings, cluster: Cluster) -> None:
    cluster.announced[-1] = announced(60, 20, 20)
    cluster.records = told(1, 15_000, live=0.3, canary=0.3, other=0.1)
    cluster.records += told(2, 15_000, epoch=EPOCH + 1, live=0.3, canary=0.1)
    stop = Stop(cluster)
    heard: list[str] = []

    def hear(decision: Decision) -> None:
        heard.append(f"{decision.kind} {decision.version}")
        if len(heard) == 4:
            stop.set()

    watch(settings, LIMIT, stop, hear)
    assert heard == [
        f"canary began {CANARY}", f"taken back {OTHER}", f"canary began {CANARY}", f"taken back {CANARY}",
    ]  # fmt: skip
    assert cluster.live == {LIVE: 100}


def test_it_stops_when_it_is_told_to(settings: Settings, cluster: Cluster) -> None:
    stop = Stop(cluster)
    cluster.on_wait = stop.set
    assert watch_canary(settings, EPOCH, LIMIT, stop) is None
    assert cluster.announced[-1].epoch == EPOCH


@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 5])
def test_an_epoch_without_a_canary_is_refused(settings: Settings, cluster: Cluster, epoch: int) -> None:
    with pytest.raises(EddyError, match=f"epoch {epoch} has no canary"):
        watch_canary(settings, epoch, LIMIT, Stop(cluster))


def test_a_decision_that_is_on_record_is_not_looked_for_again_and_again(
    settings: Settings, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.records = list(WORSE)
    watch_canary(settings, EPOCH, LIMIT, Stop(cluster))
    reads: list[str] = []

    def counted(registry: Any, version: str) -> list[Decision]:
        reads.append(version)
        return read_decisions(registry, version)

    monkeypatch.setattr(watching, "read_decisions", counted)
    stop = Stop(cluster)
    cluster.waited = 0
    cluster.on_wait = lambda: stop.set() if cluster.waited == 5 else None
    watch(settings, LIMIT, stop)
    assert reads == [CANARY]
