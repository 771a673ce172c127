"""Eddy's commands as processes, as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ("hidden=8", "dim=8", "epochs=1", "gate_epochs=1", "gate_events=50", "threads=1")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, which leaves nothing unclosed and shows no warning of Python's."""
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-m", "eddy", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Warning" not in done.stderr
    return done


def tiny() -> list[str]:
    """Options of a training that takes no time."""
    return [part for setting in TINY for part in ("--set", setting)]
