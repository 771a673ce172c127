"""The model versions of one epoch, each with its share of the users; nearly always one version for all."""

from collections.abc import Sequence
from dataclasses import dataclass

from eddy.stream.engine.live_version import LiveVersion


@dataclass(frozen=True)
class LiveShares:
    """At least one version, all of the same epoch."""

    versions: Sequence[LiveVersion]
    percents: Sequence[int]
    """[versions] of the users, which add up to 100"""

    @classmethod
    def whole(cls, live: LiveVersion) -> "LiveShares":
        """One version for all users."""
        return cls([live], [100])

    @property
    def epoch(self) -> int:
        """The epoch of all of them."""
        return self.versions[0].epoch
