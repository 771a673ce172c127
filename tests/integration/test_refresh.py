"""A refresh on a real broker: what goes live, what is refused, and what is left of one that was killed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from kafka import KafkaProducer

from eddy.models.decisions import read_decisions
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.logs.events import Events
from eddy.models.registry import Version, load, publish, versions
from eddy.models.storage import located
from eddy.models.trained import Trained
from eddy.models.training.train import train
from eddy.refresh.endings import Outcome
from eddy.refresh.job import JobFile
from eddy.refresh.options import RefreshOptions, recipe_of
from eddy.refresh.refresh import refresh
from eddy.refresh.windows import NotYet
from eddy.stream.canary import watch
from eddy.stream.feed import feed
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce, announce_shares, live_announcement
from eddy.stream.records.rank_counts import SUMS, RankedBy, encode_ranks
from eddy.stream.records.schema import GROUPS, Announcement
from eddy.stream.records.settings import Settings
from tests.support.commands import run as command
from tests.support.engines import random_version
from tests.support.kafka_clusters import MakeSettings
from tests.support.published_versions import pruned
from tests.support.walks import TRAINING, in_a_row, walks

OPTIONS = RefreshOptions(least_events=100, assignments=TRAINING)
BEFORE = walks(60, 36)
AFTER = walks(60, 15, steps=(2, 3, 11), first_round=36)
"""The same users with other steps: what was learned before says little."""


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    settings = make_settings(partitions=2, registry=tmp_path / "registry", event_log=tmp_path / "event-log")
    prepare_topics(settings)
    return settings


def send(settings: Settings, events: Events) -> None:
    asyncio.run(feed(settings, events))


def live_version(settings: Settings) -> Version:
    """A version of the first events, which is made live."""
    recipe = recipe_of(OPTIONS, None)
    trained = train(BEFORE, recipe.config, recipe.training, settings.rules)
    version = publish(settings.registry, trained, {"training": recipe.training.to_dict()})
    announce(settings, version)
    return version


def live_before_new_events(settings: Settings) -> Version:
    """The version of the first events, live; the events after them are on the topic, too."""
    send(settings, BEFORE)
    version = live_version(settings)
    send(settings, AFTER)
    return version


def as_trained(version: Version) -> Trained:
    return Trained(version.recommender, version.vocabulary, version.rules, version.metrics)


def run(settings: Settings, options: RefreshOptions = OPTIONS, say: Callable[[str], None] = print) -> Outcome:
    return refresh(settings, options, lambda what, done, of: None, say)


def test_a_refresh_takes_the_stream_s_change_into_a_version_that_goes_live(settings: Settings) -> None:
    first = live_before_new_events(settings)
    outcome = run(settings)
    assert outcome.is_live
    announced = live_announcement(settings)
    assert announced is not None
    assert (announced.epoch, announced.version) == (2, outcome.decision.version)
    version = load(settings.registry / announced.version)
    # It began with the weights of the live version, and its last pass was over everything.
    assert version.lineage["parent"] == first.id
    assert version.lineage["warm"]
    assert version.lineage["rows"] == len(BEFORE) + len(AFTER)
    assert version.metrics["until_ms"] == int(AFTER.timestamp[-1])
    # The decision is on record, with the figures that it rests on.
    (decision,) = read_decisions(settings.registry, version.id)
    assert (decision.kind, decision.live, decision.epoch) == ("went live", first.id, 2)
    judgement = decision.figures["judgement"]
    assert judgement["gains"]["live"]["low"] > 0
    assert judgement["metrics"]["candidate"]["mrr@20"] > judgement["metrics"]["live"]["mrr@20"]
    assert set(decision.figures["seconds"]) == {"export", "train", "judge", "publish"}
    # With nothing new since, there is nothing to do.
    with pytest.raises(NotYet, match="0 events since"):
        run(settings)


def test_before_the_first_event_there_is_nothing_to_do_yet(settings: Settings) -> None:
    with pytest.raises(NotYet, match="no event is in this log yet"):
        run(settings)


def test_a_first_version_that_is_below_a_counting_rule_is_refused(settings: Settings) -> None:
    send(settings, BEFORE)
    outcome = run(settings)
    assert outcome.decision.kind == "refused"
    assert "markov_last_20" in outcome.decision.reason
    assert live_announcement(settings) is None
    assert versions(settings.registry) == []
    assert [decision.kind for decision in read_decisions(settings.registry)] == ["refused"]


class Killed(BaseException):
    """As Ctrl-C."""


def test_a_refresh_that_is_killed_after_each_step_publishes_and_announces_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_before_new_events(settings)
    steps: list[str] = []

    def die(line: str) -> None:
        step = line.partition(":")[0]
        if not line.startswith("going on") and step not in steps:
            steps.append(step)
            raise Killed

    def write_never(self: JobFile, job: object = None) -> None:
        raise Killed

    # Killed after each of the first steps, and then after the publication, before it is written down.
    for step in ("export", "train", "gate"):
        with pytest.raises(Killed):
            run(settings, say=die)
        assert steps[-1] == step
    with monkeypatch.context() as patch:
        patch.setattr(JobFile, "write", write_never)
        with pytest.raises(Killed):
            run(settings, say=lambda line: None)
    published = versions(settings.registry)
    assert len(published) == 2
    with pytest.raises(Killed):
        run(settings, say=die)
    assert steps[-1] == "announce"
    # Once more, when the decision was recorded but the job not cleared away yet.
    with monkeypatch.context() as patch:
        patch.setattr(JobFile, "clear", write_never)
        with pytest.raises(Killed):
            run(settings)
    outcome = run(settings)
    assert outcome.is_live
    assert versions(settings.registry) == published
    announced = live_announcement(settings)
    assert announced is not None
    assert (announced.epoch, announced.version) == (2, published[-1])
    assert [decision.kind for decision in read_decisions(settings.registry)] == ["went live"]
    assert JobFile(settings.registry).read() is None


def test_a_refresh_whose_version_was_removed_before_it_went_live_is_begun_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_before_new_events(settings)
    with monkeypatch.context() as patch:
        patch.setattr("eddy.refresh.going_live.announce", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            run(settings)
    removed = versions(settings.registry)[-1]
    shutil.rmtree(Path(settings.registry / removed))
    said: list[str] = []
    outcome = run(settings, say=said.append)
    assert outcome.is_live
    assert outcome.decision.version != removed
    assert f"an interrupted refresh is begun anew: {settings.registry / removed}" in said[0]


def test_a_refresh_is_begun_anew_where_settings_have_changed_since_it_was_killed(
    settings: Settings, tmp_path: Path
) -> None:
    live_before_new_events(settings)

    def die_when_it_is_judged(line: str) -> None:
        if line.startswith("gate:"):
            raise Killed

    with pytest.raises(Killed):
        run(settings, say=die_when_it_is_judged)
    # What passed was learned and judged by the rules and on the log of then.
    elsewhere = settings.model_copy(update={"event_log": located(tmp_path / "another-log")})
    said: list[str] = []
    run(elsewhere, say=said.append)
    assert said[:2] == [
        "an interrupted refresh is begun anew: it was begun with other options or settings",
        f"export: {len(BEFORE) + len(AFTER):,} events added to {elsewhere.event_log}",
    ]


def test_a_registry_that_refuses_files_is_told_of_at_once(settings: Settings) -> None:
    folder = Path(settings.registry / ".refresh")
    folder.parent.mkdir(parents=True)
    folder.touch()
    with pytest.raises(EddyError, match=rf"{folder}: cannot be written .* check space and permissions"):
        run(settings)


def test_a_version_that_was_trained_on_everything_cannot_be_judged(settings: Settings) -> None:
    first = live_before_new_events(settings)
    everything = in_a_row(BEFORE, AFTER)
    recipe = recipe_of(OPTIONS, None)
    leaky = publish(settings.registry, train(everything, recipe.config, recipe.training, settings.rules), {})
    with pytest.raises(NotYet, match=f"0 events since {first.id} and {leaky.id}"):
        run(settings, replace(OPTIONS, candidate=leaky.id))
    announced = live_announcement(settings)
    assert announced is not None
    assert announced.version == first.id


def test_a_candidate_with_a_damaged_file_is_refused_with_the_reason(settings: Settings) -> None:
    first = live_before_new_events(settings)
    other = publish(settings.registry, as_trained(first), {})
    (other.path / "model.safetensors").unlink()
    with pytest.raises(EddyError, match=r"model\.safetensors"):
        run(settings, replace(OPTIONS, candidate=other.id))
    (decision,) = read_decisions(settings.registry, other.id)
    assert (decision.kind, decision.live, decision.epoch) == ("refused", first.id, None)
    assert "model.safetensors" in decision.reason
    announced = live_announcement(settings)
    assert announced is not None
    assert announced.version == first.id


def tell_ranks(settings: Settings, epoch: int, mrr_of: dict[str, float]) -> None:
    """What a worker would tell of 32 groups of users with 100 ranked events each, by version."""
    rng = np.random.default_rng(1)
    sums = {}
    for version, mrr in mrr_of.items():
        table = np.zeros((len(SUMS), GROUPS))
        table[SUMS.index("events")] = 100
        for name, mean in (("", mrr), ("popularity_", 0.2)):
            hits = rng.binomial(100, mean, GROUPS)
            table[SUMS.index(f"{name}recall")] = table[SUMS.index(f"{name}reciprocal")] = hits
        sums[RankedBy(epoch, version)] = table
    key, value = encode_ranks("0" * 32, 1, sums)
    producer = KafkaProducer(**client_config(settings), acks="all")
    producer.send(settings.topics.metrics, key=key, value=value).get(timeout=30)
    producer.close()


@pytest.mark.parametrize(("mrr", "kind"), [(0.5, "promoted"), (0.1, "taken back")])
def test_a_canary_goes_live_for_all_or_is_taken_back_by_what_its_users_show(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, mrr: float, kind: str
) -> None:
    first = live_before_new_events(settings)
    options = replace(OPTIONS, canary_percent=20, canary_s=600.0)

    def die_when_it_is_tried(line: str) -> None:
        if line.startswith("canary:"):
            raise Killed

    # 1. The new version is for a fifth of the users at first.
    with pytest.raises(Killed):
        run(settings, options, die_when_it_is_tried)
    second = versions(settings.registry)[-1]
    announced = live_announcement(settings)
    assert announced is not None
    assert [(share.version, share.percent) for share in announced.every_share] == [
        (first.id, 80),
        (second, 20),
    ]
    # 2. A refresh that was killed meanwhile goes on to watch it.
    tell_ranks(settings, announced.epoch, {first.id: 0.3, second: mrr})
    monkeypatch.setattr(watch, "LOOK_S", 0.2)
    outcome = run(settings, options)
    assert outcome.decision.kind == kind
    assert outcome.is_live == (kind == "promoted")
    assert outcome.judgement["targets"] > 0
    # 3. One version is for all, and the decisions say which and why.
    announced = live_announcement(settings)
    assert announced is not None
    assert announced.shares == []
    assert (announced.epoch, announced.version) == (3, second if kind == "promoted" else first.id)
    kinds = [decision.kind for decision in read_decisions(settings.registry, second)]
    assert kinds == ["canary began", kind]
    assert JobFile(settings.registry).read() is None


@pytest.mark.parametrize(("options", "code"), [((), 3), (("--ok-if-none-live",), 0)])
def test_schedulers_can_take_it_for_no_fault_that_nothing_goes_live(
    options: tuple[str, ...], code: int, settings: Settings, tmp_path: Path
) -> None:
    kafka = {
        "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix, "EDDY_PARTITIONS": str(settings.partitions),
    }  # fmt: skip
    ended = command(tmp_path, "refresh", *options, **kafka)
    assert (ended.returncode, ended.stderr.count("nothing to do yet")) == (code, 1), ended.stderr


def test_nothing_is_refreshed_while_several_versions_are_live(settings: Settings) -> None:
    send(settings, BEFORE)
    first = live_version(settings)
    other = publish(settings.registry, as_trained(first), {})
    announce_shares(settings, [(first, 90), (other, 10)])
    with pytest.raises(EddyError, match="shares of the users to several versions"):
        run(settings)


def test_an_announcement_by_hand_just_before_its_own_stands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(settings, BEFORE)
    by_hand = publish(settings.registry, as_trained(live_version(settings)), {})
    send(settings, AFTER)

    def too_late(*arguments: Any, **options: Any) -> Announcement:
        announce(settings, by_hand)
        return announce(*arguments, **options)

    monkeypatch.setattr("eddy.refresh.going_live.announce", too_late)
    outcome = run(settings)
    assert (outcome.decision.kind, outcome.is_live) == ("overtaken", False)
    announced = live_announcement(settings)
    assert announced is not None
    assert (announced.epoch, announced.version) == (2, by_hand.id)


def test_a_canary_that_was_replaced_and_removed_does_not_hold_up_later_refreshes(settings: Settings) -> None:
    first = live_before_new_events(settings)
    options = replace(OPTIONS, canary_percent=20)

    def die_when_it_is_tried(line: str) -> None:
        if line.startswith("canary:"):
            raise Killed

    with pytest.raises(Killed):
        run(settings, options, die_when_it_is_tried)
    second = versions(settings.registry)[-1]
    # Meanwhile somebody announces another version, and removes the canary.
    announce(settings, publish(settings.registry, as_trained(first), {}))
    assert second in pruned(settings)
    outcome = run(settings, options)
    assert (outcome.decision.kind, outcome.decision.version) == ("overtaken", second)
    assert "withdrawn" in outcome.decision.reason
    assert JobFile(settings.registry).read() is None


def test_what_was_too_little_to_train_on_does_not_hold_up_what_comes_later(settings: Settings) -> None:
    send(settings, replace(BEFORE, item=np.zeros_like(BEFORE.item)))
    with pytest.raises(EddyError, match="1 items; a ranking needs at least two"):
        run(settings)
    send(settings, walks(60, 36, first_round=36))
    assert run(settings).is_live


def test_a_candidate_that_is_live_already_is_nothing_to_do(settings: Settings) -> None:
    first = live_before_new_events(settings)
    with pytest.raises(NotYet, match=f"{first.id} is live already, as epoch 1"):
        run(settings, replace(OPTIONS, candidate=first.id, canary_percent=10))
    assert read_decisions(settings.registry) == []


@pytest.mark.parametrize("name", ["", "v000009-1a2b3c4d"])
def test_a_candidate_that_is_not_there_is_no_decision(settings: Settings, name: str) -> None:
    live_before_new_events(settings)
    with pytest.raises(EddyError, match=f"--candidate '{name}': no such version is in the registry"):
        run(settings, replace(OPTIONS, candidate=name))
    assert read_decisions(settings.registry) == []


def test_a_candidate_that_the_stream_cannot_serve_is_refused_before_it_is_judged(settings: Settings) -> None:
    live_before_new_events(settings)
    metrics = {"until_ms": int(BEFORE.timestamp[-1])}
    candidate = random_version(settings.registry, items=5, recent_window=20, metrics=metrics)
    with pytest.raises(EddyError, match=r"cannot be served: .* recent_window must be 50"):
        run(settings, replace(OPTIONS, candidate=candidate.id))
    assert [decision.kind for decision in read_decisions(settings.registry)] == ["refused"]
    assert JobFile(settings.registry).read() is None


def test_a_candidate_that_is_spoilt_by_its_last_pass_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_before_new_events(settings)
    monkeypatch.setattr("eddy.refresh.refresh.extend", Mock(side_effect=UnfitModel("its loss is no number")))
    with pytest.raises(UnfitModel):
        run(settings)
    (decision,) = read_decisions(settings.registry)
    assert (decision.kind, decision.reason) == ("refused", "its loss is no number")
    assert JobFile(settings.registry).read() is None
