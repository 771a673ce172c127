"""The watcher of canaries: follows what is live and what its ranks say, takes back the canaries that are
worse, and has the others go live.

Its state is on Kafka and in the registry, so it may be killed at any moment, and goes on with the same canary
when it is started again. A decision is announced with all that its record will say, then recorded in the
registry: what was announced and not recorded is recorded by whoever watches next, and never announced again.
Two watchers at once decide alike, from the same counts.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import TypeVar

from kafka.errors import KafkaError

from eddy.models.decisions import Decision, read_decisions, record_decision
from eddy.models.descriptions import DESCRIPTION
from eddy.models.errors import EddyError
from eddy.models.storage import Location
from eddy.stream.canary.trial import Limit, Trial
from eddy.stream.kafka.clients import NotReadInTime
from eddy.stream.kafka.live_ranks import RankReader
from eddy.stream.kafka.versions import (
    AnnouncementReader,
    Overtaken,
    announce_shares,
    open_version,
)
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.schema import Announcement, Share
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.watch")

LOOK_S = 5.0
"""The time between two looks at Kafka."""

RETRY_S = 5.0
"""The time until a cluster that does not answer is tried again."""

FILES_S = 30.0
"""The time until files are looked for again without which a verdict cannot be announced."""

CLOCKS_MS = 3_600_000
"""By so much may the clock of whoever announces be ahead of the brokers', from which ranks are read on."""

T = TypeVar("T")


def watch(
    settings: Settings, limit: Limit, stop: Event, on_decision: Callable[[Decision], None] = lambda _: None
) -> None:
    """Watch every canary that is announced, until `stop` is set. limit: of each of them.

    Errors: EddyError, but not for a cluster that is away for a while.
    """
    recorded = 0
    """the live epoch whose decision is known to be on record: to ask reads all records"""
    with closing(AnnouncementReader(settings)) as announcements:
        while not stop.is_set():
            live = next(reversed(_through_outages(announcements.all, stop) or []), None)
            if live is not None and live.shares:
                decision = watch_canary(settings, live.epoch, limit, stop, on_decision)
                if decision is not None:
                    on_decision(decision)
            else:
                # The one before may have been killed between announcing and recording.
                if live is not None and live.decided is not None and live.epoch != recorded:
                    if _record(settings, _decision(live)):
                        on_decision(_decision(live))
                    recorded = live.epoch
                stop.wait(LOOK_S)


def watch_canary(
    settings: Settings,
    epoch: int,
    limit: Limit,
    stop: Event,
    on_decision: Callable[[Decision], None] = lambda _: None,
) -> Decision | None:
    """Watch the canary that was announced as `epoch` until it is decided about; returns the decision, which
    is announced and recorded by then, or None when `stop` is set before. on_decision: called when it began.

    Errors: EddyError, also when the epoch was never announced or has one version only, but not for a cluster
    that is away for a while.
    """
    with closing(AnnouncementReader(settings)) as announcements:
        return _through_outages(
            lambda: _watch_canary(settings, announcements, epoch, limit, stop, on_decision), stop
        )


def _through_outages(work: Callable[[], T], stop: Event) -> T | None:
    """Do the work again and again, until the cluster lets it succeed; None when `stop` is set before. Errors:
    those that another attempt cannot mend.
    """
    while not stop.is_set():
        try:
            return work()
        except (KafkaError, OSError, NotReadInTime) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise EddyError(f"the Kafka cluster refuses to work ({error!r})") from error
            log.warning("the Kafka cluster cannot be used at the moment (%r); trying again", error)
            stop.wait(RETRY_S)
    return None


