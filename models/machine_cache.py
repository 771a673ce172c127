"""The folder in which this machine keeps what can be had again: compiled loops, copies, unfinished work."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """EDDY_CACHE_DIR, or the user's cache folder."""
    default = platformdirs.user_cache_dir("eddy-streams", appauthor=False)
    return Path(os.environ.get("EDDY_CACHE_DIR") or default).expanduser()
