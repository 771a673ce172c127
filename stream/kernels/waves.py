"""Waves: the k-th event of every user in a micro-batch, as the packed order of a sequence of batched cell
steps.

Users are independent, so the k-th events of all users are one batched step; users with more events come
first, so that step k + 1 is a prefix of step k's users. This is the layout of torch's PackedSequence, and
fused kernels take a whole micro-batch in one call.
"""

from typing import NamedTuple

import numpy as np

from eddy.models.kernels.compiled import Ints, compiled


class Waves(NamedTuple):
    """n events of u users in packed order."""

    event: Ints
    """[n] position in the given columns of the event at each packed place"""
    user: Ints
    """[u] the given users, those with most events first"""
    row: Ints
    """[n] position in `user` of the one that each packed place belongs to"""
    rank: Ints
    """[n] which wave: 0 for a user's first event"""
    previous: Ints
    """[n] packed place of the same user's event before, -1 for the first"""
    batch_sizes: Ints
    """[waves] users in each wave, not increasing"""
    first: Ints
    """[u] position in the given columns of each user's first event"""
    length: Ints
    """[u] events of each user"""


@compiled
def _sizes(count: Ints, batch_sizes: Ints) -> None:
    for u in range(len(count)):
        batch_sizes[count[u] - 1] += 1
    for rank in range(len(batch_sizes) - 2, -1, -1):
        batch_sizes[rank] += batch_sizes[rank + 1]


@compiled
def _place(start: Ints, count: Ints, waves: Waves) -> None:
    # Users with more events come first, equal ones as given: those with just c begin after those with more.
    steps = len(waves.batch_sizes)
    next_row = np.zeros(steps + 1, np.int64)
    next_row[1:steps] = waves.batch_sizes[1:]
    for u in range(len(count)):
        row = next_row[count[u]]
        next_row[count[u]] += 1
        waves.user[row], waves.first[row], waves.length[row] = u, start[u], count[u]
    offset = before = 0
    for rank in range(steps):
        for row in range(waves.batch_sizes[rank]):
            place = offset + row
            waves.event[place], waves.row[place], waves.rank[place] = waves.first[row] + rank, row, rank
            waves.previous[place] = before + row if rank > 0 else -1
        before, offset = offset, offset + waves.batch_sizes[rank]


def pack(start: Ints, count: Ints) -> Waves:
    """Waves of users whose events stand one after another: user i has `count[i]` > 0 events from `start[i]`
    on.
    """
    n, users = int(count.sum()), len(count)
    event, row, rank, previous = np.empty((4, n), np.int64)
    user, first, length = np.empty((3, users), np.int64)
    batch_sizes = np.zeros(int(count.max(initial=0)), np.int64)
    waves = Waves(event, user, row, rank, previous, batch_sizes, first, length)
    if n:
        _sizes(count, batch_sizes)
        _place(start, count, waves)
    return waves
