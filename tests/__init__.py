import os

from eddy.models.machine_cache import cache_folder

os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "compiled"))
"""Processes that are started with a cache folder of their own need not compile everything anew."""
