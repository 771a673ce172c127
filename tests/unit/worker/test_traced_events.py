"""Events as parts of traces: their spans in a worker, and what carries the traces on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from opentelemetry.trace import SpanKind, StatusCode

from eddy.stream.records.chunk import Chunk
from eddy.stream.records.messages import Message
from eddy.stream.records.trace_context import TraceContext, trace_of_record
from eddy.stream.worker.event_traces import (
    MOST,
    EventTraces,
    TracedEvent,
    headers_of_answers,
    headers_of_rows,
)
from tests.support.engines import item_id
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_kafka import Record as KafkaRecord
from tests.support.memory_stage import MemoryStage, memory_stage
from tests.support.records import NOW, Record
from tests.support.spans import SAMPLED, SPAN, TRACE, UNSAMPLED, RecordedSpans, events_of, id_of, parent_of
from tests.unit.worker.conftest import Versions


def events(user: str, *items: int) -> list[Message]:
    """Events of one user, in order."""
    fields = [{"user_id": user, "item_id": item_id(item), "timestamp": NOW + item} for item in items]
    return [(user.encode(), json.dumps(event).encode()) for event in fields]


def traces(records: Iterable[KafkaRecord]) -> list[TraceContext | None]:
    """What each record carries on."""
    return [trace_of_record(record.headers) for record in records]


def answers(stage: MemoryStage) -> list[TraceContext | None]:
    return traces(stage.kafka.records(stage.settings.topics.recommendations))


def rows(stage: MemoryStage) -> list[TraceContext | None]:
    return traces(stage.kafka.records(stage.settings.topics.user_state))


@in_leaping_time
async def test_a_sampled_event_has_a_span_from_its_micro_batch_until_its_row_is_durable(
    tmp_path: Path, versions: Versions
) -> None:
    spans = RecordedSpans()
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a", spans.tracer)
        stage.send(events("secret-user", 1), SAMPLED.headers)
        await stage.until(lambda: spans.ended)
        span = spans.only
        assert (span.name, span.kind) == ("process events", SpanKind.CONSUMER)
        assert parent_of(span) == (TRACE, SPAN)
        assert events_of(span) == ["applied", "answered"]
        assert rows(stage) == answers(stage) == [TraceContext(TRACE, id_of(span), 1)]
        assert "secret" not in span.to_json()
        await stage.require_promises()


@in_leaping_time
async def test_without_spans_a_sampled_trace_is_carried_on_as_it_came(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        stage.send(events("anna", 1), SAMPLED.headers)
        await stage.until_durable()
        assert rows(stage) == answers(stage) == [SAMPLED]


@in_leaping_time
async def test_an_event_that_is_not_sampled_has_no_span_and_leads_to_no_headers(
    tmp_path: Path, versions: Versions
) -> None:
    spans = RecordedSpans()
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a", spans.tracer)
        stage.send(events("anna", 1), UNSAMPLED.headers)
        stage.send(events("ben", 1), [("traceparent", b"nonsense"), ("other", b"\xff")])
        stage.send(events("cora", 1))
        await stage.until_durable()
        assert rows(stage) == answers(stage) == [None] * 3
        assert spans.ended == ()


@in_leaping_time
async def test_headers_change_nothing_in_rows_and_answers(tmp_path: Path, versions: Versions) -> None:
    """A row is a function of its records' contents and its version."""
    values = []
    for name, headers in (("with", SAMPLED.headers), ("without", [])):
        async with memory_stage(tmp_path / name, versions.first) as stage:
            await stage.start_owner("a", RecordedSpans().tracer)
            stage.send([*events("anna", 1, 2, 3), *events("ben", 1)], headers)
            await stage.until_durable()
            topics = (stage.settings.topics.user_state, stage.settings.topics.recommendations)
            last = {
                (topic, record.key): record.value for topic in topics for record in stage.kafka.records(topic)
            }
            values.append(last)
    assert values[0] == values[1]


@in_leaping_time
async def test_a_dead_letter_s_span_says_so(tmp_path: Path, versions: Versions) -> None:
    spans = RecordedSpans()
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a", spans.tracer)
        stage.send([(b"anna", b"no event")], SAMPLED.headers)
        await stage.until(lambda: spans.ended)
        assert events_of(spans.only) == ["dead letter", "answered"]
        assert spans.only.status.status_code == StatusCode.ERROR


@in_leaping_time
async def test_an_event_that_is_erased_at_once_leaves_its_trace_nowhere(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        stage.send([*events("anna", 1), (b"anna", None)], SAMPLED.headers)
        await stage.until_durable()
        topics = stage.settings.topics
        for topic in (topics.user_state, topics.recommendations):
            tombstones = [record for record in stage.kafka.records(topic) if record.value is None]
            assert tombstones
            assert traces(tombstones) == [None] * len(tombstones)


def test_whoever_says_that_everything_is_sampled_gets_so_many_spans_and_no_more() -> None:
    records = [Record(b"anna", b"", offset, headers=tuple(SAMPLED.headers)) for offset in range(MOST + 1)]
    chunks = [Chunk(0, records, generation=1, follows=None)]
    assert [event.offset for event in EventTraces(None, "events", "eddy").begin({0: chunks})] == [
        *range(MOST)
    ]


def traced(user: str, offset: int, span_id: str) -> TracedEvent:
    return TracedEvent(user.encode(), 0, offset, TraceContext(TRACE, span_id, 1), None)


def answer(user: str, offset: int) -> Message:
    return user.encode(), b'{"user_id":"%s","offset":%d}' % (user.encode(), offset)


def test_the_first_list_that_includes_an_event_carries_its_trace_on() -> None:
    first, second, third = (traced("anna", offset, f"{offset:016x}") for offset in (3, 4, 9))
    lists = [answer("ben", 9), answer("anna", 2), answer("anna", 6), answer("anna", 9), answer("anna", 9)]
    headers = headers_of_answers(lists, [first, second, third])
    assert headers == {2: second.context.headers, 3: third.context.headers}
    assert headers_of_answers(lists, []) == {}


def test_a_row_carries_on_the_trace_of_the_last_event_in_it() -> None:
    first, second = traced("anna", 3, "0" * 15 + "3"), traced("anna", 4, "0" * 15 + "4")
    messages: list[Message] = [(b"anna", None), (b"ben", b"row"), (b"anna", b"row")]
    assert headers_of_rows(messages, [first, second]) == {2: second.context.headers}
