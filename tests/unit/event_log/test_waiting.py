"""What an export keeps in memory before it writes it."""

from __future__ import annotations

import pytest

from eddy.stream.event_log import export
from eddy.stream.event_log.export import PART_BYTES, PART_RECORDS, _Waiting
from tests.support.event_logs import Written

MEGABYTE = b" " * (1 << 20)


@pytest.mark.parametrize(("value", "most"), [(b"{}", PART_RECORDS), (MEGABYTE, PART_BYTES >> 20)])
def test_so_many_records_wait_and_fewer_where_they_are_large(value: bytes, most: int) -> None:
    waiting, enough = _Waiting(), []
    for partition, count in ((0, most - 1), (1, 1)):
        waiting.add(partition, [Written(offset, value) for offset in range(count)])
        enough.append(waiting.is_enough)
    assert enough == [False, True]
    assert [len(records) for records in waiting.take().values()] == [most - 1, 1]
    assert (waiting.is_enough, waiting.count, waiting.take()) == (False, 0, {})


def test_what_waits_is_written_by_a_clock_that_nobody_sets_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = _Waiting()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr(export, "_FLUSH_MS", 0)
    assert waiting.is_old
