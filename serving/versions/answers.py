"""What callers are told of versions."""

from dataclasses import dataclass
from typing import Any

from eddy.serving.live.answers import LiveRanks


@dataclass(frozen=True, slots=True)
class DecisionAbout:
    """The last decision about a version."""

    kind: str
    """went live, refused, canary began, promoted, taken back, rolled back, or overtaken"""
    live: bool
    """whether it made the version the live one"""
    reason: str
    decided_by: str
    """the command"""
    decided_at: int | None
    """ms since 1970"""
    epoch: int | None
    metric: str | None
    """that decided; null where no figures did"""
    difference: float | None
    """of the metric: the version's less that of the live one"""
    interval: tuple[float, float] | None
    figures: dict[str, Any]
    """all that the decision rests on"""


@dataclass(frozen=True, slots=True)
class Difference:
    """How a version does live beside the one with the greatest share."""

    metric: str
    mean: float
    interval: tuple[float, float]
    """95 %"""


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version of the registry, or one that was announced. What cannot be read is null, and `problem` says
    why.
    """

    id: str
    parent: str | None
    made: int | None
    """ms since 1970"""
    cell: str | None
    hidden: int | None
    items: int | None
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    decision: DecisionAbout | None
    share: float
    """of the users, 0 … 1, by the newest announcement"""
    epoch: int | None
    """of the newest announcement that names it"""
    loaded: bool
    """whether this server can answer with it"""
    problem: str | None
    live: LiveRanks | None
    """since that epoch began, as far as `metrics` reaches back"""
    difference_to_first: Difference | None
    """of a canary to the version with the greatest share"""


@dataclass(frozen=True, slots=True)
class Versions:
    """The newest versions first."""

    epoch: int | None
    """the newest; null before the first announcement"""
    shares: dict[str, float]
    """by the newest announcement, 0 … 1"""
    versions: list[VersionInfo]
    problems: list[str]
    """why the registry, or records of decisions in it, cannot be read"""


@dataclass(frozen=True, slots=True)
class Announced:
    """An announcement: workers and servers move to it within seconds."""

    epoch: int
