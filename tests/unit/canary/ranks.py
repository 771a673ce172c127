"""Ranks as workers would tell of them, of versions that are as good as a test says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eddy.stream.records.rank_counts import RankedBy, Told
from eddy.stream.records.schema import GROUPS, Announcement, Share

LIVE, CANARY, OTHER = (f"v00000{number}-00000000" for number in (1, 2, 3))
BEGAN_MS = 1_700_000_000_000
EPOCH = 7


def announced(*percents: int, epoch: int = EPOCH) -> Announcement:
    """Shares of the live version, the canary, and perhaps another one."""
    pairs = zip((LIVE, CANARY, OTHER), percents, strict=False)
    shares = [Share(version, f"registry/{version}", percent) for version, percent in pairs]
    return Announcement(
        epoch, shares[0].version, shares[0].folder, BEGAN_MS, shares if len(shares) > 1 else []
    )


def table(rng: np.random.Generator, events: int, quality: float) -> NDArray[np.float64]:
    """The sums of about so many events, of which a version finds this share; popularity finds a fifth."""
    counted = rng.poisson(events / GROUPS, GROUPS)
    found, by_popularity = rng.binomial(counted, quality), rng.binomial(counted, 0.2)
    return np.array([counted, found, found / 3, by_popularity, by_popularity / 3], np.float64)


def told(seed: int, events: int = 2_000, epoch: int = EPOCH, **quality: float) -> list[Told]:
    """Ten records of one worker, of so many events altogether, half of them of the live version. quality: by
    `live`, `canary` and `other`.
    """
    rng = np.random.default_rng(seed)
    names = {"live": LIVE, "canary": CANARY, "other": OTHER}
    return [
        Told(
            f"{seed:032x}",
            interval,
            {
                RankedBy(epoch, names[name]): table(rng, events // 10 // len(quality), share)
                for name, share in quality.items()
            },
        )
        for interval in range(10)
    ]
