"""Trace contexts: what W3C Trace Context lets pass, and what counts as none."""

from __future__ import annotations

import pytest

from eddy.stream.records.trace_context import TraceContext, parse_trace, trace_of_record

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_context_survives_its_way_through_the_headers_of_a_record() -> None:
    context = TraceContext(TRACE, SPAN, 1, "vendor=opaque,other@tenant=x y")
    assert trace_of_record(context.headers) == context
    assert [name for name, _ in TraceContext(TRACE, SPAN).headers] == ["traceparent"]


@pytest.mark.parametrize(
    ("flags", "sampled", "passed_on"),
    [("00", False, "00"), ("01", True, "01"), ("03", True, "03"), ("fe", False, "02")],
)
def test_the_flags_that_have_a_meaning_are_kept(flags: str, sampled: bool, passed_on: str) -> None:
    context = parse_trace(f"00-{TRACE}-{SPAN}-{flags}".encode())
    assert context is not None
    assert context.is_sampled is sampled
    assert context.traceparent == f"00-{TRACE}-{SPAN}-{passed_on}"


def test_a_later_version_is_read_as_far_as_this_one_goes() -> None:
    assert parse_trace(f"cc-{TRACE}-{SPAN}-01-more".encode()) == TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "malformed",
    [
        "", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n",
    ],
)  # fmt: skip
def test_a_malformed_context_is_none(malformed: str) -> None:
    assert parse_trace(malformed.encode()) is None


@pytest.mark.parametrize(
    "malformed",
    ["no member", "Upper=case", "a=b\nc", "a=" + "x" * 511, ",".join(["a=b"] * 33), "a==b", "é=1"],
)
def test_a_malformed_state_is_left_out(malformed: str) -> None:
    context = parse_trace(f"00-{TRACE}-{SPAN}-01".encode(), malformed.encode())
    assert context == TraceContext(TRACE, SPAN, 1)


def test_headers_of_others_and_empty_ones_are_no_context() -> None:
    assert trace_of_record([("reason", b"\xff"), ("traceparent", None)]) is None


@pytest.mark.parametrize("state", [b"a=" + b" " * 509 + b"\n", b"a=b" + b" ," * 250, b" " * 512])
def test_a_state_that_can_be_cut_in_many_ways_is_judged_at_once(state: bytes) -> None:
    """Trying them all would take longer than a test may."""
    context = parse_trace(f"00-{TRACE}-{SPAN}-01".encode(), state)
    assert context == TraceContext(TRACE, SPAN, 1)
