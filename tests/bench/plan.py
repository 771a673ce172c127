"""How much is measured: all of it within 70 minutes, or a short form (QUICK=1) within 9."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.growth import POINTS
from tests.bench.membership_plan import FULL_MEMBERSHIP, QUICK_MEMBERSHIP, MembershipPlan
from tests.bench.programs import PeerName
from tests.bench.throughput import EddyRun

PEERS: tuple[PeerName, ...] = ("faust_textbook", "quix_stateful", "handwritten")
LOADS = (0.25, 0.5, 0.8)
"""Shares of the measured capacity at which freshness is measured."""


@dataclass(frozen=True)
class Plan:
    """Sizes of one form of the benchmark. Times in seconds."""

    quick: bool
    total_s: float
    """nothing new is begun after it"""
    rounds: int
    rounds_s: float
    """no new round of throughput is begun after it, counted from the start"""
    warm_s: float
    seconds: float
    """of each throughput window"""
    backlog: int
    """events: more than any program does in a window"""
    eddy: tuple[EddyRun, ...]
    reduced: tuple[EddyRun, ...]
    """the same in the reduced precision that "auto", the default, takes here"""
    staged: int
    """events of the backlog that stages are measured on"""
    stages_s: float
    """no new round of stages is begun after it"""
    freshness: tuple[EddyRun, ...]
    """in the precision that "auto", the default, takes here"""
    fresh_peers: tuple[tuple[PeerName, tuple[float, ...]], ...]
    """and at which shares of their own capacity"""
    steady_s: float
    """of each load, after `warm_s`"""
    catalogues: tuple[int, ...]
    """items of the top-k comparison, beside 10,000"""
    memory_events: int
    memory_s: float
    points: tuple[tuple[int, int, int], ...]
    membership: MembershipPlan
    restored: int
    """rows restored at the end, 0 for none"""


QUICK = Plan(
    quick=True,
    total_s=460,
    rounds=3,
    rounds_s=230,
    warm_s=1.0,
    seconds=3.0,
    backlog=250_000,
    eddy=(EddyRun("cell", "every"), EddyRun("whole", "off")),
    reduced=(EddyRun("cell", "every"), EddyRun("whole", "every")),
    staged=100_000,
    stages_s=40,
    freshness=(EddyRun("whole", "every"),),
    fresh_peers=(("handwritten", (0.5,)),),
    steady_s=5.0,
    catalogues=(100_000,),
    memory_events=200_000,
    memory_s=30,
    points=(),
    membership=QUICK_MEMBERSHIP,
    restored=0,
)

FULL = Plan(
    quick=False,
    total_s=4_100,
    rounds=3,
    rounds_s=900,
    warm_s=2.0,
    seconds=8.0,
    backlog=800_000,
    eddy=(
        *(EddyRun(score, emit) for score in ("cell", "whole") for emit in ("every", "latest", "off")),
        *(EddyRun(score, "every", partitions=number) for score in ("cell", "whole") for number in (1, 2)),
        *(EddyRun(score, "every", workers=2) for score in ("cell", "whole")),
    ),
    reduced=tuple(EddyRun(score, emit) for score in ("cell", "whole") for emit in ("every", "latest")),
    staged=400_000,
    stages_s=180,
    freshness=(EddyRun("cell", "every"), EddyRun("whole", "every")),
    fresh_peers=(("faust_textbook", (0.5,)), ("quix_stateful", (0.5,)), ("handwritten", LOADS)),
    steady_s=15.0,
    catalogues=(100_000, 1_000_000),
    memory_events=5_000_000,
    memory_s=400,
    points=POINTS,
    membership=FULL_MEMBERSHIP,
    restored=200_000,
)
