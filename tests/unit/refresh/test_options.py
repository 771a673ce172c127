"""What a refresh trains: the live version's settings, changed by what the user says."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError, WrongOption
from eddy.models.registry import Version
from eddy.refresh.options import WARM_EPOCHS, RefreshOptions, gate_rule, metric_of, recipe_of
from tests.support.engines import random_version

pytestmark = pytest.mark.unit

LIVE = {"training": TrainConfig(learning_rate=0.5, threads=1).to_dict()}


def live(folder: Path, lineage: dict[str, Any] | None = None) -> Version:
    return replace(random_version(folder, hidden=24), lineage=LIVE if lineage is None else lineage)


def test_without_a_word_all_is_as_in_the_live_version(tmp_path: Path) -> None:
    version = live(tmp_path)
    recipe = recipe_of(RefreshOptions(), version)
    assert recipe.config == version.recommender.config
    assert recipe.training == TrainConfig(learning_rate=0.5, threads=1)
    assert recipe.warm
    # A warm start takes fewer epochs, but the version it makes does not hand that down.
    assert recipe.of_this_run == replace(recipe.training, epochs=WARM_EPOCHS)


def test_an_assignment_changes_one_setting_and_keeps_the_others(tmp_path: Path) -> None:
    recipe = recipe_of(RefreshOptions(assignments=("clip=0.25",)), live(tmp_path))
    assert recipe.training == TrainConfig(learning_rate=0.5, threads=1, clip=0.25)
    assert recipe.warm


@pytest.mark.parametrize(
    "options",
    [
        RefreshOptions(assignments=("hidden=8",)),
        RefreshOptions(cell="lstm"),
        RefreshOptions(from_scratch=True),
        RefreshOptions(cell="esn", assignments=("ridge=1.0",)),
    ],
)
def test_another_model_is_trained_from_scratch(tmp_path: Path, options: RefreshOptions) -> None:
    recipe = recipe_of(options, live(tmp_path))
    assert not recipe.warm
    assert recipe.of_this_run == recipe.training


def test_another_cell_begins_with_the_defaults(tmp_path: Path) -> None:
    recipe = recipe_of(RefreshOptions(cell="lstm"), live(tmp_path))
    assert recipe.config == ModelConfig(cell="lstm")
    assert recipe.training == TrainConfig()


@pytest.mark.parametrize("lineage", [{}, {"training": "fast"}, {"training": {"of_an_older_release": 1}}])
def test_a_lineage_that_tells_no_settings_means_the_defaults(tmp_path: Path, lineage: dict[str, Any]) -> None:
    assert recipe_of(RefreshOptions(), live(tmp_path, lineage)).training == TrainConfig()


def test_settings_that_cannot_be_used_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    version = live(tmp_path, {"training": asdict(TrainConfig()) | {"clip": None}})
    assert recipe_of(RefreshOptions(), version).training == TrainConfig()
    (line,) = caplog.messages
    assert version.id in line
    assert "clip" in line


def test_without_a_live_version_the_defaults_are_trained_from_scratch() -> None:
    recipe = recipe_of(RefreshOptions(), None)
    assert (recipe.config, recipe.training, recipe.warm) == (ModelConfig(), TrainConfig(), False)


def test_options_that_lead_elsewhere_have_another_identity() -> None:
    options = RefreshOptions()
    assert options.identity == RefreshOptions().identity
    others = [
        replace(options, gate="better"), replace(options, events=Path("log")),
        replace(options, assignments=("clip=1.0",)), replace(options, candidate="v000001-1a2b3c4d"),
    ]  # fmt: skip
    assert len({each.identity for each in (options, *others)}) == 5


def test_wrong_words_are_refused_with_the_right_ones() -> None:
    with pytest.raises(EddyError, match="not-worse or better"):
        gate_rule("best")
    with pytest.raises(EddyError, match="recall@20"):
        metric_of("accuracy")


@pytest.mark.parametrize("assignment", ["hiden=8", "hidden=none", "hidden", "window=20"])
def test_a_setting_that_cannot_be_is_a_wrong_option_which_no_repetition_mends(assignment: str) -> None:
    with pytest.raises(WrongOption, match=r"--set|hidden"):
        recipe_of(RefreshOptions(assignments=(assignment,)), None)
