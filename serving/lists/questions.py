"""What callers ask for."""

from dataclasses import dataclass

from eddy.serving.catalogue.adjustments import Boost
from eddy.serving.catalogue.filters import Filter

MAX_K = 1000

MAX_DIVERSE = 200
"""The longest list that may be made diverse: its cost grows with the square of its length."""


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What somebody without a row has done."""

    item_id: str
    event_type: str
    timestamp: int | None
    """ms since 1970; None = just now"""
    value: float | None


@dataclass(frozen=True)
class Question:
    """What a caller wants to know."""

    user_id: str
    k: int = 20
    exclude_seen: bool = False
    """leave out the items of the user's recent window and their older items"""
    exclude: tuple[str, ...] = ()
    """item ids to leave out; ids of unknown items are ignored"""
    where: Filter = ()
    """conditions that all items must fulfil"""
    boosts: tuple[Boost, ...] = ()
    """items that count as so many times as likely"""
    explain: bool = False
    """say why each item is in its place"""
    explore: float | None = None
    """the share of the list that is given to items with few events; None: a tenth for unknown users"""
    diversity: float = 0.0
    """0 … 1, how much it counts that an item is unlike those above it"""
    max_per_category: int | None = None
    session: tuple[SessionEvent, ...] | None = None
    """the events of somebody without a row, instead of the user's"""
    candidates: tuple[str, ...] | None = None
    """rank these items, all of them, instead of making a list"""
