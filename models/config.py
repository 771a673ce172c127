"""What defines a model and its training: two frozen dataclasses that travel as plain JSON.

`ModelConfig` fixes shapes and the score's parts, and is stored in every version; `TrainConfig` fixes how the
weights are found. Unknown keys, wrong types and impossible values are refused with one line.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from eddy.models.errors import EddyError

PRECISIONS = ("float32", "bfloat16")
CELLS = ("rnn", "lstm", "gru", "esn", "mingru")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

RECENT_WINDOW = 50
"""W of the stream: rows hold so many events, whatever version reads them."""
MAX_OLDER = 511
"""Items from before the recent window that a row of the stream can name."""
MAX_STATE = (1 << 16) - 1
"""Floats of a state that a row of the stream can hold."""
MAX_HALF_LIVES, MAX_HALF_LIFE_MS = 32, 100 * 365 * DAY_MS
MAX_SUCCESSORS = 1024


@dataclass(frozen=True)
class _Config:
    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Errors: EddyError naming the key that is unknown, of the wrong type, or out of range."""
        known = {field.name: field for field in fields(cls)}
        checked: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                raise EddyError(f"{cls.__name__}: unknown setting {key!r}; known are {', '.join(known)}")
            default = known[key].default
            number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
            if isinstance(default, tuple) and isinstance(value, list):
                value = tuple(value)  # noqa: PLW2901 (JSON has no tuples)
            if not number and type(value) is not type(default):
                raise EddyError(f"{cls.__name__}: {key} must be {type(default).__name__}, not {value!r}")
            checked[key] = float(value) if number else value
        return cls(**checked)

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise EddyError(f"{type(self).__name__}: {what}")


