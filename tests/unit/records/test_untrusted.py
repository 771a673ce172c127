"""Whatever bytes lie on a topic, its readers go on: each is fed everything, and none may raise."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from eddy.demo.freshness import Freshness
from eddy.models.errors import EddyError
from eddy.models.logs.item_features import features_of
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.untrusted import Unreadable, decoded, text
from eddy.models.vocabulary import Catalogue
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.event_log.table import events_table
from eddy.stream.ingest.doubts import _name as name_of_written
from eddy.stream.ingest.mapping import Unmappable, parse_map
from eddy.stream.kafka.versions import decode_announcement, open_version
from eddy.stream.records.schema import MAX_EPOCH, Announcement, encode
from eddy.stream.records.settings import load_settings
from eddy.stream.state.item_names import metadata
from eddy.stream.state.item_statistics import Counted, Journal, StatisticsReader
from eddy.stream.state.rows import encode_rows
from eddy.stream.state.stored_rows import decode_newest
from eddy.stream.worker.followed_topics import FollowedTopics
from tests.support.engines import random_version
from tests.support.records import Record
from tests.unit.state.test_rows import a_row

MESSAGES = (
    b'{"user_id":"u","item_id":"i","timestamp":1700000000000,"value":4.5,"event_id":"e"}',
    b'{"item_id":"i","title":"A title","genres":["Drama"],"year":1999,"scores":[1,2.5]}',
    b'{"epoch":1,"version":"v000001-00000000","folder":"/nowhere/v000001-00000000","announced_at":0}',
    encode_rows(a_row())[0],
)
FIELDS = "user_id=user_id,item_id=item_id,timestamp=timestamp,value=value"
NUMBERS = (b"1e999", b"-1e999", b"1e-999", b"9223372036854775808", b"-1", b"1.5", b"9" * 400, b"9" * 5_000)


def nested(depth: int) -> bytes:
    return b'{"item_id":"i","tree":' + b"[" * depth + b"]" * depth + b"}"


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """Random bytes, valid messages cut or damaged, deep nesting, numbers that no type has room for."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.binary(max_size=200))
    message = draw(st.sampled_from(MESSAGES))
    at = draw(st.integers(0, len(message)))
    if kind == 1:
        return message[:at]
    if kind == 2:
        return message[:at] + draw(st.binary(min_size=1, max_size=8)) + message[at + 1 :]
    if kind == 3:
        return nested(draw(st.sampled_from((10, 900, 5_000))))
    number = draw(st.sampled_from(NUMBERS))
    return message.replace(draw(st.sampled_from((b"1700000000000", b"4.5", b"1999", b"1,", b"2.5"))), number)


everything = hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
EXAMPLES = (b"\xff", b'{"item_id":"caf\xe9"}', b'{"item_id":"\\ud800"}', nested(2_000), b"9" * 5_000)


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    for value in EXAMPLES:
        test = example(key=b"k", value=value)(test)
        test = example(key=value, value=b"{}")(test)
    return everything(given(key=anything(), value=anything())(test))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("fuzz") / "registry")


@fuzzed
def test_text_and_messages_are_decoded_or_refused_with_a_reason(key: bytes, value: bytes) -> None:
    for decode in (text, lambda data: decoded(json.loads, data)):
        with suppress(Unreadable):
            decode(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b'{"a":"\xff"}', "not UTF-8"), (b"[" * 100_000, "nested too deeply"), (None, "no value")],
)
def test_a_reason_says_what_is_wrong_in_a_few_words(value: bytes | None, reason: str) -> None:
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        decoded(json.loads, value)


@fuzzed
def test_records_of_events_go_to_the_log_or_are_left_out(key: bytes, value: bytes) -> None:
    good = Record(b"u", MESSAGES[0], offset=2)
    records: list[Any] = [Record(key, value), Record(key, None, offset=1), good]
    table, _ = events_table(records, 0, load_settings(partitions=1).admission)
    assert 2 in table["offset"].to_pylist()
    assert len(name_of_written(value)) <= 1


