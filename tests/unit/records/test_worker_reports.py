"""Reports of workers as bytes, and durations counted by class."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.untrusted import Unreadable
from eddy.stream.records.worker_reports import (
    DURATIONS_MS,
    WorkerReport,
    count_durations,
    decode_report,
    encode_report,
    quantiles,
)

REPORT = WorkerReport(
    instance="0" * 32, told_at=1, state="running", progress=None, partitions=[0, 3], applied=5, dead=1, lag=2,
    rows=3, rows_of_older_epochs=0, epoch=1, freshness=[0] * (len(DURATIONS_MS) + 1),
)  # fmt: skip


def test_a_report_and_the_word_of_an_end_are_read_as_they_were_written() -> None:
    for report in (REPORT, None):
        assert decode_report(*encode_report("rack/7 ü", report)) == ("rack/7 ü", report)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"), (b"0:1", b"{}"), (b"worker:", None), (b"worker:\xff", None), (b"worker:a\nb", None),
        (b"worker:" + b"a" * 300, None), (b"worker:a", b""), (b"worker:a", b"{"), (b"worker:a", b"[" * 9_999),
        (b"worker:a", msgspec.json.encode(msgspec.structs.replace(REPORT, progress=2.0))),
        (b"worker:a", msgspec.json.encode(msgspec.structs.replace(REPORT, freshness=[1]))),
        (b"worker:a", msgspec.json.encode(msgspec.structs.replace(REPORT, applied=-1))),
        (b"worker:a", msgspec.json.encode(msgspec.structs.replace(REPORT, instance="me"))),
    ],
)  # fmt: skip
def test_what_is_no_report_has_a_reason(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(Unreadable, match=" "):
        decode_report(key, value)


@given(st.lists(st.integers(2, 60_000_000), min_size=1, max_size=300))
def test_quantiles_of_counted_durations_are_those_of_the_durations_within_a_class(
    durations: list[int],
) -> None:
    (median, highest) = quantiles(count_durations(np.array(durations)), (0.5, 1.0)) or (0.0, 0.0)
    width = float(DURATIONS_MS[1] / DURATIONS_MS[0])
    exact = float(np.quantile(durations, 0.5, method="inverted_cdf"))
    assert exact / width <= median <= exact * width * 1.0001
    assert max(durations) / width <= highest <= max(durations) * width * 1.0001


def test_of_nothing_there_are_no_quantiles_and_clocks_that_differ_count_as_none() -> None:
    assert quantiles(count_durations(np.zeros(0, np.int64)), (0.5,)) is None
    assert count_durations(np.array([-5, 0, 10**12])).tolist()[:1] == [2]
    assert count_durations(np.array([10**12])).tolist()[-1] == 1
