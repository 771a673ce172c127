"""How the threads wait on which torch computes in training."""

import os


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait for work, unless OMP_WAIT_POLICY says otherwise. Call it
    before torch is imported.

    By default they spin. On a machine whose cores are all busy a thread then spins for the very core that the
    thread it waits for could use: a training beside workers took two to six times as long, and its user's
    workers waited as well (tests/bench/README.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
