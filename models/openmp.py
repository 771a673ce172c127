"""How the threads wait for each other on which torch computes in training."""

import os

SPINS = "1000"
"""Looks at whether there is work, before a thread sleeps; some ten microseconds."""


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep soon where they wait for work, unless the environment says how they wait.
    Call it before torch is imported.

    GNU's OpenMP, with which torch comes on Linux, looks 300,000 times. On a machine whose cores are all busy
    a thread then spins on the very core that the thread it waits for could use: beside two busy programs a
    training took four times as long as with few looks, and held up those programs (tests/bench/README.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
