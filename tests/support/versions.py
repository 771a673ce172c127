"""Published versions that were changed afterwards."""

from __future__ import annotations

import json
from pathlib import Path


def edit_description(path: Path, **changes: object) -> None:
    """Change what a version's version.json says; files={} makes it one that names no digests."""
    file = path / "version.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
