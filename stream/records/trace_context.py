"""Which trace a request or a record is a part of, as W3C Trace Context says it (levels 1 and 2).

Contexts come from callers and producers, so that one that is malformed counts as none.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

Headers = list[tuple[str, bytes]]
"""The headers of a Kafka record. aiokafka's producer takes no other sequence."""

_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_VALUE = rb"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_MEMBER = rb"[ \t]*%b=%b[ \t]*" % (_KEY, _VALUE)
_TRACESTATE = re.compile(rb"%b(?:,%b){0,31}" % (_MEMBER, _MEMBER))
_LONGEST_STATE = 512
"""Bytes of `tracestate` that everybody has to carry on; a longer one counts as malformed."""
_SAMPLED, _RANDOM = 0b01, 0b10
"""The flags that have a meaning. A sender of version 00 sets no others."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace, and the span in it that what comes next belongs to."""

    trace_id: str
    """32 hexadecimal digits"""
    span_id: str
    """16 hexadecimal digits"""
    flags: int = 0
    state: str = ""
    """what tracing systems add for themselves (`tracestate`)"""

    @property
    def is_sampled(self) -> bool:
        """Whether whoever began the trace records it."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The context as a header; `tracestate` is another one."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def headers(self) -> Headers:
        """The headers of a Kafka record that carry the context on."""
        carried = [(TRACEPARENT, self.traceparent.encode())]
        if self.state:
            carried.append((TRACESTATE, self.state.encode()))
        return carried


def parse_trace(traceparent: bytes, tracestate: bytes = b"") -> TraceContext | None:
    """The context in the values of the two headers; None where the first is malformed. A malformed second
    one counts as empty.
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    has_state = len(tracestate) <= _LONGEST_STATE and _TRACESTATE.fullmatch(tracestate)
    state = tracestate.decode() if has_state else ""
    flags = int(match[4], 16) & (_SAMPLED | _RANDOM)
    return TraceContext(match[2].decode(), match[3].decode(), flags, state)


def trace_of_record(headers: Iterable[tuple[str, bytes | None]]) -> TraceContext | None:
    """The context in the headers of a Kafka record, None without one."""
    values = dict(headers)
    return parse_trace(values.get(TRACEPARENT) or b"", values.get(TRACESTATE) or b"")
