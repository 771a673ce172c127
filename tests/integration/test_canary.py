"""Canaries on a real broker, with a real worker: a version that some users were given by hand is taken back
by itself where it is worse, and goes live for all where it is better.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from eddy.models.config import ModelConfig
from eddy.models.decisions import Decision, read_decisions
from eddy.models.network.recommender import Recommender
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.models.storage import Place
from eddy.models.trained import Trained
from eddy.models.vocabulary import Vocabulary
from eddy.stream.canary import watch as watching
from eddy.stream.canary.trial import Limit
from eddy.stream.canary.watch import watch_canary
from eddy.stream.kafka.live_ranks import read_live_ranks
from eddy.stream.kafka.versions import Overtaken, announce, announce_shares, live_announcement
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import Event, encode
from tests.support.engines import TYPES, item_id
from tests.support.kafka_clusters import MakeSettings
from tests.support.stage import Stage, staged
from tests.support.waiting import eventually

START_MS = 1_370_000_000_000
USERS, ITEMS = 300, 50
MOST_EVENTS = 60_000
LIMIT = Limit(events=MOST_EVENTS)
AT_ONCE = 200


def walks(seed: int) -> Iterator[Message]:
    """Events of users who mostly go on to the item after the one before; some are more active than others."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.0, USERS)
    item = rng.integers(0, ITEMS, USERS)
    for number in itertools.count():
        user = int(rng.choice(USERS, p=activity / activity.sum()))
        item[user] = (item[user] + 1) % ITEMS if rng.random() < 0.8 else rng.integers(0, ITEMS)
        event = Event(f"user-{user}", item_id(int(item[user])), START_MS + 60_000 * number, "view")
        yield event.user_id.encode(), encode(event)


def published(registry: Place, follows: bool) -> Version:
    """A version that has learned nothing yet. One that `follows` ranks by what came after what, which it
    counts as it goes; the other one by the noise that its weights are made of.
    """
    torch.manual_seed(0)
    lags = ModelConfig().transition_lags if follows else 0
    config = ModelConfig(
        hidden=16, dim=16, item_buckets=8, successors=8, pointer=follows, transition_lags=lags
    )
    vocabulary = Vocabulary([item_id(n) for n in range(ITEMS)], TYPES, config.item_buckets)
    recommender = Recommender(config, ITEMS, len(TYPES)).eval()
    return publish(registry, Trained(recommender, vocabulary, EventRules()), {})


@pytest.fixture
def stage(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Stage]:
    """An installation that ranks all its users' events before it applies them."""
    settings = make_settings(
        partitions=2,
        session_timeout_s=6,
        metrics_port=0,
        emit="off",
        prequential_sample=1,
        prequential_time=1,
    )
    with staged(settings, tmp_path) as one:
        yield one


@contextmanager
def traffic(stage: Stage) -> Iterator[list[int]]:
    """Events that come in the background as fast as they go, up to the limit; yields how many were sent."""
    sent, stop, log = [0], threading.Event(), walks(2)

    def send() -> None:
        while not stop.is_set() and sent[0] < MOST_EVENTS:
            stage.send(itertools.islice(log, AT_ONCE))
            sent[0] += AT_ONCE

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def try_canary(stage: Stage, live: Version, canary: Version, percent: int) -> Decision:
    """Give a canary to some users of a live version, with a worker and traffic; returns how that ended."""
    announce(stage.settings, live)
    worker = stage.fleet.start()
    eventually(lambda: b"metrics: " in worker.log() and worker.metrics()["eddy_ready"], 150, "a worker")
    epoch = announce_shares(stage.settings, [(live, 100 - percent), (canary, percent)]).epoch
    eventually(lambda: worker.metrics()["eddy_epoch"] == epoch, 150, "the canary")
    with traffic(stage):
        decision = watch_canary(stage.settings, epoch, LIMIT, threading.Event())
    assert decision is not None
    eventually(lambda: worker.metrics()["eddy_epoch"] == decision.epoch, 150, "the end of the canary")
    return decision


@pytest.mark.parametrize("percent", [20, 50])
def test_a_worse_version_that_some_users_have_is_taken_back_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, percent: int
) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.5)
    registry = stage.settings.registry
    live, canary = published(registry, follows=True), published(registry, follows=False)
    decision = try_canary(stage, live, canary, percent)
    assert (decision.kind, decision.version, decision.live) == ("taken back", canary.id, live.id)
    assert decision.figures["events"] + decision.figures["live_events"] < MOST_EVENTS
    announced = live_announcement(stage.settings)
    assert announced is not None
    assert (announced.epoch, announced.version, announced.shares) == (decision.epoch, live.id, [])
    recorded = [each.kind for each in read_decisions(registry)]
    assert recorded == ["canary began", "taken back"]


def test_a_better_version_that_some_users_have_goes_live_for_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.5)
    registry = stage.settings.registry
    live, canary = published(registry, follows=False), published(registry, follows=True)
    decision = try_canary(stage, live, canary, 30)
    assert (decision.kind, decision.version, decision.live) == ("promoted", canary.id, live.id)
    announced = live_announcement(stage.settings)
    assert announced is not None
    assert (announced.version, announced.shares) == (canary.id, [])
    # Another watcher that comes to a decision about the same canary is too late.
    with pytest.raises(Overtaken):
        announce_shares(stage.settings, [(live, 100)], announced.decided)
    assert live_announcement(stage.settings) == announced


def test_what_all_workers_tell_adds_up_to_every_ranked_event(stage: Stage) -> None:
    """Also what a worker has not told of when it is asked to end."""
    log = walks(3)

    for _ in range(2):
        worker = stage.fleet.start()
        stage.send(itertools.islice(log, 700))
        stage.await_end()
        stage.fleet.remove(worker)
    assert stage.fleet.unexpected == []
    told = read_live_ranks(stage.settings)
    assert [by.version for by in told.by] == [stage.version.id]
    assert told.of("events").sum() == 1_400
    assert (told.of("recall") <= told.of("events")).all()
    assert read_live_ranks(stage.settings, epoch=2).by == []
