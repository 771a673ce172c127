"""What a server makes of what workers, dead letters and versions tell: of bounded size, whatever comes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from aiokafka import ConsumerRecord, TopicPartition

from eddy.models.storage import located
from eddy.serving.live.active_users import KEPT as KEPT_USERS
from eddy.serving.live.active_users import LatestUsers
from eddy.serving.live.answers import (
    Attention,
    LiveRanks,
    Percentiles,
    PopularityRanks,
    VersionNow,
    WorkerNow,
)
from eddy.serving.live.attention import COMPARED_EVENTS, Seen, attention
from eddy.serving.live.dead_letters import KEPT, MAX_CHARACTERS, MAX_REASONS, OTHER_REASONS, DeadLetterTail
from eddy.serving.live.installation import KEPT_POINTS, Installation, Situation, ViewFacts
from eddy.serving.live.ranks import RECENT_MS, Ranks, live_ranks
from eddy.serving.live.workers import FORGOTTEN_MS, GONE_MS, MAX_WORKERS, Workers, without_worker
from eddy.serving.metrics import ServerMetrics
from eddy.serving.service import Service
from eddy.serving.view import VersionAt
from eddy.stream.records.rank_counts import SUMS, RankedBy, Told, encode_ranks
from eddy.stream.records.schema import GROUPS, Share
from eddy.stream.records.settings import Settings
from eddy.stream.records.worker_reports import DURATIONS_MS, Reported, WorkerReport, encode_report

WALL = 1_700_000_000_000
FRESH = [0] * (len(DURATIONS_MS) + 1)


def report(**changes: Any) -> WorkerReport:
    first = WorkerReport(
        instance="0" * 32, told_at=WALL, state="running", progress=None, partitions=[0], applied=0, dead=0,
        lag=0, rows=0, rows_of_older_epochs=0, epoch=1, freshness=FRESH,
    )  # fmt: skip
    return msgspec.structs.replace(first, **changes)


def counted(place: int, times: int) -> list[int]:
    freshness = list(FRESH)
    freshness[place] = times
    return freshness


# -- workers --------------------------------------------------------------------------------------------


def test_two_reports_say_what_happened_between_them_and_the_first_of_a_start_says_nothing() -> None:
    workers = Workers()
    workers.take(Reported("a", report(applied=1_000, dead=7, freshness=counted(3, 50))), WALL)
    assert workers.now(WALL)[0].events_per_s is None
    assert workers.take_interval(WALL).freshness.sum() == 0
    workers.take(
        Reported("a", report(told_at=WALL + 2_000, applied=1_500, dead=9, freshness=counted(3, 80))),
        WALL + 2_000,
    )
    interval = workers.take_interval(WALL + 2_000)
    assert (int(interval.freshness[3]), interval.dead) == (30, 2)
    assert workers.now(WALL + 2_000)[0].events_per_s == 250.0
    workers.take(Reported("a", report(instance="1" * 32, told_at=WALL + 3_000, applied=5)), WALL + 3_000)
    assert workers.now(WALL + 3_000)[0].events_per_s is None
    assert workers.take_interval(WALL + 3_000).dead == 0


def test_a_worker_that_tells_nothing_is_gone_then_forgotten_and_one_that_ends_vanishes() -> None:
    workers = Workers()
    workers.take(Reported("silent", report(partitions=[0, 2])), WALL)
    workers.take(Reported("ends", report(partitions=[1])), WALL)
    workers.take(Reported("ends", None), WALL)
    (one,) = workers.now(WALL + GONE_MS)
    assert (one.worker, one.state, without_worker([one], 3)) == ("silent", "running", [1])
    (one,) = workers.now(WALL + GONE_MS + 1)
    assert (one.state, one.events_per_s, without_worker([one], 3)) == ("gone", 0.0, [0, 1, 2])
    assert workers.now(WALL + FORGOTTEN_MS + 1) == []


def test_more_workers_than_anybody_has_are_not_kept() -> None:
    workers = Workers()
    for number in range(MAX_WORKERS + 5):
        workers.take(Reported(f"w{number:05}", report()), WALL)
    shown = workers.now(WALL)
    assert (len(shown), shown[0].worker) == (MAX_WORKERS, "w00005")


# -- ranks ----------------------------------------------------------------------------------------------


def told(instance: str, interval: int, events: int, hits: int, by: RankedBy | None = None) -> Told:
    sums = np.zeros((len(SUMS), GROUPS))
    sums[0, 0], sums[1, 0], sums[2, 0] = events, hits, hits / 2
    return Told(instance, interval, {by or RankedBy(1, "v"): sums})


def test_an_interval_counts_once_and_leaves_the_recent_ranks_after_five_minutes() -> None:
    ranks = Ranks()
    for _ in range(2):
        ranks.take(told("a", 1, 10, 5), WALL)
    ranks.take(told("b", 1, 30, 5), WALL + 60_000)
    recent = ranks.recent(WALL + 60_000)[RankedBy(1, "v")]
    assert live_ranks(recent) == LiveRanks(40, None, 0.25, 0.125)
    later = ranks.recent(WALL + RECENT_MS + 30_000)[RankedBy(1, "v")]
    assert later[0] == 30
    assert ranks.recent(WALL + 10 * RECENT_MS) == {}
    assert ranks.all_of(RankedBy(1, "v"))[0].sum() == 40
    assert live_ranks(None) is None


# -- dead letters ---------------------------------------------------------------------------------------


@dataclass
class Letter:
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = WALL


def take(tail: DeadLetterTail, letter: Letter) -> None:
    tail.take(cast("ConsumerRecord[bytes, bytes]", letter))


def test_dead_letters_are_told_newest_first_cut_and_as_text_whatever_their_bytes() -> None:
    tail = DeadLetterTail()
    take(tail, Letter(None))
    headers = [("reason", b"r" * 9_000), ("topic", b"\xff"), ("partition", b"x"), ("offset", b"9" * 40)]
    take(tail, Letter("ü".encode() * 5_000, [*headers, ("key", b"\x00k")]))
    newest, first = tail.newest(10, 2).samples
    assert (first.value, first.key, first.partition, first.reason) == ("", None, -1, "no reason is given")
    assert (newest.value, newest.key, newest.topic) == ("ü" * MAX_CHARACTERS, "\x00k", "\ufffd")
    assert (newest.partition, newest.offset, len(newest.reason)) == (-1, -1, MAX_CHARACTERS)
    json.loads(msgspec.json.encode(tail.newest(10, 2)))


def test_of_dead_letters_the_last_are_kept_and_of_reasons_so_many_are_told_apart() -> None:
    tail = DeadLetterTail()
    for number in range(KEPT + MAX_REASONS):
        take(tail, Letter(b"%d" % number, [("reason", b"reason %d" % number)]))
    letters = tail.newest(1_000, 7)
    assert (len(letters.samples), letters.total) == (KEPT, 7)
    assert letters.by_reason[OTHER_REASONS] == KEPT
    assert len(letters.by_reason) == MAX_REASONS + 1


def test_dead_letters_that_fail_alike_are_counted_together_whatever_their_times_and_places() -> None:
    tail = DeadLetterTail()
    for number in range(2 * MAX_REASONS):
        take(tail, Letter(b"", [("reason", b"timestamp %d is 1970-01-21 in ms" % (1_796_034_938 + number))]))
        take(tail, Letter(b"", [("reason", b"trailing characters (byte %d)" % number)]))
    letters = tail.newest(2, 7)
    assert letters.by_reason == {
        "timestamp … is 1970-01-21 in ms": 2 * MAX_REASONS,
        "trailing characters (byte …)": 2 * MAX_REASONS,
    }
    assert letters.samples[1].reason.startswith("timestamp 1796"), "each letter has its own reason"


# -- a cluster that does not answer ---------------------------------------------------------------------


def test_that_kafka_does_not_answer_is_told_where_readiness_is_asked_until_it_does(tmp_path: Path) -> None:
    class Letters:
        answers = False

        async def spans(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
            if not self.answers:
                raise TimeoutError
            return {tps[0]: (2, 5)}

    async def asked() -> None:
        letters = Letters()
        service = Service(Settings(bootstrap_servers="server", registry=located(tmp_path)))
        service.installation.begin_letters(cast(Any, letters))
        await service.installation.letters_held("dead-letters")
        assert "Kafka does not answer" in service.problems()[0]
        letters.answers = True
        assert await service.installation.letters_held("dead-letters") == 3
        assert service.problems() == []

    asyncio.run(asked())


# -- active users ---------------------------------------------------------------------------------------


def test_of_active_users_those_with_the_latest_events_are_kept() -> None:
    latest = LatestUsers()
    for block in range(5):
        users = [f"user-{block}-{number}" for number in range(KEPT_USERS)]
        latest.note(users, np.arange(KEPT_USERS), np.arange(KEPT_USERS) + 10 * block)
    newest = latest.newest()
    assert newest[0] == f"user-4-{KEPT_USERS - 1}"
    assert KEPT_USERS <= len(newest) <= 2 * KEPT_USERS
    latest.note([newest[0]], np.array([0]), np.array([0]))  # encoded anew, it is no older than it was
    latest.forget([newest[0], None])
    assert latest.newest()[0] != newest[0]


# -- attention ------------------------------------------------------------------------------------------

WORKER = WorkerNow("w", [0, 1], "running", None, 10.0, 0, 1, 5, 0, 100)
GONE = WorkerNow("lost", [], "gone", None, 0.0, 0, 1, 0, 0, 20_000)
VERSION = VersionNow("v1", 1, 1.0, True, 5, None, None)
QUIET = Seen([WORKER], [], 2, [VERSION], Percentiles(20, 60), 0, 10.0, 0.0, False, [], [])


def said(**changes: Any) -> list[Attention]:
    return attention(Seen(**{**QUIET.__dict__, **changes}))


def test_when_all_is_well_nothing_asks_for_attention() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"workers": []}, "problem", "eddy worker"),
        ({"without_worker": [1]}, "problem", "partition 1"),
        ({"workers": [WORKER, GONE]}, "warning", "lost"),
        ({"workers": [WorkerNow("w", [0], "swapping", 0.25, 1.0, 0, 3, 9, 7, 0)]}, "info", "epoch 3, 25 %"),
        ({"workers": [GONE], "cut_off": True}, "problem", "Kafka does not answer"),
        ({"lag": 10_000}, "warning", "10,000 records"),
        ({"freshness_ms": Percentiles(20, 60_000)}, "warning", "60 s"),
        ({"dead_letters_per_s": 2.5}, "warning", "2.5 records cannot"),
        ({"versions": []}, "problem", "eddy train --announce"),
        ({"versions": [VERSION, VersionNow("v2", 1, 0.1, True, 0, None, None)]}, "info", "v2 (10 %)"),
        ({"not_ready": ["items: not read to its end yet"]}, "problem", "not ready"),
        (
            {"versions": [VersionNow("v1", 1, 1.0, True, 5, LiveRanks(COMPARED_EVENTS, None, 0.2, 0.1),
                                     PopularityRanks(0.3, 0.2))]},
            "warning", "decayed popularity",
        ),
    ],
)  # fmt: skip
def test_what_is_not_well_is_said_in_a_sentence(changes: dict[str, Any], severity: str, words: str) -> None:
    sentences = said(**changes)
    assert [one for one in sentences if one.severity == severity and words in one.text], sentences
    assert all(one.text[0].isupper() and one.text.endswith(".") for one in sentences)


def test_a_reason_that_asks_ends_with_its_question() -> None:
    (sentence,) = said(problems=["kafka:9092: is TLS what this port speaks?"])
    assert sentence.text.endswith("speaks?")


def test_what_is_worst_comes_first() -> None:
    severities = [one.severity for one in said(workers=[], versions=[], dead_letters_per_s=1.0)]
    assert severities == sorted(severities, key=["problem", "warning", "info"].index)


# -- all of it ------------------------------------------------------------------------------------------


def installation(metrics: ServerMetrics | None = None) -> Installation:
    at = VersionAt.of("v1", 3)

    async def view() -> ViewFacts:
        return ViewFacts(5, 9, WALL, {at: 5}, 1)

    def situation() -> Situation:
        return Situation({at: Share("v1", "folder", 100)}, frozenset([at]), [], [])

    return Installation(2, metrics or ServerMetrics(), view, situation)


def record(message: tuple[bytes | None, bytes | None], offset: int) -> Any:
    return type("Record", (), {"key": message[0], "value": message[1], "offset": offset, "timestamp": WALL})()


def test_what_cannot_be_read_on_metrics_is_told_and_the_rest_is_taken_in() -> None:
    seen = installation()
    ranks = encode_ranks("a" * 32, 1, told("a", 1, 4, 2, RankedBy(3, "v1")).sums)
    messages = [encode_report("w", report()), (b"worker:w2", b"{"), (None, None), ranks, (b"x", b"\xff")]
    records = [record(message, offset) for offset, message in enumerate(messages)]
    unreadable = asyncio.run(seen.take_metrics(TopicPartition("metrics", 0), records))
    assert [line.split(":")[0] for line in unreadable] == ["offset 1", "offset 2", "offset 4"]
    assert [worker.worker for worker in seen.workers.now(WALL)] == ["w"]
    assert seen.ranks.all_of(RankedBy(3, "v1"))[0].sum() == 4


def test_a_look_is_told_and_kept_and_the_history_is_of_bounded_size() -> None:
    metrics = ServerMetrics()
    seen = installation(metrics)
    metrics.recent_seconds.extend([0.001, 0.003])
    now = asyncio.run(seen.look())
    assert now.http is not None
    assert (now.http.requests_per_s, now.http.p50_ms) == (2.0, 2.0)
    assert [(version.version, version.rows) for version in now.versions] == [("v1", 5)]
    assert metrics.registry.get_sample_value("eddy_version_rows", {"version": "v1", "epoch": "3"}) == 5
    assert asyncio.run(seen.look()).http.requests_per_s == 0.0  # type: ignore[union-attr]
    seen._history.extend(b"%d" % number for number in range(KEPT_POINTS + 5))
    history = json.loads(seen.history(every=300))
    assert history == {"interval_ms": 300_000, "points": [KEPT_POINTS + 5 - 301, KEPT_POINTS + 4]}