def _watch_canary(
    settings: Settings, announcements: AnnouncementReader, epoch: int, limit: Limit, stop: Event,
    on_decision: Callable[[Decision], None],
) -> Decision | None:  # fmt: skip
    """Watch it as long as the cluster answers, from its beginning on.

    1. Note that it began, unless it has ended already.
    2. Follow its ranks until the trial has a verdict, or somebody else makes an announcement.
    3. Announce the verdict, then record it. Where files are missing for that, say so once, and wait for them.
    """
    announced = next((each for each in announcements.all() if each.epoch == epoch), None)
    if announced is None or not announced.shares:
        raise EddyError(f"epoch {epoch} has no canary: announce one with `eddy announce LIVE=90 CANARY=10`")
    trial = Trial(announced, limit)
    if (ended := _ended(settings, announcements, trial)) is not None:
        return ended
    began = _began(trial)
    if _record(settings, began):
        on_decision(began)
    reader, missing = RankReader(settings, announced.announced_at - CLOCKS_MS), ""
    try:
        while not stop.is_set():
            for at_ms, told in reader.read_on():
                trial.take(at_ms, told.sums)
            trial.pass_time(wall_ms())
            if (ended := _ended(settings, announcements, trial)) is not None:
                return ended
            if trial.verdict is not None:
                try:
                    decision = _decision(_announce(settings, trial))
                except Overtaken:
                    continue
                except _Missing as error:
                    if missing != str(error):
                        missing = str(error)
                        log.error("%s", missing)
                    stop.wait(FILES_S)
                    continue
                _record(settings, decision)
                return decision
            stop.wait(LOOK_S)
    finally:
        reader.close()
    return None


class _Missing(EddyError):
    """A verdict cannot be carried out as long as a version's files cannot be read."""


def _announce(settings: Settings, trial: Trial) -> Announcement:
    """Announce a trial's verdict, without canaries whose files are gone. Errors: Overtaken, _Missing,
    EddyError.
    """
    try:
        gone = [share.version for share in trial.canaries if _is_gone(share, settings.registry)]
        verdict = trial.verdict_without(gone)
        assert verdict is not None
        versions = [(open_version(share, settings.registry), percent) for share, percent in verdict.shares]
    except (EddyError, OSError) as error:
        raise _Missing(
            f"epoch {trial.epoch} is decided about, but that cannot be announced: {error}. Restore the files "
            "from a copy, or give all users a version that is whole: eddy announce VERSION"
        ) from None
    return announce_shares(settings, versions, verdict.decided)


def _is_gone(share: Share, registry: Location) -> bool:
    """Whether a version is neither in the registry nor where it was announced. Errors: OSError when it cannot
    be told.
    """
    there = (registry / share.version / DESCRIPTION).is_file()
    return not there and not (Path(share.folder) / DESCRIPTION).is_file()


def _ended(settings: Settings, announcements: AnnouncementReader, trial: Trial) -> Decision | None:
    """How the trial has ended already, recorded now if it was not; None while it goes on."""
    following = next((each for each in announcements.all() if each.epoch > trial.epoch), None)
    if following is None:
        return None
    if following.decided is not None and following.decided.canary_epoch == trial.epoch:
        decision = _decision(following)
    else:
        decision = Decision(
            "overtaken",
            trial.canaries[0].version,
            trial.live.version,
            following.epoch,
            f"Epoch {following.epoch} was announced before epoch {trial.epoch} was decided about.",
            {"canary_epoch": trial.epoch, "events": trial.events},
            "watch",
        )
    _record(settings, decision)
    return decision


def _began(trial: Trial) -> Decision:
    shares = [f"{share.version} ({share.percent} %)" for share in (trial.live, *trial.canaries)]
    return Decision(
        "canary began",
        trial.canaries[0].version,
        trial.live.version,
        trial.epoch,
        f"{', '.join(shares[1:])} beside {shares[0]}.",
        {share.version: share.percent for share in (trial.live, *trial.canaries)},
        "watch",
    )


def _decision(announced: Announcement) -> Decision:
    """The record of what an announcement ends."""
    decided = announced.decided
    assert decided is not None
    return Decision(
        decided.kind,
        decided.version,
        decided.live,
        announced.epoch,
        decided.reason,
        dict(decided.figures),
        "watch",
    )


def _record(settings: Settings, decision: Decision) -> bool:
    """Record a decision unless it is recorded; returns whether it was not."""
    for recorded in read_decisions(settings.registry, decision.version):
        if (recorded.kind, recorded.version, recorded.live, recorded.epoch) == (
            decision.kind, decision.version, decision.live, decision.epoch,
        ):  # fmt: skip
            return False
    record_decision(settings.registry, decision)
    return True
