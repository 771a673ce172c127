"""The record of decisions: each is whole, numbered once, and refused by name when it cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eddy.models import registry
from eddy.models.decisions import MAX_BYTES, Decision, read_decisions, record_decision
from eddy.models.errors import EddyError
from tests.support.no_room import no_room

pytestmark = pytest.mark.unit

FIRST, SECOND = "v000001-00000000", "v000002-00000000"
WENT_LIVE = Decision(
    kind="went live",
    version=SECOND,
    live=FIRST,
    epoch=2,
    reason="It is not worse.",
    figures={"mrr@20": [0.1, 0.2]},
    decided_by="refresh",
    decided_at="2026-11-29T10:00:00+00:00",
)
REFUSED = Decision("refused", "", SECOND, None, "It is worse.", {}, "refresh")


def test_a_decision_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    assert Path(record_decision(tmp_path, WENT_LIVE)) == tmp_path / "decisions" / "000001.json"
    assert read_decisions(tmp_path) == [WENT_LIVE]


def test_a_decision_without_a_time_gets_the_time_of_its_record(tmp_path: Path) -> None:
    record_decision(tmp_path, REFUSED)
    (decision,) = read_decisions(tmp_path)
    assert decision.decided_at.endswith("+00:00")
    assert len(decision.decided_at) == len("2026-11-29T10:00:00+00:00")


def test_decisions_come_oldest_first_also_beyond_six_digits(tmp_path: Path) -> None:
    for number in (999_999, 1_000_000, 2):
        (tmp_path / "decisions").mkdir(exist_ok=True)
        content = {**json.loads(record_decision(tmp_path / "other", WENT_LIVE).read()), "epoch": number}
        (tmp_path / "decisions" / f"{number:06d}.json").write_text(json.dumps(content))
    assert record_decision(tmp_path, WENT_LIVE).name == "1000001.json"
    assert [decision.epoch for decision in read_decisions(tmp_path)] == [2, 999_999, 1_000_000, 2]


def test_decisions_of_a_version_are_those_that_name_it(tmp_path: Path) -> None:
    record_decision(tmp_path, WENT_LIVE)
    record_decision(tmp_path, REFUSED)
    kinds = {
        version: [decision.kind for decision in read_decisions(tmp_path, version)]
        for version in (FIRST, SECOND, "v000003-00000000")
    }
    assert kinds == {FIRST: ["went live"], SECOND: ["went live", "refused"], "v000003-00000000": []}


def test_a_registry_without_decisions_has_none_and_decisions_are_no_version(tmp_path: Path) -> None:
    assert read_decisions(tmp_path / "none") == []
    record_decision(tmp_path, WENT_LIVE)
    assert registry.versions(tmp_path) == []


def test_figures_may_hold_numbers_of_numpy(tmp_path: Path) -> None:
    figures = {"loss": np.float32(0.5), "events": np.int64(7), "better": np.bool_(True)}
    record_decision(tmp_path, Decision("promoted", SECOND, FIRST, 3, "It is better.", figures, "watch"))
    assert read_decisions(tmp_path)[0].figures == {"loss": 0.5, "events": 7, "better": True}


_KILLED_BEFORE_IT_IS_NAMED = """
import sys
from pathlib import Path
from eddy.models import atomic_files
from eddy.models.decisions import Decision, record_decision

def wait(path):
    if path.name == ".000001.json.writing":
        print(flush=True)
        input()

atomic_files.sync = wait
record_decision(Path(sys.argv[1]), Decision("refused", "", "", None, "Never seen.", {}, "refresh"))
"""


def test_a_killed_process_leaves_no_half_decision_and_does_not_block_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED_BEFORE_IT_IS_NAMED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.kill()
    assert (tmp_path / "decisions" / ".000001.json.writing").exists()
    assert read_decisions(tmp_path) == []
    assert record_decision(tmp_path, WENT_LIVE).name == "000001.json"
    assert read_decisions(tmp_path) == [WENT_LIVE]


_RECORDS_TEN = """
import sys
from pathlib import Path
from eddy.models.decisions import Decision, record_decision

print(flush=True)
input()
for number in range(10):
    record_decision(Path(sys.argv[1]), Decision("refused", "", "", number, sys.argv[2], {}, "refresh"))
"""


def test_two_processes_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RECORDS_TEN, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:  # both have imported everything, and begin together
        process.communicate(b"\n")
        assert process.returncode == 0
    decisions = read_decisions(tmp_path)
    assert len(list((tmp_path / "decisions").iterdir())) == len(decisions) == 20
    for name in ("one", "other"):
        assert [each.epoch for each in decisions if each.reason == name] == list(range(10))


def changed(**changes: object) -> bytes:
    about = {name: getattr(WENT_LIVE, name) for name in WENT_LIVE.__dataclass_fields__}
    return json.dumps({**about, **changes}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        changed()[:40],
        b"\x80\x05noise",
        b"[" * 100_000,
        changed(kind="deleted"),
        changed(epoch="2"),
        changed(figures=[1]),
        changed(decided_at="yesterday"),
        changed(decided_at=""),
        changed(decided_at="2026-11-29T10:00:00"),
        changed(reason="long" * MAX_BYTES),
    ],
    ids=[
        "empty", "cut", "noise", "deep", "unknown kind", "text for an epoch", "a list of figures", "no date",
        "no time", "no time zone", "too long",
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_and_hides_no_other(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record_decision(tmp_path, WENT_LIVE)
    (tmp_path / "decisions" / "000002.json").write_bytes(content)
    record_decision(tmp_path, WENT_LIVE)
    unreadable: list[EddyError] = []
    assert read_decisions(tmp_path, None, unreadable.append) == [WENT_LIVE] * 2
    assert [str(error).partition(" (")[0] for error in unreadable] == [
        f"{tmp_path / 'decisions' / '000002.json'}: not a decision that can be read"
    ]
    assert read_decisions(tmp_path, SECOND) == [WENT_LIVE] * 2
    assert "000002.json: not a decision" in caplog.text


def test_what_does_not_fit_on_the_disk_is_one_clear_error_and_no_record(tmp_path: Path) -> None:
    with no_room(20), pytest.raises(EddyError, match="cannot write a decision"):
        record_decision(tmp_path, WENT_LIVE)
    assert read_decisions(tmp_path) == []
    assert record_decision(tmp_path, WENT_LIVE).name == "000001.json"
