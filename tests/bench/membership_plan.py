"""How much of the section "membership" is measured in the full and in the short form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["rebalances", "swaps", "partitions"]
Change = Literal["joins", "leaves", "is killed", "is restarted", "is restarted, stable name"]
HIDDEN, OTHER_HIDDEN = 128, 96


@dataclass(frozen=True)
class RebalancePlan:
    """Sizes of one form."""

    rows: int
    changes: tuple[Change, ...]
    """one after another, on two workers at first, of which one has a stable name"""
    partitions: int = 12
    rate: float = 500.0
    """events per second"""
    limit_s: float = 180.0
    """for each change"""


@dataclass(frozen=True)
class SwapPlan:
    """Sizes of one form."""

    points: tuple[tuple[int, int], ...]
    """(rows, items)"""
    hidden: tuple[int, ...] = (HIDDEN, OTHER_HIDDEN)
    """sizes of the versions that are announced, one after another"""
    limit_s: float = 180.0
    """for each swap; rows per second are then those of the part that was done"""


@dataclass(frozen=True)
class MembershipPlan:
    """Sizes of one form."""

    rebalances: RebalancePlan
    swaps: SwapPlan
    ready_s: float
    """for 100 partitions on one worker, then for another one to take its share"""
    parts: tuple[Part, ...] = get_args(Part)


FULL_MEMBERSHIP = MembershipPlan(
    RebalancePlan(
        1_000_000,
        ("joins", "leaves", "is restarted, stable name", "is restarted", "joins", "is killed"),
    ),
    SwapPlan(((100_000, 10_000), (100_000, 200_000), (1_000_000, 10_000), (1_000_000, 200_000))),
    ready_s=150.0,
)
QUICK_MEMBERSHIP = MembershipPlan(
    RebalancePlan(50_000, ("joins", "leaves"), limit_s=90.0),
    SwapPlan(((20_000, 10_000),), hidden=(128,), limit_s=20.0),
    ready_s=30.0,
    parts=("rebalances", "swaps"),
)
