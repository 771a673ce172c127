"""The event log on object storage keeps the promises that it keeps on a disk."""

from __future__ import annotations

import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.models.logs.manifests import newest_manifests
from eddy.models.storage import Location
from eddy.stream.event_log import merging
from eddy.stream.event_log.bucket import Bucket
from eddy.stream.event_log.table import events_table
from tests.support.event_logs import (
    DAY_MS,
    MARCH_1_2013,
    ONE_PARTITION,
    Written,
    append,
    event,
    names_ada,
    next_offsets,
    opened,
    parts,
    places,
)

pytestmark = pytest.mark.unit


def test_a_log_is_written_read_gone_on_with_and_forgets(remote: Location) -> None:
    append(remote, [event(0), event(1, user="bob", timestamp=MARCH_1_2013 + DAY_MS)])
    append(remote, [event(2, user="eve"), Written(3, None)])
    assert places(remote) == [(0, 0), (0, 1), (0, 2)]
    assert read_events(remote).users == ["ada", "eve", "bob"]
    assert next_offsets(remote) == {0: 4, 1: 0, 2: 0, 3: 0}
    with opened(remote) as event_log:
        assert event_log.forget() == 1
    assert places(remote) == [(0, 1), (0, 2)]
    assert not any(names_ada(file.location.read()) for file in remote.files())


def test_small_parts_are_merged_and_days_leave(remote: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "PARTS", 3)
    monkeypatch.setattr(merging, "GROWTH", 2)
    for offset in range(3):
        append(remote, [event(offset), event(offset + 10, timestamp=MARCH_1_2013 + offset * DAY_MS)])
    with opened(remote) as event_log:
        assert event_log.merge_once() == 3
        assert event_log.drop_days(1) == ["2013-03-01"]
    assert [part.day for part in parts(remote)] == ["2013-03-02", "2013-03-03"]


def test_of_two_exports_of_one_partition_the_later_ends_and_nothing_is_doubled(remote: Location) -> None:
    append(remote, [event(0)])
    stored = newest_manifests(remote)[0]
    first, second = (Bucket(remote, stored, writer) for writer in ("1" * 8, "2" * 8))
    table, _ = events_table([event(1)], 0, ONE_PARTITION)
    first.append(table, 2, [])
    with pytest.raises(EddyError, match="another export is writing to it"):
        second.append(table, 2, [])
    assert places(remote) == [(0, 0), (0, 1)]
    # What the second one wrote is nobody's, and goes when it is old.
    assert len([file for file in remote.files() if file.location.name.endswith(".parquet")]) == 3
    with opened(remote):
        pass
    assert len([file for file in remote.files() if file.location.name.endswith(".parquet")]) == 3


def test_what_a_killed_export_left_goes_when_it_is_old(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(remote, [event(0)])
    left = remote / "day=2013-03-01" / "bucket=0000" / "part-000000000001-1a2b3c4d.parquet"
    left.write(b"PAR1")
    with opened(remote):
        assert left.is_file()
    monkeypatch.setattr("eddy.stream.event_log.log.KEPT_MS", -1)
    with opened(remote):
        assert not left.is_file()
    assert places(remote) == [(0, 0)]


def test_a_bucket_that_is_missing_is_one_line(remote: Location) -> None:
    with (
        pytest.raises(EddyError, match=r"event log s3://no-such-bucket/log: .*check bucket") as told,
        opened("s3://no-such-bucket/log"),
    ):
        pass
    assert "\n" not in str(told.value)


def test_only_one_export_of_this_machine_writes_at_a_time(remote: Location) -> None:
    with opened(remote), pytest.raises(EddyError, match="another export"), opened(remote):
        pass
