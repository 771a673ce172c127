"""Parts of the benchmark that run as processes of their own and print JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from eddy.models.errors import EddyError


def result_of(module: str, *arguments: object, limit_s: float) -> Any:
    """What `python -m tests.bench.MODULE ARGUMENTS` prints, decoded. Errors: EddyError when it fails or takes
    longer than `limit_s`.
    """
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise EddyError(f"{module} {' '.join(map(str, arguments))}: longer than {limit_s:.0f} s") from None
    if done.returncode:
        raise EddyError(f"{module} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
