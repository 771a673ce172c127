"""What the registry's folder says of versions and decisions, read again when somebody asks after a while."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from eddy.models.decisions import Decision, read_decisions
from eddy.models.descriptions import Description, describe, versions
from eddy.models.errors import EddyError
from eddy.models.storage import Location
from eddy.serving.pace import Pace

MAX_SHOWN = 100
"""Versions that are described, the newest ones."""

SHARE, LEAST_PERIOD_S = 0.05, 2.0
"""Reading takes at most this share of the time, and happens at most so often."""


@dataclass(frozen=True)
class RegistryContents:
    """What was read."""

    described: Mapping[str, Description | str] = field(default_factory=dict)
    """by version, oldest first: what it says of itself, or why that cannot be read"""
    decisions: Sequence[Decision] = ()
    problem: str | None = None
    """why the registry cannot be read"""
    unreadable: Sequence[str] = ()
    """why its decisions, or some of their records, cannot be read"""

    def last_decision(self, version: str) -> Decision | None:
        """The last decision about a version."""
        return next((each for each in reversed(self.decisions) if each.version == version), None)


class RegistryReader:
    """Reads the registry on a thread, for all who ask meanwhile together."""

    def __init__(self, registry: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry, self._clock = registry, clock
        self._contents = RegistryContents()
        self._pace = Pace(SHARE, LEAST_PERIOD_S, clock)
        self._lock = asyncio.Lock()
        self._known: dict[str, Description] = {}

    async def contents(self) -> RegistryContents:
        """What the registry says, a few seconds old at most where it is near."""
        async with self._lock:
            if self._pace.is_due():
                began = self._clock()
                self._contents = await asyncio.to_thread(self._read)
                self._pace.took(self._clock() - began)
            return self._contents

    def forget(self) -> None:
        """Read again for whoever asks next."""
        self._pace.hurry()

    def _read(self) -> RegistryContents:
        try:
            ids = versions(self._registry)[-MAX_SHOWN:]
        except EddyError as error:
            return RegistryContents(problem=str(error))
        decisions: Sequence[Decision] = ()
        unreadable: list[EddyError] = []
        try:
            decisions = read_decisions(self._registry, on_unreadable=unreadable.append)
        except EddyError as error:
            unreadable.append(error)
        described: dict[str, Description | str] = {id_: self._describe(id_) for id_ in ids}
        self._known = {id_: about for id_, about in described.items() if isinstance(about, Description)}
        return RegistryContents(described, decisions, unreadable=[str(error) for error in unreadable])

    def _describe(self, id_: str) -> Description | str:
        """Versions never change, so that each is read once."""
        if id_ in self._known:
            return self._known[id_]
        try:
            return describe(self._registry / id_)
        except EddyError as error:
            return str(error)


def milliseconds(moment: str) -> int | None:
    """A moment in ISO 8601 as ms since 1970; None where it is none."""
    try:
        return round(datetime.fromisoformat(moment).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


__all__ = ["MAX_SHOWN", "RegistryContents", "RegistryReader", "milliseconds"]
