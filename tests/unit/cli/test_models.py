"""`eddy models list` and `eddy models show`, offline: what is in the registry, readable and safe to print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eddy.cli.error_lines import line_for_user
from eddy.cli.models import list_versions, show_version
from eddy.cli.printable import printable
from eddy.models import registry
from eddy.models.decisions import Decision, read_decisions, record_decision
from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings, load_settings
from tests.support.versions import edit_description
from tests.unit.models.test_registry import trained

pytestmark = pytest.mark.unit

UNTIL_MS = 1_362_062_307_000
HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202egnp.exe\ud800\x7f"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Offline settings with an empty registry."""
    monkeypatch.delenv("EDDY_BOOTSTRAP_SERVERS", raising=False)
    return load_settings(registry=tmp_path / "registry")


@pytest.fixture
def ids(settings: Settings) -> list[str]:
    """Three versions: the second is a child of the first, the third is damaged."""
    given = replace(trained(), metrics={"until_ms": UNTIL_MS, "loss": 1.5})
    first = registry.publish(settings.registry, given, {"events": "a.parquet"}).id
    second = registry.publish(settings.registry, given, {"events": "b.parquet", "parent": first}).id
    third = registry.publish(settings.registry, given, {}).id
    Path(settings.registry / third / "version.json").write_text("{")
    return [first, second, third]


def decide(settings: Settings, kind: str, version: str, live: str, **more: object) -> None:
    about = {"epoch": 2, "reason": "It is not worse.", "figures": {}, "decided_by": "refresh", **more}
    record_decision(settings.registry, Decision(kind, version, live, **about))  # type: ignore[arg-type]


