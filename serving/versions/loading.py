"""Keeps the versions that are announced, and puts those that rows need into the view.

They are read and built on a thread of their own, while questions are answered; they go live by the exchange
of a pointer. A version that cannot be used is tried again and again, and the view goes on with what it has.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.models.storage import Place
from eddy.serving.metrics import ServerMetrics
from eddy.serving.view import MaterialisedView, VersionAt
from eddy.serving.view_owner import ViewOwner
from eddy.serving.warm_up import warm_up
from eddy.stream.engine.numbering import numbering_steps
from eddy.stream.kafka.reader import Records
from eddy.stream.kafka.versions import decode_announcement, open_version
from eddy.stream.records.schema import Share

log = logging.getLogger("eddy.serving")
T = TypeVar("T")


class VersionLoader:
    """See the module. It is used from the event loop."""

    def __init__(
        self,
        view: MaterialisedView,
        owner: ViewOwner,
        registry: Place,
        metrics: ServerMetrics,
        retry_s: float,
    ) -> None:
        """retry_s: the time between two attempts to read a version's files."""
        self._view, self._owner, self._registry = view, owner, registry
        self._metrics, self._retry_s = metrics, retry_s
        self._builds = ThreadPoolExecutor(1, "eddy-versions", torch.set_num_threads, (1,))
        self._look = asyncio.Event()
        self.announced: dict[VersionAt, Share] = {}
        self.live: set[VersionAt] = set()
        """the versions of the newest announcement"""
        self.failed: dict[VersionAt, str] = {}
        """why versions cannot be used"""
        self.first = asyncio.Event()
        """set when a version can score"""

    @property
    def stuck(self) -> str | None:
        """Why no version will score unless somebody does something; None where one can, or may soon.
        Announcements must have been read to their end.
        """
        if self.first.is_set() or not self.live <= self.failed.keys():
            return None
        return "; ".join(self.waits_for())

    def waits_for(self) -> list[str]:
        """Why no version can score yet, a line for each reason."""
        if self.failed:
            return list(self.failed.values())
        if not self.live:
            return ["no model version is announced yet; make one with: eddy train --announce"]
        return [
            f"version {self.announced[at].version} of epoch {at.epoch} is being made ready"
            for at in sorted(self.live)
        ]

    def take_announcements(self, records: Records) -> list[str]:
        """Take records of `model-versions`; returns a line for each that cannot be read."""
        unreadable = []
        for record in records:
            if record.value is None:
                continue
            try:
                announcement = decode_announcement(record.value)
            except EddyError as error:
                unreadable.append(str(error))
                continue
            self.announced |= {
                VersionAt.of(share.version, announcement.epoch): share for share in announcement.every_share
            }
            newest = max(at.epoch for at in self.announced)
            self.live = {at for at in self.announced if at.epoch == newest}
        self._look.set()
        return unreadable

    def rows_came(self, missing: set[VersionAt]) -> None:
        """Rows name these versions, which cannot score yet."""
        if missing - self.failed.keys():
            self._look.set()

    async def run(self) -> None:
        """Load what is missing, for ever."""
        while True:
            missing = await self._owner.do(lambda: self._view.without_model(self.live))
            wanted = sorted(missing & self.announced.keys(), key=self._rank, reverse=True)
            self.failed = {at: why for at, why in self.failed.items() if at in wanted}
            for at in wanted:
                await self._load(at)
            for at in sorted(self.announced.keys() - set(wanted), reverse=True):
                if self.first.is_set():
                    break
                await self._load(at)  # better an older version than none
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s if self.failed else None):
                    await self._look.wait()
            self._look.clear()

    async def _load(self, at: VersionAt) -> None:
        share = self.announced[at]
        try:
            version = await self._beside(partial(open_version, share, self._registry))
            for step in numbering_steps(version, self._view.names):
                await self._owner.do(step)
            while not await self._build_and_put(version, at.epoch, share.percent):
                pass
        except Exception as error:
            why = f"epoch {at.epoch}, version {share.version}: {error}"
            if self.failed.get(at) != why:
                log.warning("cannot be used: %s", why)
            self.failed[at] = why
            return
        log.info("epoch %d: version %s", at.epoch, version.id)
        self._metrics.epoch.set(await self._owner.do(lambda: max(self._view.rankers).epoch))
        self.failed.pop(at, None)  # last: whoever sees the problem gone sees the epoch that went live
        if not self.first.is_set():
            await self._owner.do(partial(warm_up, self._view))
        self.first.set()

    def _rank(self, at: VersionAt) -> tuple[int, int]:
        """Of the versions of one epoch, that of the most users comes first."""
        return at.epoch, self.announced[at].percent

    async def _build_and_put(self, version: Version, epoch: int, percent: int) -> bool:
        """Whether the view has taken the version: not if its items have got other numbers meanwhile."""
        new = await self._owner.do(partial(self._view.new_version, version, epoch))
        ranker = await self._beside(new.build)
        return await self._owner.do(partial(self._view.put_version, new, ranker, percent))

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do work beside the thread that answers."""
        return await asyncio.get_running_loop().run_in_executor(self._builds, work)

    def close(self) -> None:
        """Give up what is not begun."""
        self._builds.shutdown(wait=False, cancel_futures=True)
