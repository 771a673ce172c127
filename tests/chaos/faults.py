"""Faults that a worker can be given, most of them at a step of its checkpoint: `run_worker` calls them, and
the product needs no other hook.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from eddy.stream.engine.engine import Engine
from eddy.stream.records.chunk import Chunk
from eddy.stream.worker.inbox import Inbox


@dataclass
class Die:
    """SIGKILL to its own process at the n-th arrival at a step."""

    fatal: ClassVar[bool] = True
    step: str
    occurrence: int
    _seen: int = field(default=0, init=False)

    def __call__(self, step: str) -> None:
        self._seen += step == self.step
        if self._seen >= self.occurrence:
            os.kill(os.getpid(), signal.SIGKILL)


def stand_still(release: Path) -> None:
    """Wait in the worker's process until the test makes the file."""
    while not release.exists():
        time.sleep(0.02)


@dataclass
class Hold:
    """Stand still at a step until the test makes the file `release`; the file `reached` shows that it does
    so.
    """

    fatal: ClassVar[bool] = False
    step: str
    folder: Path

    @property
    def reached(self) -> Path:
        return self.folder / f"reached-{self.step}"

    @property
    def release(self) -> Path:
        return self.folder / f"release-{self.step}"

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.reached.touch()
            stand_still(self.release)


@dataclass
class LoseChunk:
    """After the first arrival at a step, lose the next chunk between Kafka and the engine, as Faust can lose
    a chunk that it was handed when a rebalance comes.
    """

    fatal: ClassVar[bool] = False
    step: str
    folder: Path

    @property
    def lost(self) -> Path:
        """A file that exists once the chunk is lost."""
        return self.folder / "lost-chunk"

    def __call__(self, step: str) -> None:
        if step == self.step and not self.lost.exists():
            put = Inbox.put_chunk

            async def lose(_inbox: Inbox, _chunk: Chunk) -> None:
                setattr(Inbox, "put_chunk", put)  # noqa: B010
                self.lost.touch()

            setattr(Inbox, "put_chunk", lose)  # noqa: B010


@dataclass
class HoldEngine:
    """Once a method of the engine has changed rows, stand still at its next call until the test makes the
    file `release`: a part of a restore (`load_rows`) or of a swap (`reencode_oldest`) is done then. The
    engine's thread waits, and the worker goes on saying how it does.
    """

    fatal: ClassVar[bool] = False
    method: str
    folder: Path

    @property
    def release(self) -> Path:
        return self.folder / f"release-{self.method}"

    def begin(self) -> None:
        """In the worker's process, before the worker begins."""
        original = getattr(Engine, self.method)
        changed = False

        def held(*arguments: Any) -> Any:
            nonlocal changed
            if changed:
                stand_still(self.release)
            result = original(*arguments)
            changed = changed or bool(result)
            return result

        setattr(Engine, self.method, held)

    def __call__(self, step: str) -> None:
        """No fault at a checkpoint."""


@dataclass
class Impatient:
    """Let the consumer take its worker for dead after so many seconds without a request for records."""

    fatal: ClassVar[bool] = False
    seconds: float

    def begin(self) -> None:
        """In the worker's process, before the worker begins: Faust reads what the worker does not set."""
        os.environ["BROKER_MAX_POLL_INTERVAL"] = str(self.seconds)

    def __call__(self, step: str) -> None:
        """No fault at a checkpoint."""


def nothing(step: str) -> None:
    """No fault."""