@fuzzed
def test_records_of_a_source_topic_are_mapped_or_refused(key: bytes, value: bytes) -> None:
    for unit in ("ms", "s", "iso"):
        with suppress(Unmappable):
            parse_map(FIELDS, unit).event(value, "source")


@fuzzed
def test_records_of_items_leave_the_others_readable(key: bytes, value: bytes) -> None:
    records = [(key, value), (key, None), (b"i", MESSAGES[1])]
    assert any(len(features) for _, features in metadata(records))
    view = MaterialisedView(lambda: 0)
    view.take_items(records)
    assert view.metadata["i"].title == "A title"
    shared = FollowedTopics(load_settings(), run_at_once)
    asyncio.run(shared._take_items(TopicPartition("items", 0), [Record(*pair) for pair in records]))
    assert "i" in shared.names.ids


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan")])
def test_a_number_beyond_all_floats_hides_no_other(number: float) -> None:
    features = features_of({"n": number, "list": [number], "year": 1999})
    assert set(features_of({"year": 1999})) <= set(features)


@fuzzed
def test_records_of_user_state_leave_the_others_readable(key: bytes, value: bytes) -> None:
    good = {b"user-1": encode_rows(a_row())[0], b"erased": None}
    stored = decode_newest({key: value, b"\xff": value, **good})
    assert b"user-1" in [user for rows in stored.rows for user in rows.user]
    assert "erased" in stored.erased
    assert b"\xff" in stored.foreign
    view = MaterialisedView(lambda: 0)
    view.take_rows(2, {key: value, b"\xff": None, **good})
    assert view.find_row("user-1")


@fuzzed
def test_records_of_item_stats_change_nothing_when_they_cannot_be_read(key: bytes, value: bytes) -> None:
    reader = StatisticsReader(Statistics((1_000,), 2), Catalogue())
    for name in (key, b"0/base/0", b"0/journal/0"):
        reader.apply_records(0, [(name, value)])
    assert reader.sequence == {}


@everything
@given(data=st.data())
def test_a_damaged_journal_or_base_counts_nothing_or_what_fits_together(data: st.DataObject) -> None:
    statistics, catalogue = Statistics((1_000,), 2), Catalogue()
    item = catalogue.add(np.array([7, 8, 9], np.uint64))
    journal = Journal(0, -1, -1)
    log = []
    for offset in range(2):  # a base, then a journal record
        counted = Counted(item, np.array([1, 2, 3]), np.array([[-1], [0], [1]]), offset)
        statistics.count_events(0, counted.item, counted.time, counted.previous)
        journal.note_counted(counted)
        log += journal.drain_records(statistics, catalogue)()
    (key, value), at = data.draw(st.sampled_from(log)), data.draw(st.integers(0, 200))
    assert value is not None
    damaged = value[:at] + data.draw(st.binary(max_size=9)) + value[at + 1 :]
    reader = StatisticsReader(Statistics((1_000,), 2), Catalogue())
    with suppress(EddyError):  # of another format
        reader.apply_records(0, [log[0], (key, damaged), *log[1:]])


async def run_at_once(work: Callable[[], Any]) -> Any:
    return work()


def announced(live: Version, **changed: object) -> bytes:
    value = {"epoch": 1, "version": live.id, "folder": str(live.path), "announced_at": 0}
    return encode({**value, **changed})


@fuzzed
def test_records_of_model_versions_leave_the_version_before_in_place(
    version: Version, key: bytes, value: bytes
) -> None:
    assert live_epochs(version, [[announced(version), value, announced(version, epoch=2)], [value]]) == [2]


DECIDED = {
    "kind": "promoted", "version": "b", "live": "a", "canary_epoch": 6, "reason": "Better.",
    "figures": {"low": 0.1},
}  # fmt: skip


