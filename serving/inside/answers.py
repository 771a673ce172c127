"""What callers are told of hidden states."""

from dataclasses import dataclass

from eddy.serving.lists.answers import Explained, Recommended


@dataclass(frozen=True, slots=True)
class Step:
    """An event that the cell has read."""

    item_id: str | None
    title: str | None
    event_type: str | None
    timestamp: int
    gap_ms: int | None
    """since the event before; null for the first"""


Listed = list[Recommended | Explained]


@dataclass(frozen=True, slots=True)
class Trace:
    """A user's hidden state through the recent window, by T events and H units of the last layer."""

    user_id: str
    version: str
    cell: str
    layers: int
    hidden: int
    steps: list[Step]
    """[T]"""
    states: list[list[float]]
    """[T + 1, H]: at the anchor, and after each event"""
    gates: dict[str, list[list[float]]]
    """the cell's own gates by name, [T, H] each; empty where the cell has none"""
    kept: list[float]
    """[T] mean share of the state before the event that is kept"""
    overwritten: list[float]
    """[T] mean share of the state that is written anew"""
    horizon: list[float]
    """[H] number of events after which what a unit holds counts half, at most MAX_HORIZON"""
    list: Listed
    """the list that the version gives after the last event, explained"""


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How far back a version's state depends on itself, measured on the windows of stored users."""

    version: str
    cell: str
    hidden: int
    layers: int
    users: int
    """whose windows were measured"""
    window: int
    """events in the longest of them"""
    gradient_flow: list[float]
    """[lags] ‖∂h_t/∂h_{t-lag}‖ by its value at lag 0, lags 1 …"""
    horizon: list[float]
    """[H], as in a trace, mean over the users"""
    spectral_radius: float | None
    """of the recurrent matrix, where the cell has one"""
