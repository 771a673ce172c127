"""What defines a model and its training: two frozen dataclasses that travel as plain JSON.

`ModelConfig` fixes shapes and the score's parts, and is stored in every version; `TrainConfig` fixes how the
weights are found. Both check their values when they are made. Unknown keys, wrong types and impossible values
in JSON or on a command line are refused with one line.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from eddy.models.errors import EddyError

PRECISIONS = ("float32", "bfloat16")
CELLS = ("rnn", "lstm", "gru", "esn", "mingru")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

RECENT_WINDOW = 50
"""W of the stream: events of a recent window in rows, the same for all versions."""
MAX_OLDER = 511
"""Items from before the recent window that a row of the stream can name, at most."""
MAX_STATE = (1 << 16) - 1
"""Floats of a state that a row of the stream can hold, at most."""
MAX_HALF_LIVES, MAX_HALF_LIFE_MS = 32, 100 * 365 * DAY_MS
MAX_SUCCESSORS = 1024
MOST = 10**12
"""The largest whole number of a setting: no log has as much of anything. Beyond it seeds and steps do not fit
into the numbers of arrays and of random generators.
"""
MAX_WIDTH = 1 << 24
"""The largest length of a vector and number of buckets. Beyond it torch fails before it says that there is no
memory for them.
"""

_RENAMED = {
    "window": "bptt_steps (how far gradients go back in training) or recent_window (the events that a list "
    f"looks back at, {RECENT_WINDOW} in the stream)"
}
"""Settings of earlier versions, and what they are called now."""

_SET_OTHERWISE = {
    "cell": "--cell names the cell, and eddy compare trains all of them",
    "features": "training counts the features of the file that --items names",
}
"""Settings that `--set` cannot change, and what does."""

_STRICT = ConfigDict(strict=True, extra="forbid")  # "12" is no number, and true is not 1
_AtLeast1 = Annotated[int, Field(ge=1, le=MOST)]
_AtLeast0 = Annotated[int, Field(ge=0, le=MOST)]
_Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
# JSON has no infinity: a version could not say what it was trained with, and no refresh could begin from it.
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Budget = Annotated[float, Field(gt=0), BeforeValidator(lambda value: math.inf if value is None else value)]
_BelowOne = Annotated[float, Field(ge=0, lt=1)]
_HalfLife = Annotated[int, Field(ge=1, le=MAX_HALF_LIFE_MS, strict=True)]


@dataclass(frozen=True, config=_STRICT)
class _Config:
    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Errors: EddyError naming every setting that is unknown, of the wrong type, or out of range."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise EddyError(f"{cls.__name__}: {'; '.join(map(cls._reason, error.errors()))}") from None

    @classmethod
    def _reason(cls, error: Mapping[str, Any]) -> str:
        name = error["loc"][0]
        if error["type"] != "unexpected_keyword_argument":
            return f"{name} is {error['input']!r}: {error['msg']}"
        if name in _RENAMED:
            return f"{name!r} is now called {_RENAMED[name]}"
        return f"unknown setting {name!r}; known are {', '.join(field.name for field in fields(cls))}"

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            raise EddyError(f"{type(self).__name__}: {reason}")


@dataclass(frozen=True, config=_STRICT)
class ModelConfig(_Config):
    cell: str = "gru"
    hidden: _Width = 128
    """Units per layer."""
    layers: _AtLeast1 = 1
    dim: _Width = 128
    """Length of an item vector; input and output share it (tied)."""
    dropout: _BelowOne = 0.5
    """On the cell's input and output while training."""
    item_buckets: _Width = 256
    """Vectors shared by items outside the vocabulary, chosen by the item's hash."""
    features: _AtLeast0 = 0
    """Number of features of items that have a vector; training with metadata sets it."""
    time_gaps: bool = True
    """Whether the time since the last event is an input, and gates the state at query time."""
    half_lives_ms: Annotated[tuple[_HalfLife, ...], Field(max_length=MAX_HALF_LIVES, strict=False)] = (
        HOUR_MS, 6 * HOUR_MS, DAY_MS, 4 * DAY_MS, 20 * DAY_MS, 365 * DAY_MS
    )  # fmt: skip
    """Half-lives of the moving popularities in the score, ms; empty leaves popularity out."""
    recent_window: _AtLeast1 = RECENT_WINDOW
    """W: events in a user's recent window, which the pointer looks at."""
    older: _AtLeast0 = MAX_OLDER
    """O: distinct items from before the window, at most, that the pointer also knows."""
    pointer: bool = True
    """Whether the score has a pointer over the recent window."""
    transition_lags: _AtLeast0 = 10
    """L: how many of the last items vote through their counted successors; 0 leaves transitions out."""
    successors: Annotated[int, Field(ge=1, le=MAX_SUCCESSORS)] = 32
    """Successors kept per item."""
    spectral_radius: Annotated[float, Field(gt=0, lt=10)] = 0.95
    """Echo-state network only: largest absolute eigenvalue of the reservoir."""
    leak: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Echo-state network only: a in h = (1-a) h + a tanh(...)."""

    def __post_init__(self) -> None:
        self._require(self.cell in CELLS, f"no cell named {self.cell!r}; there are {', '.join(CELLS)}")
        # A full window drops its older half; what is left must hold all the items that vote.
        most = self.recent_window // 2
        self._require(
            self.transition_lags <= most, f"transition_lags must be 0 … {most}, half of recent_window"
        )
        self._require(self.cell != "esn" or self.layers == 1, "an echo-state network has one layer here")

    def require_served(self) -> None:
        """Check that the stream can serve a version with this config. The stream's rows have one form for all
        versions, which sets bounds that a model for offline experiments need not keep.

        Errors: EddyError naming the setting.
        """
        self._require(
            self.recent_window == RECENT_WINDOW,
            f"recent_window must be {RECENT_WINDOW}, as in the rows of the stream, not {self.recent_window}",
        )
        self._require(
            self.older <= MAX_OLDER, f"older must be at most {MAX_OLDER}, as in the rows of the stream"
        )
        self._require(
            self.state_size <= MAX_STATE,
            f"hidden x layers make a state of {self.state_size} floats; a row holds at most {MAX_STATE}",
        )

    @property
    def state_size(self) -> int:
        """S: floats that the cell carries for a user."""
        per_unit = {"lstm": 2 * self.layers, "mingru": self.layers + 1}
        return self.hidden * per_unit.get(self.cell, self.layers)

    @property
    def damping(self) -> int | None:
        """The index of the half-life whose popularity says how common an item is, by which transitions are
        damped: the longest. None without transitions or without popularity.
        """
        if not self.transition_lags or not self.half_lives_ms:
            return None
        return self.half_lives_ms.index(max(self.half_lives_ms))


@dataclass(frozen=True, config=_STRICT)
class TrainConfig(_Config):
    epochs: _AtLeast1 = 20
    """At most so many; early stopping usually ends sooner."""
    patience: _AtLeast1 = 3
    """Epochs without a better validation loss before training stops."""
    bptt_steps: _AtLeast1 = 32
    """T: steps through which gradients flow; the state itself is carried on (truncated BPTT)."""
    batch: _AtLeast1 = 64
    """Users side by side in a step when all have full windows; small logs are given smaller steps."""
    learning_rate: _Positive = 2e-3
    weight_decay: _NotNegative = 1e-6
    clip: _Positive = 1.0
    """Largest norm of the gradient of one step."""
    sampled: _AtLeast0 = 1024
    """Items in the sampled softmax (with logQ correction); 0 = full softmax."""
    unseen: bool = False
    """Whether items that a user already had are left out of the softmax. Where nobody repeats an item, and
    lists leave out all of the past, no weight need learn "not again". A target that is a repeat stays in.
    """
    average: _BelowOne = 0.0
    """Decay, per optimiser step, of the running average of the weights that is validated and kept (Polyak &
    Juditsky 1992; early steps count less); 0 = the last weights themselves.
    """
    ridge: _NotNegative = 0.0
    """Strength of the ridge regression that gives an echo-state network its readout in closed form, from one
    pass; 0 = by gradient, as for the other cells.
    """
    item_dropout: _BelowOne = 0.02
    """Share of inputs whose item is replaced by its hash bucket, so that buckets mean "unknown item"."""
    validation: _BelowOne = 0.1
    """Last share of the log, by time, held out: for early stopping, and to fit the gates on."""
    whole: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the peak learning rate at which the last pass, over the whole log, begins; 0 = no pass."""
    gate_epochs: _AtLeast0 = 12
    gate_events: _AtLeast1 = 8_000
    """At most so many held-out events (the last ones) fit the gates."""
    seconds: _Budget = math.inf
    """Time budget: no epoch but the first starts after it; null, as which JSON holds infinity, is none."""
    seed: _AtLeast0 = 1
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 = all cores."""
    device: str = "cpu"
    precision: str = "float32"
    """Type of the network's products in training, float32 or bfloat16 (mixed precision: weights, softmax and
    the states that are carried on stay float32).
    """

    def __post_init__(self) -> None:
        self._require(
            self.precision in PRECISIONS,
            f"no precision {self.precision!r}; there are {', '.join(PRECISIONS)}",
        )


def configs(
    cell: str, pairs: Sequence[str], base: tuple[ModelConfig, TrainConfig] | None = None
) -> tuple[ModelConfig, TrainConfig]:
    """The base, or the defaults without one, for a cell, changed by `NAME=VALUE` pairs from a command line.
    No setting of the model has the name of one of the training.

    Errors: EddyError for a pair without "=", for a setting that is unknown, impossible or not to be set by
    hand, and for a model that the stream could not serve.
    """
    of_model, of_training = ModelConfig().to_dict(), TrainConfig().to_dict()
    model: dict[str, Any] = (base[0].to_dict() if base else {}) | {"cell": cell, "features": 0}
    training: dict[str, Any] = base[1].to_dict() if base else {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise EddyError(f"--set {pair}: write NAME=VALUE, for example --set hidden=64")
        if name in _RENAMED:
            raise EddyError(f"--set {pair}: {name!r} is now called {_RENAMED[name]}")
        if name in _SET_OTHERWISE:
            raise EddyError(f"--set {pair}: {_SET_OTHERWISE[name]}")
        if name not in of_model and name not in of_training:
            names = ", ".join((*of_model, *of_training))
            raise EddyError(f"--set {pair}: unknown setting {name!r}; known are {names}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        (model if name in of_model else training)[name] = value
    config = ModelConfig.from_dict(model)
    config.require_served()
    return config, TrainConfig.from_dict(training)
