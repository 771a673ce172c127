"""What every outcome of a chaos run says about where it was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime


def origin() -> dict[str, str]:
    """Commit, time and machine."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "commit": described.stdout.strip(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
