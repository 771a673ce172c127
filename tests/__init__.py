import os

from eddy.models.machine_cache import cache_folder
from eddy.models.openmp import let_waiting_threads_sleep

os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "compiled"))
"""Processes that are started with a cache folder of their own need not compile everything anew."""

let_waiting_threads_sleep()  # as commands do; several processes share a test machine's cores