@dataclass(frozen=True)
class ModelConfig(_Config):
    cell: str = "gru"
    hidden: int = 128
    """Units per layer."""
    layers: int = 1
    dim: int = 128
    """Length of an item vector; input and output share it (tied)."""
    dropout: float = 0.5
    """On the cell's input and output while training."""
    item_buckets: int = 256
    """Vectors shared by items outside the vocabulary, chosen by the item's hash."""
    features: int = 0
    """Features of items that have a vector; training with metadata sets it."""
    time_gaps: bool = True
    """Whether the time since the last event is an input, and gates the state at query time."""
    half_lives_ms: tuple[int, ...] = (
        HOUR_MS, 6 * HOUR_MS, DAY_MS, 4 * DAY_MS, 20 * DAY_MS, 365 * DAY_MS
    )  # fmt: skip
    """Of the moving popularities in the score; empty leaves them out."""
    recent_window: int = RECENT_WINDOW
    """W: events in a user's recent window, which the pointer looks at."""
    older: int = MAX_OLDER
    """O: distinct items from before the window, at most, that the pointer knows beside."""
    pointer: bool = True
    """Whether the score has a pointer over the recent window."""
    transition_lags: int = 10
    """How many of the last items vote through their counted successors; 0 leaves transitions out."""
    successors: int = 32
    """Successors kept per item."""
    spectral_radius: float = 0.95
    """Echo-state network only: largest absolute eigenvalue of the reservoir."""
    leak: float = 0.5
    """Echo-state network only: a in h = (1-a) h + a tanh(...)."""

    def __post_init__(self) -> None:
        self._require(self.cell in CELLS, f"no cell named {self.cell!r}; there are {', '.join(CELLS)}")
        for name in ("hidden", "layers", "dim", "item_buckets", "recent_window", "successors"):
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1")
        self._require(self.features >= 0, "features must not be negative")
        self._require(self.older >= 0, "older must not be negative")
        self._require(0 <= self.dropout < 1, "dropout must be at least 0 and below 1")
        # A full window drops its older half; what is left must hold all the items that vote.
        most = self.recent_window // 2
        self._require(
            0 <= self.transition_lags <= most, f"transition_lags must be 0 … {most}, half of recent_window"
        )
        self._require(self.successors <= MAX_SUCCESSORS, f"successors must be at most {MAX_SUCCESSORS}")
        self._require(
            len(self.half_lives_ms) <= MAX_HALF_LIVES
            and all(type(life) is int and 0 < life <= MAX_HALF_LIFE_MS for life in self.half_lives_ms),
            f"half_lives_ms must be at most {MAX_HALF_LIVES} whole numbers from 1 to {MAX_HALF_LIFE_MS}",
        )
        self._require(0 < self.leak <= 1, "leak must be above 0 and at most 1")
        self._require(0 < self.spectral_radius < 10, "spectral_radius must be above 0 and below 10")
        self._require(self.cell != "esn" or self.layers == 1, "an echo-state network has one layer here")

    def require_served(self) -> None:
        """Check that the stream can serve a version with this config: its rows are the same for all versions,
        so they set bounds that a model for offline experiments need not keep.

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
        """Which of the half-lives says how common an item is, by which transitions are damped: the longest;
        None without transitions or without popularity.
        """
        if not self.transition_lags or not self.half_lives_ms:
            return None
        return self.half_lives_ms.index(max(self.half_lives_ms))


@dataclass(frozen=True)
class TrainConfig(_Config):
    epochs: int = 20
    """At most; early stopping usually ends sooner."""
    patience: int = 3
    """Epochs without a better validation loss before training stops."""
    bptt_steps: int = 32
    """T: steps through which gradients flow; the state itself is carried on (truncated BPTT)."""
    batch: int = 64
    """Users side by side in a step, if all have full windows; small logs are given smaller steps."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-6
    clip: float = 1.0
    """Largest norm of the gradient of one step."""
    sampled: int = 1024
    """Items in the sampled softmax (with logQ correction); 0 = full softmax."""
    unseen: bool = False
    """Whether what a user already had is left out of the softmax: where nobody repeats an item, and lists
    leave out all of the past, no weight need learn "not again". A target that does come again stays in.
    """
    average: float = 0.0
    """Decay, per optimiser step, of the running average of the weights that is validated and kept (Polyak &
    Juditsky 1992; early steps count less); 0 = the last weights themselves.
    """
    ridge: float = 0.0
    """Strength of the ridge regression that gives an echo-state network its readout in closed form, from one
    pass; 0 = by gradient, as for the other cells.
    """
    item_dropout: float = 0.02
    """Share of inputs whose item is replaced by its hash bucket, so that buckets mean "unknown item"."""
    validation: float = 0.1
    """Last share of the log, by time, held out: for early stopping, and to fit the gates on."""
    whole: float = 0.5
    """Share of the peak learning rate at which the last pass, over the whole log, begins; 0 = no pass."""
    gate_epochs: int = 12
    gate_events: int = 8_000
    """At most so many held-out events (the last ones) fit the gates."""
    seconds: float = math.inf
    """Time budget: no epoch starts after it."""
    seed: int = 1
    threads: int = 0
    """CPU threads; 0 = all cores."""
    device: str = "cpu"
    precision: str = "float32"
    """Of the network's products while training, float32 or bfloat16 (mixed: weights, softmax and the states
    that are carried on stay float32).
    """

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "bptt_steps", "batch", "gate_events"):
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("weight_decay", "ridge", "sampled", "threads", "gate_epochs", "seed"):
            self._require(getattr(self, name) >= 0, f"{name} must not be negative")
        self._require(
            self.precision in PRECISIONS,
            f"no precision {self.precision!r}; there are {', '.join(PRECISIONS)}",
        )
        for name in ("learning_rate", "clip", "seconds"):
            self._require(getattr(self, name) > 0, f"{name} must be above 0")
        for name in ("item_dropout", "validation", "average"):
            self._require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1")
        self._require(0 <= self.whole <= 1, "whole must be 0 … 1")


def configs(cell: str, pairs: Sequence[str]) -> tuple[ModelConfig, TrainConfig]:
    """The defaults for a cell, with `NAME=VALUE` pairs from a command line in them; no name is both of the
    model and of the training.

    Errors: EddyError for a pair that is none, for what cannot be set so, and for a model that the stream
    could not serve.
    """
    of_model, of_training = ModelConfig().to_dict(), TrainConfig().to_dict()
    model: dict[str, Any] = {"cell": cell}
    training: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise EddyError(f"--set {pair}: write NAME=VALUE, for example --set hidden=64")
        if name == "window":
            raise EddyError(
                f"--set {pair}: which window? bptt_steps is how far gradients go back in training; "
                f"recent_window, the events that a list looks back at, is {RECENT_WINDOW} in the stream"
            )
        if name not in of_model and name not in of_training:
            known = ", ".join((*of_model, *of_training))
            raise EddyError(f"--set {pair}: unknown setting {name!r}; known are {known}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        (model if name in of_model else training)[name] = value
    config = ModelConfig.from_dict(model)
    config.require_served()
    return config, TrainConfig.from_dict(training)
