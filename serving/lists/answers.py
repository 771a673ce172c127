"""What callers are told."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recommended:
    """An item of a list."""

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Mover:
    """An event of the recent window that has made an item more likely."""

    item_id: str
    timestamp: int
    because: Literal["same_item", "often_follows", "hidden_state"]
    """it was the same item, the item often follows that of the event, or the hidden state would be another
    one without the event
    """
    share: float
    """of the item's likelihood: what it owes to the event, and would lose without it"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item has its score. Shares of its likelihood add up to 1: what the hidden state and popularity
    give together, what transitions from the last items give, and what the user's own items give. The parts of
    the first share are on the scale of the score, which is logarithmic.
    """

    state: float
    """hidden state · item vector, and the item's bias"""
    popularity: float
    """moving popularities by the user's gates"""
    state_and_popularity_share: float
    transitions_share: float
    own_items_share: float
    moved_by: list[Mover]
    """events of the recent window, those that count most first"""


@dataclass(frozen=True, slots=True)
class Explained(Recommended):
    """An item of a list with the reason for its place."""

    reason: Literal["score", "pinned", "explored"] = "score"
    adjusted_by: float = 0.0
    """what boosts and rules added to the score: the logarithm of their factors"""
    rules: list[str] = field(default_factory=list)
    """names of the rules that concern the item"""
    explanation: Explanation | None = None
    """null where there is no hidden state"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A list, best first. If `known` is false, there is no row of the user: the items are those that are
    popular now, scored by their decayed counts, and the fields that name a row or a model are null. A session
    whose events could be used is known, by its own state; only the fields of a row are null.
    """

    user_id: str | None
    """null for a session"""
    known: bool
    items: list[Recommended | Explained]
    stream_time: int
    """the stream's now, ms, as of which popularity decays and idle time counts; -1 before the first event"""
    epoch: int | None = None
    version: str | None = None
    partition: int | None = None
    offset: int | None = None
    """with `partition`: the last record of `events` that the user's row includes"""
    state_age_ms: int | None = None
    """from the row's last event until `stream_time`"""
    includes: bool | None = None
    """whether the record that `wait_for` names is included; null without it"""
    hints: list[str] = field(default_factory=list)
    """what in the question may be a mistake: names that no item has, events that could not be used"""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of the caller's own candidates."""

    item_id: str
    score: float | None
    """null: it is not ranked"""
    title: str | None = None
    unranked: Literal["unknown", "left_out"] | None = None
    """no record has named the item; or it is withdrawn, disliked by the user, or not available now"""


@dataclass(frozen=True, slots=True)
class Ranking(Answer):
    """All candidates, best first; those without a score come last, in the caller's order."""

    items: list[Ranked]  # type: ignore[assignment]
