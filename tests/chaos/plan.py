"""How much a chaos run does, and which model versions it announces."""

from __future__ import annotations

from dataclasses import dataclass

from eddy.models.registry import Version
from eddy.models.storage import Place
from eddy.stream.records.clock import DAY_MS
from tests.support.engines import random_version


@dataclass(frozen=True)
class Plan:
    """How many events are sent, and how many faults of each kind there are."""

    events: int
    users: int
    random_kills: int
    step_kills: int
    """at each of the checkpoint's steps"""
    stalls: int
    broker_restarts: int
    moves: int
    """workers added, and as many removed, beside those that every other act brings"""
    erasures: int
    """rebalances with tombstones before, in and after them"""
    swaps: int
    """version changes, with tombstones and a kill in each; after all else, with `swap_events` in all"""
    swap_events: int
    partitions: int = 4
    seed: int = 1


FULL = Plan(
    events=240_000, users=4_000, random_kills=12, step_kills=3, stalls=2, broker_restarts=1, moves=2,
    erasures=4, swaps=5, swap_events=80_000,
)  # fmt: skip
SHORT = Plan(
    events=8_000, users=200, random_kills=1, step_kills=1, stalls=0, broker_restarts=0, moves=0,
    erasures=1, swaps=1, swap_events=3_000,
)  # fmt: skip


def announcements(registry: Place, swaps: int) -> list[list[tuple[Version, int]]]:
    """Versions with their percents of the users, one epoch after another: another cell of another size, other
    item statistics, a canary, and the canary for all. The last version counts what the first one did.
    """
    lstm = random_version(registry, "lstm", hidden=24, seed=2)
    wider = random_version(registry, seed=3, half_lives_ms=(DAY_MS, 3 * DAY_MS), successors=12)
    canary = random_version(registry, hidden=8, seed=4)
    every = [
        [(lstm, 100)],
        [(wider, 100)],
        [(wider, 80), (canary, 20)],
        [(lstm, 50), (canary, 50)],
        [(canary, 100)],
    ]
    return every[len(every) - swaps :]