def test_every_version_has_a_row_and_a_damaged_one_says_why(
    settings: Settings, ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_versions(settings, tmp_path / "list.json")
    printed = capsys.readouterr()
    header, *rows, problem = printed.out.splitlines()
    assert header.split() == [
        "version", "created", "cell", "hidden", "items", "data", "until", "parent", "last", "decision",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == ids
    first, second, third = rows
    assert first.split()[2:] == ["gru", "8", "12", "2013-02-28", "14:38"]
    assert second.split()[2:] == ["gru", "8", "12", "2013-02-28", "14:38", ids[0]]
    assert third.split()[1:] == ["damaged"]
    assert problem.startswith(f"{ids[2]}: ")
    assert "version.json: unreadable" in problem
    assert printed.err == ""
    written = json.loads((tmp_path / "list.json").read_text())["versions"]
    assert [row["version"] for row in written] == ids
    assert (written[1]["parent"], written[1]["hidden"]) == (ids[0], 8)


def test_columns_are_aligned(settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    list_versions(settings, None)
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.index("cell") == first.index("gru")
    assert header.index("hidden") + len("hidden") == first.index(" 8 ") + len(" 8")


def test_the_weights_are_not_read_for_a_table(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for id_ in ids:
        Path(settings.registry / id_ / "model.safetensors").write_bytes(b"noise")
    list_versions(settings, None)
    assert "gru" in capsys.readouterr().out


def test_the_last_decision_about_each_version_is_shown(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = ids
    decide(settings, "went live", first, "", decided_at="2026-11-01T00:00:00+00:00")
    decide(settings, "went live", second, first, decided_at="2026-11-02T00:00:00+00:00")
    decide(settings, "refused", third, second, decided_at="2026-11-03T00:00:00+00:00")
    list_versions(settings, None)
    rows = capsys.readouterr().out.splitlines()[1:4]
    assert rows[0].endswith("replaced 2026-11-02")
    assert rows[1].endswith("went live 2026-11-02")
    assert rows[2].endswith("refused 2026-11-03")
    decide(settings, "rolled back", first, second, decided_at="2026-11-04T00:00:00+00:00")
    list_versions(settings, None)
    rows = capsys.readouterr().out.splitlines()[1:4]
    assert rows[0].endswith("rolled back to 2026-11-04")
    assert rows[1].endswith("replaced 2026-11-04")


def test_a_damaged_decision_is_named_and_hides_no_other(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for id_ in ids[:2]:
        decide(settings, "refused", id_, "", decided_at="2026-11-01T00:00:00+00:00")
    Path(settings.registry / "decisions" / "000001.json").write_text("{")
    list_versions(settings, None)
    table = capsys.readouterr()
    assert table.out.splitlines()[2].endswith("refused 2026-11-01")
    show_version(settings, ids[1], None)
    shown = capsys.readouterr()
    assert f"{ids[1]} refused" in shown.out
    for line in (table.err, shown.err):
        assert line.startswith("A decision is not shown: ")
        assert "000001.json: not a decision that can be read" in line
        assert line.count("\n") == 1


def test_decisions_that_cannot_be_listed_cost_the_column_and_not_the_table(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(settings.registry / "decisions").write_text("no folder")
    list_versions(settings, None)
    printed = capsys.readouterr()
    assert [row.split()[-1] for row in printed.out.splitlines()[1:4]] == ["unreadable"] * 3
    assert "decisions: cannot be listed" in printed.err
    show_version(settings, ids[0], None)
    assert "decisions: unreadable" in capsys.readouterr().out.splitlines()


def test_an_empty_registry_says_how_to_fill_it(settings: Settings) -> None:
    with pytest.raises(EddyError, match="eddy train"):
        list_versions(settings, None)


def test_a_version_is_shown_with_its_decisions_and_their_figures(
    settings: Settings, ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decide(settings, "went live", ids[1], ids[0], figures={"mrr@20": [0.1, 0.2]})
    show_version(settings, ids[1], tmp_path / "show.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", ids[1]]
    said = {" ".join(line.split()) for line in lines}
    assert {f"parent {ids[0]}", "data until 2013-02-28 14:38", "cell gru", "hidden 8", "loss 1.5"} <= said
    assert {'event types ["view", "buy"]', "events b.parquet", "mrr@20 [0.1, 0.2]"} <= said
    assert any(
        f"{ids[1]} went live (by refresh, epoch 2, live before: {ids[0]}): It is not worse." in line
        for line in lines
    )
    written = json.loads((tmp_path / "show.json").read_text())
    assert written["lineage"] == {"events": "b.parquet", "parent": ids[0]}
    assert written["decisions"][0]["figures"] == {"mrr@20": [0.1, 0.2]}
    assert read_decisions(settings.registry)[0].decided_at == written["decisions"][0]["decided_at"]


def test_of_a_version_that_is_gone_or_damaged_the_decisions_are_left(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "v000009-00000000"
    for id_, says in ((gone, "is not in the registry"), (ids[2], "version.json: unreadable")):
        with pytest.raises(EddyError, match=says):
            show_version(settings, id_, None)
        decide(settings, "refused", id_, ids[0])
        show_version(settings, id_, None)
        printed = capsys.readouterr().out
        assert says in printed
        assert f"{id_} refused" in printed


@pytest.mark.parametrize("id_", ["../elsewhere/v000001-00000000", "", "decisions", ".lock"])
def test_what_is_no_version_of_the_registry_is_not_shown(
    settings: Settings, ids: list[str], id_: str
) -> None:
    with pytest.raises(EddyError, match="is not in the registry"):
        show_version(settings, id_, None)


def test_nothing_in_a_registry_can_change_the_terminal(
    settings: Settings, ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_description(
        Path(settings.registry / ids[0]),
        lineage={"parent": HOSTILE, HOSTILE: [HOSTILE]},
        metrics={HOSTILE: {HOSTILE: HOSTILE}, "until_ms": HOSTILE},
        types=[HOSTILE],
        created=HOSTILE,
    )
    Path(settings.registry / ids[1] / "version.json").write_text(json.dumps({"format": HOSTILE}))
    decide(
        settings, "refused", ids[0], "\x1b[31m", reason="\x1b[2J", decided_by="\x9b2J", figures={"\x1b": 1}
    )
    list_versions(settings, None)
    show_version(settings, ids[0], None)
    printed = capsys.readouterr().out
    assert all(character.isprintable() for character in printed.replace("\n", ""))
    assert r"\x1b[2J" in printed
    printed.encode()
    Path(settings.registry / "decisions" / "000001.json").write_text('{"kind": "\\u001b[2J"}')
    with pytest.raises(EddyError) as refused:
        show_version(settings, ids[1], None)
    line = line_for_user(refused.value)
    assert line is not None
    assert line.isprintable()
    show_version(settings, ids[0], None)
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


def test_figures_of_a_version_of_an_earlier_commit_are_json_for_any_reader(
    settings: Settings, ids: list[str], tmp_path: Path
) -> None:
    edit_description(Path(settings.registry / ids[0]), lineage={"training": {"seconds": float("inf")}})
    show_version(settings, ids[0], tmp_path / "show.json")
    written = json.loads((tmp_path / "show.json").read_text(), parse_constant=pytest.fail)
    assert written["lineage"]["training"]["seconds"] is None


def test_text_is_cut_where_it_is_too_long_and_keeps_what_people_write() -> None:
    assert printable("Zoë 東京 🙂") == "Zoë 東京 🙂"
    assert printable("a" * 600, 10) == "aaaaaaaaa…"
    assert printable("a\nb\tc\x00\x85") == r"a\nb\tc\x00\x85"
