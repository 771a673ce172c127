"""What an export keeps in memory before it writes it."""

from __future__ import annotations

import pytest

from eddy.stream.event_log import export
from eddy.stream.event_log.export import PART_BYTES, PART_RECORDS, _Waiting
from tests.support.event_logs import Written


def test_records_with_much_context_are_written_sooner_than_plain_ones() -> None:
    plain, large = _Waiting(), _Waiting()
    plain.add(0, [Written(offset, b"{}") for offset in range(PART_RECORDS - 1)])
    assert not plain.is_enough
    plain.add(1, [Written(0, None)])
    assert plain.is_enough
    megabyte = b" " * (1 << 20)
    large.add(0, [Written(offset, megabyte) for offset in range(PART_BYTES >> 20)])
    assert large.is_enough
    assert [len(records) for records in large.take().values()] == [PART_BYTES >> 20]
    assert (large.is_enough, large.count, large.take()) == (False, 0, {})


def test_what_waits_is_written_by_a_clock_that_nobody_sets_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = _Waiting()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert not waiting.is_old
    monkeypatch.setattr(export, "_FLUSH_MS", 0)
    assert waiting.is_old
