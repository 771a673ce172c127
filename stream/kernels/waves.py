"""Waves: the k-th event of every user in a micro-batch, as the packed order of a sequence of batched cell
steps.

Users are independent, so the k-th events of all users are one batched step. Users with more events come
first, so that the users of step k + 1 are a prefix of those of step k. This is the layout of torch's
PackedSequence, so fused kernels take a whole micro-batch in one call.
"""

from typing import NamedTuple

import numpy as np

from eddy.models.kernels.compiled import Ints, compiled


class Waves(NamedTuple):
    """n events of u users in packed order."""

    event: Ints
    """[n] position of each packed event in the given columns"""
    user: Ints
    """[u] the given users, those with most events first; a lane, below, is a position in this order"""
    lane: Ints
    """[n] the lane of each packed event's user"""
    rank: Ints
    """[n] the wave of each packed event: 0 for a user's first event"""
    previous: Ints
    """[n] packed position of the same user's event before, -1 for the first one"""
    batch_sizes: Ints
    """[waves] users in each wave, not increasing"""
    first: Ints
    """[u] position in the given columns of each lane's first event"""
    length: Ints
    """[u] number of events of each lane"""


@compiled
def _count_users(count: Ints, batch_sizes: Ints) -> None:
    """Write into batch_sizes[k] how many of count[u] are above k. `batch_sizes` must be zero, and as long as
    the largest count.
    """
    for u in range(len(count)):
        batch_sizes[count[u] - 1] += 1
    for rank in range(len(batch_sizes) - 2, -1, -1):
        batch_sizes[rank] += batch_sizes[rank + 1]


@compiled
def _pack(start: Ints, count: Ints, waves: Waves) -> None:
    """Fill the other columns of `waves`, from start[u], count[u] and `batch_sizes`."""
    # 1. Give users their rows. Those with more events come first, those with equally many as given: the rows
    #    of users with c events begin after those of users with more.
    steps = len(waves.batch_sizes)
    next_lane = np.zeros(steps + 1, np.int64)
    next_lane[1:steps] = waves.batch_sizes[1:]
    for u in range(len(count)):
        lane = next_lane[count[u]]
        next_lane[count[u]] += 1
        waves.user[lane], waves.first[lane], waves.length[lane] = u, start[u], count[u]
    # 2. Pack their events, wave after wave.
    offset = before = 0
    for rank in range(steps):
        for lane in range(waves.batch_sizes[rank]):
            at = offset + lane
            waves.event[at], waves.lane[at], waves.rank[at] = waves.first[lane] + rank, lane, rank
            waves.previous[at] = before + lane if rank > 0 else -1
        before, offset = offset, offset + waves.batch_sizes[rank]


def pack(start: Ints, count: Ints) -> Waves:
    """Waves of u users whose events stand one after another: user i has count[i] > 0 events from position
    start[i] on. start[u], count[u].
    """
    n, users = int(count.sum()), len(count)
    event, lane, rank, previous = np.empty((4, n), np.int64)
    user, first, length = np.empty((3, users), np.int64)
    batch_sizes = np.zeros(int(count.max(initial=0)), np.int64)
    waves = Waves(event, user, lane, rank, previous, batch_sizes, first, length)
    if n:
        _count_users(count, batch_sizes)
        _pack(start, count, waves)
    return waves