def test_an_announcement_that_says_why_it_was_made_is_taken(version: Version) -> None:
    assert live_epochs(version, [[announced(version)], [announced(version, epoch=7, decided=DECIDED)]]) == [
        1,
        7,
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": 2**63},
        {"epoch": 2**32},
        {"epoch": -1},
        {"epoch": 0},
        {"epoch": MAX_EPOCH, "version": "../../etc"},
        {"epoch": 7, "version": "/etc"},
        {"epoch": 7, "version": "v" * 10_000},
        {"epoch": 7, "version": "v000009-00000000", "folder": "a\0b/v000009-00000000"},
        {"epoch": 7, "version": "v000009-00000000", "folder": "/" + "x" * 5_000 + "/v000009-00000000"},
        {"epoch": 7, "version": "v000009-00000000", "folder": "/dev/null"},
        {"epoch": 7, "shares": [{"version": "v", "folder": "/dev/null", "percent": 100}]},
        {"epoch": 7, "shares": [{"version": "v", "folder": "/dev/null", "percent": 2**70}]},
        {"epoch": 7, "version": "v000009-00000000"},
        {"epoch": 7, "decided": {"kind": "promoted"}},
        {"epoch": 7, "decided": {**DECIDED, "kind": "eaten"}},
        {"epoch": 7, "decided": {**DECIDED, "canary_epoch": 2**40}},
        {"epoch": 7, "decided": {**DECIDED, "reason": "x" * 2_001}},
        {"epoch": 7, "decided": {**DECIDED, "figures": {str(n): 0.5 for n in range(101)}}},
        {"epoch": 7, "decided": {**DECIDED, "figures": {"difference": [[[]]]}}},
    ],
)
def test_a_hostile_announcement_is_not_taken_neither_live_nor_at_a_start(
    version: Version, changed: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    hostile = announced(version, **changed)
    assert live_epochs(version, [[announced(version)], [hostile]]) == [1]
    assert live_epochs(version, [[announced(version), hostile]]) == [1]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2, "one line each time"


def live_epochs(version: Version, batches: list[list[bytes]]) -> list[int]:
    """The epochs that a worker goes live with, one after the other."""
    shared = FollowedTopics(load_settings(registry=version.path.parent), run_at_once)
    epochs = []

    async def on_version(live: LiveShares) -> None:
        epochs.append(live.epoch)

    shared.version.on_loaded = on_version
    for values in batches:
        records: list[Any] = [Record(b"live", value) for value in values]
        asyncio.run(shared._take_versions(TopicPartition("model-versions", 0), records))
        asyncio.run(shared.version._try())  # as `keep_trying` does
    return epochs


def test_a_worker_without_any_version_that_can_be_loaded_says_why_it_ends(version: Version) -> None:
    with pytest.raises(EddyError, match="/dev/null: not a version's folder"):
        live_epochs(version, [[announced(version, version="v000009-00000000", folder="/dev/null")]])


@pytest.mark.parametrize("content", [b"[]", b"[" * 100_000, b'{"format":1,"config":[]}', b"\xff"])
def test_a_hostile_description_of_a_version_is_one_line(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "v000001-00000000"
    folder.mkdir()
    (folder / "version.json").write_bytes(content)
    announcement = Announcement(1, folder.name, str(folder), 0)
    with pytest.raises(EddyError, match="v000001-00000000"):
        open_version(announcement, tmp_path / "elsewhere")


@fuzzed
def test_announcements_are_decoded_or_refused(key: bytes, value: bytes) -> None:
    with suppress(Unreadable):
        assert 1 <= decode_announcement(value).epoch <= MAX_EPOCH


@fuzzed
def test_the_demo_passes_over_what_is_no_list(key: bytes, value: bytes) -> None:
    freshness = Freshness(load_settings(), lambda _: None)
    freshness._take_list(Record(key, value), 0.0)
    freshness._take_list(Record(key, None), 0.0)
    assert freshness.readable == {}


def test_a_damaged_row_is_told_of_by_its_user_and_the_others_are_read() -> None:
    stored = decode_newest({b"user-1": b"ED" + bytes(100), b"user-2": encode_rows(a_row())[0]})
    assert list(stored.damaged) == [b"user-1"]
    assert [rows.user for rows in stored.rows] == [[b"user-2"]]
