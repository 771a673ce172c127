"""Which trace led to a row: as far as it is known, and no longer than the row is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eddy.serving.row_traces import RowTraces
from eddy.stream.records.trace_context import TraceContext
from tests.support.records import Record
from tests.support.spans import TRACE


def trace(number: int) -> TraceContext:
    return TraceContext(TRACE, f"{number:016x}", 1)


def row(user: str, number: int | None = None) -> Record:
    """A row that carries a trace on, or none."""
    headers = () if number is None else tuple(trace(number).headers)
    return Record(user.encode(), b"row", headers=headers)


def take(traces: RowTraces, *records: Any) -> None:
    of_a_fetch: Sequence[Any] = records
    traces.take(of_a_fetch, {record.key: record.value for record in records})


def test_the_last_trace_of_a_row_is_known_until_the_next_one() -> None:
    traces = RowTraces()
    take(traces, row("anna", 1), row("ben"), row("anna", 2))
    take(traces, row("anna"))  # it still includes what was traced
    assert (traces.of("anna"), traces.of("ben")) == (trace(2), None)
    take(traces, row("anna", 3))
    assert traces.of("anna") == trace(3)


def test_nothing_is_known_of_who_was_erased() -> None:
    traces = RowTraces()
    take(traces, row("anna", 1), row("ben", 2))
    take(traces, Record(b"anna", None))
    take(traces, row("cora", 3), Record(b"cora", None))
    assert [traces.of(user) for user in ("anna", "ben", "cora")] == [None, trace(2), None]


def test_those_that_changed_first_are_forgotten_first() -> None:
    traces = RowTraces(most=2)
    take(traces, row("anna", 1), row("ben", 2), row("anna", 3), row("cora", 4))
    assert [traces.of(user) for user in ("anna", "ben", "cora")] == [trace(3), None, trace(4)]


def test_headers_that_are_no_trace_count_as_none() -> None:
    traces = RowTraces()
    take(traces, Record(b"anna", b"row", headers=(("traceparent", b"\xff"),)))
    assert traces.of("anna") is None
