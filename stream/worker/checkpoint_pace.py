"""How soon after a checkpoint the next one begins.

Whoever waits for a row waits for a checkpoint: a server shows a list that includes a click only then. A
checkpoint costs about the same whether it writes ten rows or a hundred, so that more of them are worth their
cost while they are quick. One that takes long says that the worker, the machine or the cluster is busy. The
next one then waits, writes more rows at a time, and writes rows once that have changed several times.
"""

SHARE = 0.25
"""Of the time, at most, is spent in checkpoints, unless they take longer than a whole interval."""

MOST_OFTEN = 4
"""So many checkpoints are taken at most where the settings ask for one."""


def interval_s(took_s: float, longest_s: float) -> float:
    """The time from the beginning of a checkpoint that took so long to the beginning of the next one.

    longest_s: the interval that the settings ask for; it is that of a busy worker.
    """
    return min(max(took_s / SHARE, longest_s / MOST_OFTEN), longest_s)
