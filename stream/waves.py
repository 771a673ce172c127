"""Waves: the k-th event of every user in a micro-batch, as the packed order of a sequence of batched cell
steps.

Users are independent, so the k-th events of all users are one batched step; users with more events come
first, so that step k + 1 is a prefix of step k's users. This is the layout of torch's PackedSequence, and
fused kernels take a whole micro-batch in one call.
"""

from dataclasses import dataclass

import numpy as np

from models.order import Index, stable_order


@dataclass(frozen=True)
class Waves:
    """n events of u users in packed order."""

    event: Index
    """[n] position in the given columns of the event at each packed place"""
    user: Index
    """[u] the given users, those with most events first"""
    row: Index
    """[n] position in `user` of the one that each packed place belongs to"""
    rank: Index
    """[n] which wave: 0 for a user's first event"""
    previous: Index
    """[n] packed place of the same user's event before, -1 for the first"""
    batch_sizes: Index
    """[waves] users in each wave, not increasing"""
    first: Index
    """[u] position in the given columns of each user's first event"""
    count: Index
    """[u] events of each user"""

    @property
    def last(self) -> Index:
        """[u] packed place of each user's last event."""
        start = np.concatenate(([0], np.cumsum(self.batch_sizes)[:-1]))
        return np.asarray(start[self.count - 1] + np.arange(len(self.count)), np.int64)


def pack(start: Index, count: Index) -> Waves:
    """Waves of users whose events stand one after another: user i has `count[i]` > 0 events from `start[i]`
    on.
    """
    by_length = stable_order(count.max(initial=0) - count)
    first, length = start[by_length], count[by_length]
    waves = int(length[0]) if len(length) else 0
    # users with more than k events, for each k: lengths are sorted downwards
    batch_sizes = np.searchsorted(-length, -np.arange(waves), side="left").astype(np.int64)
    offset = np.concatenate(([0], np.cumsum(batch_sizes)))
    rank = np.repeat(np.arange(waves), batch_sizes)
    row = np.arange(offset[-1]) - offset[rank] if waves else np.zeros(0, np.int64)
    previous = np.where(rank > 0, offset[np.maximum(rank - 1, 0)] + row, -1)
    return Waves(first[row] + rank, by_length, row, rank, previous, batch_sizes, first, length)
