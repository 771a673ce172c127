"""Traces of events through a worker: a span per sampled event, from the micro-batch that takes it in until
its row is durable, and the headers that carry the trace on to what comes of the event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from eddy.stream.records.chunk import Chunk, ConsumedRecord
from eddy.stream.records.messages import Message
from eddy.stream.records.trace_context import Headers, TraceContext, trace_of_record
from eddy.stream.tracing import Tracer, context_of_span, mark_failed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MOST = 100
"""Events of a micro-batch that are traced at most: whoever may post events can say that each is sampled."""

_headers = attrgetter("headers")


class _Answer(msgspec.Struct):
    offset: int


_answer = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True)
class TracedEvent:
    """A record of `events` that belongs to a sampled trace."""

    user: bytes
    partition: int
    offset: int
    context: TraceContext
    """for what comes of it: of its span where there is one, else the one that it came with"""
    span: Span | None

    def note(self, what: str) -> None:
        """Say what has happened to it."""
        if self.span is not None:
            self.span.add_event(what)

    def refuse(self) -> None:
        """Say that it is a dead letter."""
        if self.span is not None:
            self.span.add_event("dead letter")
            mark_failed(self.span)

    def end(self) -> None:
        """It is durable. The span of an event that does not come so far is never exported: whoever reads the
        event again makes another.
        """
        if self.span is not None:
            self.span.end()


class EventTraces:
    """Finds the events that are traced, and begins their spans where any are recorded."""

    def __init__(self, tracer: Tracer | None, topic: str, group: str) -> None:
        """topic, group: `events` and the workers' group, as spans name them."""
        self._tracer, self._topic, self._group = tracer, topic, group

    def begin(self, taken: Mapping[int, Sequence[Chunk]]) -> list[TracedEvent]:
        """The traced events of a micro-batch's chunks, in log order, at most MOST. Records without headers
        cost nothing but one look in a loop of the interpreter's own.
        """
        traced: list[TracedEvent] = []
        for number, chunks in taken.items():
            for chunk in chunks:
                for record in filter(_headers, chunk.records):
                    context = trace_of_record(record.headers)
                    if context is None or not context.is_sampled:
                        continue
                    if len(traced) == MOST:
                        return traced
                    traced.append(self._begin(number, record, context))
        return traced

    def _begin(self, partition: int, record: ConsumedRecord, context: TraceContext) -> TracedEvent:
        user, span = record.key or b"", None
        if self._tracer is not None:
            attributes = {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._topic,
                "messaging.destination.partition.id": str(partition),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group,
            }
            span = self._tracer.begin(f"process {self._topic}", "CONSUMER", context, attributes)
            if span.is_recording():
                context = context_of_span(span)
        return TracedEvent(user, partition, record.offset, context, span)


def headers_of_answers(messages: Sequence[Message], traced: Sequence[TracedEvent]) -> dict[int, Headers]:
    """Headers for messages of `recommendations` of one partition, by place: the first list of a user that
    includes a traced event carries its trace on, that of the last one if there are several.
    """
    waiting: dict[bytes, list[TracedEvent]] = {}
    for event in traced:
        waiting.setdefault(event.user, []).append(event)
    headers: dict[int, Headers] = {}
    if waiting:
        for place, (key, value) in enumerate(messages):
            if key in waiting and value is not None:
                includes = _answer(value).offset
                answered = [event for event in waiting[key] if event.offset <= includes]
                if answered:
                    headers[place] = answered[-1].context.headers
                    waiting[key] = waiting[key][len(answered) :]
    return headers


def headers_of_rows(messages: Sequence[Message], traced: Sequence[TracedEvent]) -> dict[int, Headers]:
    """Headers for messages of `user-state` of one partition, by place: a row carries on the trace of the last
    traced event that it includes.
    """
    last = {event.user: event for event in traced}
    if not last:
        return {}
    return {
        place: last[key].context.headers
        for place, (key, value) in enumerate(messages)
        if key in last and value is not None
    }
