"""`eddy models` on a real broker: what is announced is on record, and one can go back to a version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eddy.cli.live_models import go_back
from eddy.cli.models import list_versions
from eddy.cli.terminal import make_live
from eddy.models.decisions import read_decisions
from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.stream.kafka.versions import announce, announce_shares, live_announcement
from eddy.stream.records.settings import Settings
from eddy.stream.rollback import roll_back
from tests.support.published_versions import publish

pytestmark = pytest.mark.usefixtures("installed")


def test_what_is_announced_by_hand_is_on_record(settings: Settings) -> None:
    first, second = publish(settings, 2)
    make_live(settings, [(first, 100)])
    make_live(settings, [(first, 90), (second, 10)])  # whoever watches it records what becomes of it
    make_live(settings, [(second, 100)])
    decisions = read_decisions(settings.registry)
    assert [(each.kind, each.version, each.live, each.epoch, each.decided_by) for each in decisions] == [
        ("went live", first.id, "", 1, "announce"),
        ("went live", second.id, first.id, 3, "announce"),
    ]


# -- rollback --------------------------------------------------------------------------------------------


def test_a_rollback_leads_to_the_version_before_and_a_second_one_back(settings: Settings) -> None:
    first, second = publish(settings, 2)
    announce(settings, first)
    announce(settings, second)
    for number, (target, left) in enumerate([(first, second), (second, first), (first, second)]):
        decision = roll_back(settings)
        live = live_announcement(settings)
        assert live is not None
        assert (live.epoch, live.version, live.shares) == (3 + number, target.id, [])
        assert (decision.kind, decision.version, decision.live) == ("rolled back", target.id, left.id)
        assert (decision.epoch, decision.decided_by) == (live.epoch, "rollback")
        assert decision.figures == {"epoch_before": 2 + number, "percent_before": {left.id: 100}}
    assert [decision.epoch for decision in read_decisions(settings.registry, first.id)] == [3, 4, 5]


def test_a_rollback_ends_a_canary_and_passes_over_one_that_was_taken_back(settings: Settings) -> None:
    first, second, third = publish(settings, 3)
    announce(settings, first)
    announce(settings, second)
    announce_shares(settings, [(second, 90), (third, 10)])
    assert roll_back(settings).version == second.id
    assert roll_back(settings).version == first.id, "all users had it, as none had the canary"


def test_a_rollback_to_a_version_that_is_named(
    settings: Settings, four: list[Version], capsys: pytest.CaptureFixture[str]
) -> None:
    go_back(settings, four[1].id)
    assert capsys.readouterr().err.endswith(f"{four[1].id} is live for all users again, as epoch 5\n")
    live = live_announcement(settings)
    assert live is not None
    assert live.version == four[1].id
    with pytest.raises(EddyError, match="is live for all users already, as epoch 5"):
        roll_back(settings, four[1].id)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("missing", ["the folder", "the weights"])
def test_a_version_that_cannot_be_loaded_is_not_rolled_back_to(
    settings: Settings, four: list[Version], missing: str, named: bool
) -> None:
    target = four[2]
    if missing == "the folder":
        shutil.rmtree(target.path)
    else:
        (target.path / "model.safetensors").unlink()
    with pytest.raises(
        EddyError, match=rf"{target.id} cannot be loaded, and nothing was changed.*from a copy"
    ):
        roll_back(settings, target.id if named else None)
    live = live_announcement(settings)
    assert live is not None
    assert live.version == four[3].id
    assert read_decisions(settings.registry) == []


def test_a_rollback_without_a_version_before_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(EddyError, match="eddy announce VERSION"):
        roll_back(settings)
    announce(settings, *publish(settings, 1))
    with pytest.raises(EddyError, match="eddy models rollback VERSION"):
        roll_back(settings)
    with pytest.raises(EddyError, match=r"\.\./x cannot be loaded"):
        roll_back(settings, "../x")
    with pytest.raises(EddyError, match="does not exist"):
        roll_back(settings.replace(topic_prefix="no-installation."))


# -- list ------------------------------------------------------------------------------------------------


def test_the_table_shows_who_has_which_version(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = publish(settings, 3)
    list_versions(settings.replace(topic_prefix="no-installation."), None)  # no topic is no error here
    announce_shares(settings, [(first, 90), (third, 10)])
    list_versions(settings, tmp_path / "list.json")
    rows = json.loads((tmp_path / "list.json").read_text())["versions"]
    assert {row["version"]: row["live"] for row in rows} == {
        first.id: "90 % (epoch 1)",
        second.id: "",
        third.id: "10 % (epoch 1)",
    }
    assert "10 % (epoch 1)" in capsys.readouterr().out.splitlines()[-1]
    shutil.rmtree(third.path)
    list_versions(settings, None)
    missing = capsys.readouterr().out.splitlines()[-1]
    assert missing.startswith(f"{third.id}: live for 10 % (epoch 1), and not in the registry")


def test_a_cluster_that_does_not_answer_costs_the_column_and_not_the_table(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = publish(settings, 1)
    list_versions(settings.replace(bootstrap_servers="127.0.0.1:1"), None)
    printed = capsys.readouterr()
    header, row = printed.out.splitlines()
    assert row.startswith(version.id)
    assert "live" not in header.split()
    assert "is not known: no answer from the Kafka cluster" in printed.err
