"""A lock file that one process holds at a time, and that is free again as soon as its process is gone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from eddy.models.errors import EddyError

log = logging.getLogger("eddy.locks")

REGISTRY_LOCK = ".lock"
"""In the folder of a registry: held by whoever writes a version or a decision, or removes a version."""


@contextmanager
def locked_at_once(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file while the body runs. Errors: EddyError with the refusal when another process holds
    it.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise EddyError(refusal) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked(file: Path, waiting_for: str) -> Iterator[None]:
    """Hold the lock file while the body runs; a process that has to wait for it says so, and what for."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for %s, as the lock %s is taken", waiting_for, file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
