"""Loads the version that the newest announcement names, again and again until it succeeds. Meanwhile the
version before stays live, and rows of the newer epoch have to wait (see `waiting_for`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from eddy.models.errors import EddyError
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.records.schema import Announcement

log = logging.getLogger("eddy.worker")

RETRY_S = 5.0
"""The time between two attempts to load a version."""


class AnnouncedVersion:
    """Takes announcements, and calls `on_loaded` with the version of each newer epoch that it has loaded."""

    def __init__(
        self, load: Callable[[Announcement], Awaitable[LiveShares]], retry_s: float = RETRY_S
    ) -> None:
        self.announced: Announcement | None = None
        self.loaded: LiveShares | None = None
        """the versions of the newest epoch that was loaded"""
        self.problem = ""
        """why the announced version is not loaded, empty when it is"""
        self.on_loaded: Callable[[LiveShares], Awaitable[None]] | None = None
        self._load = load
        self._retry_s = retry_s
        self._wanted = asyncio.Event()
        self._loading = asyncio.Lock()
        self._moved = asyncio.Condition()

    @property
    def epoch(self) -> int | None:
        """The newest epoch that was loaded."""
        return None if self.loaded is None else self.loaded.epoch

    async def take(self, announcements: Iterable[Announcement]) -> None:
        """Have the version of the newest announcement loaded, if it is newer than those before: by
        `keep_trying`, beside the caller, or at once while no version is live yet. If it cannot be loaded
        then, load the newest earlier one that can be. Errors: EddyError when none can.
        """
        by_epoch = {each.epoch: each for each in announcements}
        newest_first = [by_epoch[epoch] for epoch in sorted(by_epoch, reverse=True)]
        if newest_first and (self.announced is None or newest_first[0].epoch > self.announced.epoch):
            self.announced, self.problem = newest_first[0], ""
            if self.loaded is None:
                await self._try(newest_first[1:])
            else:
                self._wanted.set()

    async def keep_trying(self) -> None:
        """Until cancelled, load the announced version, trying again and again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._try()

    async def reached(self, epoch: int) -> None:
        """Wait until this epoch or a newer one is loaded."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.epoch is not None and self.epoch >= epoch)

    def waiting_for(self, epoch: int, registry: object) -> str:
        """Why rows of this epoch have to wait, and what the user can do about it."""
        if self.announced is None or self.announced.epoch < epoch:
            return (
                f"no announcement on model-versions reaches epoch {epoch}: was that topic made anew? "
                f"Repeat `eddy announce VERSION` until it says epoch {epoch}"
            )
        name = f"epoch {self.announced.epoch}, version {self.announced.version}"
        if not self.problem:
            return f"{name}, is being made ready"
        return (
            f"{name}, cannot be loaded: {self.problem}; put its folder into EDDY_REGISTRY ({registry}), and "
            "it is loaded within seconds"
        )

    async def _try(self, older: Sequence[Announcement] = ()) -> None:
        async with self._loading:
            announcement = self.announced
            if announcement is None or announcement.epoch == self.epoch:
                return
            try:
                live = await self._load(announcement)
            except EddyError as error:
                if self.loaded is None and not await self._fall_back(older):
                    raise
                if self.problem != str(error):
                    self.problem = str(error)
                    log.error(
                        "epoch %d, version %s, is not taken, the version before stays live: %s",
                        announcement.epoch,
                        announcement.version,
                        error,
                    )
                return
            await self._go_live(live)
            self.problem = ""

    async def _fall_back(self, older: Sequence[Announcement]) -> bool:
        """Whether one of these versions could be loaded; they are tried in this order."""
        for announcement in older:
            with suppress(EddyError):
                await self._go_live(await self._load(announcement))
                return True
        return False

    async def _go_live(self, live: LiveShares) -> None:
        if self.on_loaded is not None:
            await self.on_loaded(live)
        async with self._moved:
            self.loaded = live
            self._moved.notify_all()
