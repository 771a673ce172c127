"""Settings of a model and of its training: what they accept, and what a refusal says."""

import json
import math

import pytest

from eddy.models.config import DAY_MS, ModelConfig, TrainConfig, configs
from eddy.models.errors import EddyError
from eddy.models.plain_json import lines_of_json
from tests.support.training import FAST

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "values", [{"cell": "transformer"}, {"hidden": 0}, {"hidden": "12"}, {"dropout": 1.0}, {"nope": 1}]
)
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(EddyError, match=next(iter(values))):
        ModelConfig.from_dict(values)


def test_settings_of_a_command_line_go_to_the_model_or_to_its_training() -> None:
    model, training = configs("lstm", ["hidden=32", "older=20", "bptt_steps=7", "device=cuda", "clip=2"])
    assert (model.cell, model.hidden, model.older) == ("lstm", 32, 20)
    assert (training.bptt_steps, training.device, training.clip) == (7, "cuda", 2.0)
    with pytest.raises(EddyError, match="unknown setting 'hiden'"):
        configs("gru", ["hiden=3"])
    with pytest.raises(EddyError, match=r"features=3: training counts .* --items"):
        configs("gru", ["features=3"])
    with pytest.raises(EddyError, match="cell=lstm: --cell names the cell"):
        configs("gru", ["cell=lstm"])


def test_a_setting_that_was_renamed_is_refused_with_its_new_name() -> None:
    for config, old in ((ModelConfig, {"window": 50}), (TrainConfig, {"window": 32})):
        with pytest.raises(EddyError, match=r"'window' is now called bptt_steps .* recent_window"):
            config.from_dict(old)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"hidden": 0}, "hidden is 0: .* greater than or equal to 1"),
        ({"hidden": True}, "hidden is True: .* integer"),
        ({"dropout": math.nan}, "dropout is nan: .* less than 1"),
        ({"half_lives_ms": [1, 0]}, "half_lives_ms is 0: .* greater than or equal to 1"),
        ({"half_lives_ms": [1.5]}, "half_lives_ms is 1.5: .* integer"),
        ({"dim": 0, "leak": 2.0}, "dim is 0: .*; leak is 2.0: .* less than or equal to 1"),
    ],
)
def test_a_refusal_names_the_setting_its_value_and_what_is_allowed(
    values: dict[str, object], reason: str
) -> None:
    with pytest.raises(EddyError, match=f"ModelConfig: {reason}"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clip", "ridge"])
def test_a_setting_that_json_has_no_number_for_is_refused(name: str) -> None:
    """It would be null in the version, and no refresh could read the settings of the live version again."""
    for value in ("Infinity", "1e400", "NaN"):
        with pytest.raises(EddyError, match=f"TrainConfig: {name} is (inf|nan): .* finite number"):
            configs("gru", [f"{name}={value}"])


@pytest.mark.parametrize("name", ["seed", "epochs", "bptt_steps", "batch", "item_buckets", "dim"])
def test_a_number_that_torch_and_numpy_have_no_room_for_is_refused(name: str) -> None:
    with pytest.raises(EddyError, match=f"{name} is 18446744073709551615: .* less than or equal to"):
        configs("gru", [f"{name}={2**64 - 1}"])


def test_configs_travel_as_json() -> None:
    config = ModelConfig(hidden=32, half_lives_ms=(DAY_MS,), spectral_radius=1.0)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainConfig.from_dict(json.loads(json.dumps(FAST.to_dict()))) == FAST


def test_no_budget_of_time_travels_as_null_which_json_has_for_infinity() -> None:
    stored = json.loads(lines_of_json(TrainConfig().to_dict()), parse_constant=pytest.fail)
    assert stored["seconds"] is None
    assert TrainConfig.from_dict(stored) == TrainConfig()
    # Versions of earlier commits name it as Python does, and JSON does not.
    assert TrainConfig.from_dict(json.loads('{"seconds": Infinity}')) == TrainConfig()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(EddyError, match="precision"):
        TrainConfig(precision="float8")
