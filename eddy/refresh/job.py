"""A refresh that is under way, as a file: what is done of it, so that a killed one goes on where it was."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from eddy.models.atomic_files import atomic_write
from eddy.models.errors import EddyError
from eddy.models.locks import locked_at_once
from eddy.models.storage import Place, located, one_line
from eddy.models.untrusted import Unreadable, decoded
from eddy.refresh.windows import Times

Show = Callable[[str, int, int], None]
"""(what, done, of): progress of a long step"""

Say = Callable[[str], None]
"""a line of what is done"""

Stage = Literal["planned", "trained", "judged", "published", "tried"]
FOLDER = ".refresh"
"""In the registry's folder or, for one on object storage, in the cache; its name begins with a dot, as no
version's does.
"""


class Job(msgspec.Struct):
    """What later steps need to know of earlier ones."""

    id: str
    options: str
    """identity of the options and settings that it was begun with"""
    live: str
    """id of the version that was live when it began; empty when there was none"""
    live_epoch: int
    """its epoch; 0 when there was none"""
    times: Times
    """later events are none of this refresh's"""
    warm: bool
    stage: Stage = "planned"
    candidate: str = ""
    """id of the trained candidate in the job's own registry, or in the real one if it was given"""
    judgement: dict[str, Any] = {}
    passed: bool = False
    reason: str = ""
    version: str = ""
    """id of the version that was published"""
    canary_epoch: int = 0
    """in which a share of the users tries it; 0 before that"""
    seconds: dict[str, float] = {}
    """how long each step took"""


_decode = msgspec.json.Decoder(Job).decode


class JobFile:
    """The folder of the refresh that is under way in a registry."""

    def __init__(self, registry: Place) -> None:
        self.folder = located(registry).work_folder / FOLDER
        self.lock = self.folder / "lock"
        self.checkpoint = self.folder / "training.pt"
        self.candidates = self.folder / "candidates"
        """a registry of its own, in which the candidate waits for its judgement"""
        self._file = self.folder / "job.json"

    @contextmanager
    def held(self, refusal: str) -> Iterator[None]:
        """Keep other refreshes of this registry out while the body runs. Errors: EddyError, with the refusal
        when one is under way.
        """
        with ExitStack() as lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked_at_once(self.lock, refusal))
            except OSError as error:
                raise self._unwritable(self.folder, error) from None
            yield

    def read(self) -> Job | None:
        """The job that was left unfinished; None when there is none. Errors: EddyError when it is damaged."""
        try:
            return decoded(_decode, self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, Unreadable) as error:
            raise EddyError(
                f"{self._file}: cannot be read ({error}); remove the folder {self.folder} to begin anew"
            ) from None

    def write(self, job: Job) -> None:
        """Replace the file. Errors: EddyError when it cannot be written."""
        try:
            with atomic_write(self._file) as draft:
                draft.write_bytes(msgspec.json.format(msgspec.json.encode(job), indent=1))
        except OSError as error:
            raise self._unwritable(self._file, error) from None

    def clear(self) -> None:
        """Remove everything but the lock: the job's file first, without which the rest means nothing. Errors:
        EddyError when it cannot be removed.
        """
        try:
            self._file.unlink(missing_ok=True)
            self.checkpoint.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(self.folder, error) from None
        shutil.rmtree(self.candidates, ignore_errors=True)

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> EddyError:
        return EddyError(f"{path}: cannot be written ({one_line(error)}); check space and permissions")


def new_id() -> str:
    """The id of a new refresh, which the version that comes of it names in its lineage."""
    return secrets.token_hex(8)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Add the time of the body to this step's."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[step] = round(seconds.get(step, 0.0) + time.monotonic() - began, 2)
