"""A disk without room, for the process that asks: files cannot grow beyond a limit, and whoever writes on
gets an OSError, as on a full disk. Needs no rights and no other disk.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_room(file_bytes: int) -> Iterator[None]:
    """No file of this process can have more bytes than these."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))  # Python ignores the signal of it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
