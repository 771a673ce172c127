"""Users who walk round a circle of items, each with a step of their own: a recurrent state tells the step
after two events.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eddy.models.logs.events import Events

TRAINING = (
    "hidden=16", "dim=16", "dropout=0", "epochs=3", "gate_epochs=2", "gate_events=200", "sampled=0",
    "learning_rate=0.02", "threads=1", "half_lives_ms=[3600000,86400000]",
)  # fmt: skip
"""Settings (`--set`) by which a version learns the walks of 60 users in seconds."""

ITEMS = 24
START_MS = 1_700_000_000_000
PERIOD_MS = 60_000
"""Between two events of the log."""


def walks(
    users: int, rounds: int, steps: tuple[int, ...] = (1, 5, 7), first_round: int = 0, seed: int = 1
) -> Events:
    """Every user makes an event in each round. Logs that follow each other have the same users, which go on
    walking, and begin at a later round.
    """
    rng = np.random.default_rng((seed, first_round))
    user = np.concatenate([rng.permutation(users) for _ in range(rounds)])
    place = np.repeat(np.arange(first_round, first_round + rounds), users)
    step = np.asarray(steps)[user % len(steps)]
    item = (user * 11 + step * place) % ITEMS
    n = len(user)
    return Events(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        timestamp=START_MS + (first_round * users + np.arange(n)) * PERIOD_MS,
        type=np.zeros(n, np.int32),
        value=np.full(n, np.nan, np.float32),
        users=[f"u{number}" for number in range(users)],
        items=[f"i{number}" for number in range(ITEMS)],
        types=["view"],
        source="walks",
    )


def in_a_row(first: Events, second: Events) -> Events:
    """One log of two that follow each other, with the same users and items."""
    both = np.concatenate
    return replace(
        first,
        user=both([first.user, second.user]),
        item=both([first.item, second.item]),
        timestamp=both([first.timestamp, second.timestamp]),
        type=both([first.type, second.type]),
        value=both([first.value, second.value]),
    )
