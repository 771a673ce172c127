"""Exact top-k by block maxima: nothing outside the k blocks with the largest maxima can be among the k.

So the k-th largest block maximum is a threshold that at least k scores reach, and only blocks that reach it
are looked into: a few hundred scores of ten thousand. On the CPU the loops are compiled, and a block is every
n-th score of a row (see `Peaks`); elsewhere a block is BLOCK neighbours, and torch does the same work on the
device.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from eddy.models.kernels.compiled import Floats, Ints, compiled, inlined
from eddy.models.kernels.compiled_maths import NONE

LANE, BLOCK = 4, 64
"""Scores under one maximum of the first and of the second level. Larger blocks make fewer maxima to compare,
and more scores to look at in each block that reaches the threshold.
"""

_ACCUMULATORS = 128
"""Running maxima that `maximum_of` keeps: some vectors of any width, so that none waits for the one before.
"""

_MAGNITUDE = np.int32(0x7FFFFFFF)
_MIN_KEY, _KEY_OF_NONE = np.int32(-(1 << 31)), np.int32(-(1 << 31) + 0x7FFFFF)
"""Keys are integers in the order of float32. The first is below all of them, the second is that of -inf."""


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row of scores float32[B,N], NaN not expected: index int64[B,k] and score
    float32[B,k], best first, ties to the lower index.

    Where k > N there are N columns. A score of -inf is never chosen: where fewer than k are left, index is
    -1 and score -inf.
    """
    rows, items = scores.shape
    k = min(k, items)
    if not rows or not k or items < k * BLOCK:
        return _topk_of_columns(scores, torch.arange(items, device=scores.device).expand(rows, -1), k)
    if items % BLOCK:
        scores = pad(scores, (0, -items % BLOCK), value=-torch.inf)
    if _on_cpu(scores):
        item, best = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
        _take_best_of_rows(np.ascontiguousarray(scores.numpy()), item, best)
        return torch.from_numpy(item), torch.from_numpy(best)
    return _topk_of_best_blocks(scores, block_maxima(scores), k)


def _on_cpu(scores: Tensor) -> bool:
    return scores.device.type == "cpu"


def _blocks(scores: Tensor) -> Tensor:
    """scores[B,N], N a multiple of BLOCK -> [B, N / BLOCK, BLOCK]"""
    return scores.view(len(scores), -1, BLOCK)


def block_maxima(scores: Tensor) -> Tensor:
    """scores[B,N], N a multiple of BLOCK -> [B, N / BLOCK]"""
    return _blocks(scores).amax(dim=2)


@inlined
def insert_ranked(item: Ints | NDArray[np.int32], score: Floats, j: int, value: np.float32) -> None:
    """Insert item j into the list item[k], score[k], which is ordered best first, ties to the lower index.
    The last of the list drops out; an item that would stand behind it is not inserted.
    """
    rank = len(score)
    while rank > 0 and (score[rank - 1] < value or (score[rank - 1] == value and item[rank - 1] > j)):
        rank -= 1
        if rank + 1 < len(score):
            score[rank + 1], item[rank + 1] = score[rank], item[rank]
    if rank < len(score):
        score[rank], item[rank] = value, j


@compiled
def maximum_of(dense: Floats) -> np.float32:
    """The maximum of dense[n], -inf if n = 0: first of every _ACCUMULATORS-th score, which vector
    instructions do without waiting for one another, then of these maxima and the rest.
    """
    maxima, best, start = np.full(_ACCUMULATORS, NONE), NONE, 0
    while start + _ACCUMULATORS <= len(dense):
        part = dense[start : start + _ACCUMULATORS]
        for j in range(_ACCUMULATORS):
            maxima[j] = part[j] if part[j] > maxima[j] else maxima[j]
        start += _ACCUMULATORS
    for j in range(start, len(dense)):
        best = dense[j] if dense[j] > best else best
    for j in range(_ACCUMULATORS):
        best = maxima[j] if maxima[j] > best else best
    return best


class Peaks(NamedTuple):
    """Two levels of maxima over a row of scores dense[n], n a multiple of BLOCK, and working space.

    The scores under one maximum lie apart, so that loops run along the memory: loops over a few neighbours
    would not use vector instructions (a row of 10,000 scores took 2.9 µs instead of 1.2 µs).
    """

    lanes: Floats
    """[n / LANE]: lane j is the maximum of the scores j, j + n / LANE, …"""
    tops: Floats
    """[n / BLOCK]: top j is the maximum of the lanes j, j + n / BLOCK, …"""
    key: NDArray[np.int32]
    """[n / LANE + BLOCK] working space of `_threshold_reached_by`"""
    candidates: Ints
    """[4 k + BLOCK or more] indices that `find_candidates` and `find_reaching` write"""


@inlined
def new_peaks(n: int, k: int, room: int = 0) -> Peaks:
    """Space for rows of n scores, n a multiple of BLOCK, of which the k best are wanted, or `room` that reach
    a number.
    """
    return Peaks(
        np.empty(n // LANE, np.float32), np.empty(n // BLOCK, np.float32),
        np.empty(n // LANE + BLOCK, np.int32), np.empty(max(4 * k + BLOCK, room), np.int64),
    )  # fmt: skip


@inlined
def _larger(a: np.float32, b: np.float32) -> np.float32:
    return a if a > b else b


@inlined
def _write_maxima_of_four(values: Floats, first: int, n: int, into: Floats, keep: bool) -> None:
    """Write into into[j] the maximum of the values first + j, first + n + j, first + 2 n + j and
    first + 3 n + j, and of what is there already if `keep`.
    """
    a, b = values[first : first + n], values[first + n : first + 2 * n]
    c, d = values[first + 2 * n : first + 3 * n], values[first + 3 * n : first + 4 * n]
    if keep:
        for j in range(n):
            into[j] = _larger(into[j], _larger(_larger(a[j], b[j]), _larger(c[j], d[j])))
    else:
        for j in range(n):
            into[j] = _larger(_larger(a[j], b[j]), _larger(c[j], d[j]))


@compiled
def _fill_peaks(dense: Floats, peaks: Peaks) -> None:
    """Write the maxima of dense[n] into lanes and tops."""
    lanes, tops = peaks.lanes, peaks.tops
    _write_maxima_of_four(dense, 0, len(lanes), lanes, False)
    for lane in range(0, BLOCK // LANE, 4):
        _write_maxima_of_four(lanes, lane * len(tops), len(tops), tops, lane > 0)


@compiled
def _threshold_reached_by(value: Floats, n: int, key: NDArray[np.int32]) -> np.float32:
    """A number that at least n of value[m] reach, and exactly n unless some are equal; -inf if m < n.

    Found by bisection on integers in the order of the numbers: each step is a count, which vector
    instructions do. key[m + BLOCK or more] is working space.
    """
    if n > len(value):
        return NONE
    # 1. Keys in the order of the values, filled up to a multiple of BLOCK so that vectors leave no rest.
    whole = -(-len(value) // BLOCK) * BLOCK
    for j in range(len(value)):
        bits = np.float32(value[j]).view(np.int32)
        key[j] = bits if bits >= 0 else bits ^ _MAGNITUDE
    key[len(value) : whole] = _MIN_KEY
    padded = key[:whole]
    # 2. Halve the range of keys until just n keys reach its lower end, or it is one key.
    low, high = np.int64(_KEY_OF_NONE), np.int64(_MAGNITUDE)
    while low < high:
        middle = (low + high + 1) >> 1
        least, count = np.int32(middle), np.int32(0)
        for j in range(len(padded)):
            count += np.int32(padded[j] >= least)
        low, high = (middle, high) if count >= n else (low, middle - 1)
        if count == n:
            break
    # 3. The number that has this key.
    bits = np.int32(low)
    return np.int32(bits if bits >= 0 else bits ^ _MAGNITUDE).view(np.float32)


@compiled
def find_candidates(dense: Floats, k: int, peaks: Peaks) -> int:
    """Write the indices of all scores of dense[n] that can be among the k best, and are above -inf, into
    `peaks.candidates`, in any order: a few more than k. Returns how many; -1 if there is no room for them,
    which happens where many scores are equal. `peaks` must have been made for this n and at least this k.
    """
    _fill_peaks(dense, peaks)
    lanes, tops = peaks.lanes, peaks.tops
    # At least k scores reach it; it is nearly the k-th score where hardly two of the best share a maximum.
    return find_reaching(
        dense, _threshold_reached_by(tops if 2 * k <= len(tops) else lanes, k, peaks.key), peaks
    )


@compiled
def find_reaching(dense: Floats, threshold: np.float32, peaks: Peaks) -> int:
    """Write the indices of all scores of dense[n] that reach the threshold, and are above -inf, into
    `peaks.candidates`, in any order. Returns how many; -1 if there is no room for them. `peaks` must hold the
    maxima of `dense`, as `find_candidates` leaves it.
    """
    lanes, tops, count = peaks.lanes, peaks.tops, 0
    for top in range(len(tops)):
        if tops[top] < threshold or tops[top] == NONE:
            continue
        for lane in range(top, len(lanes), len(tops)):
            if lanes[lane] < threshold:
                continue
            for j in range(lane, len(dense), len(lanes)):
                if dense[j] >= threshold and dense[j] > NONE:
                    if count == len(peaks.candidates):
                        return -1
                    peaks.candidates[count] = j
                    count += 1
    return count


@compiled
def take_best(dense: Floats, peaks: Peaks, item: Ints, score: Floats) -> None:
    """Write the k best of dense[n], best first, ties to the lower index, into item[k] and score[k]; -1 and
    -inf where no score above -inf is left. `peaks` must have been made for this n and at least this k.
    """
    item[:], score[:] = -1, NONE
    last = len(score) - 1
    if last < 0:
        return
    count = find_candidates(dense, len(score), peaks)
    for n in range(count):
        j = peaks.candidates[n]
        insert_ranked(item, score, j, dense[j])
    if count < 0:
        for j in range(len(dense)):
            if dense[j] > score[last]:
                insert_ranked(item, score, j, dense[j])


@compiled
def _take_best_of_rows(scores: Floats, item: Ints, best: Floats) -> None:
    """`take_best` of each row of scores[B,n] into item[B,k] and best[B,k]."""
    peaks = new_peaks(scores.shape[1], item.shape[1])
    for b in range(len(scores)):
        take_best(scores[b], peaks, item[b], best[b])


def _topk_of_best_blocks(scores: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of scores[B,N] among the k blocks with the largest maxima[B, N / BLOCK]."""
    # A tie between block maxima at rank k must go to the lower block: compare (score, -block) pairs.
    block = _ordered_keys(maxima).topk(k, dim=1, sorted=False).indices.sort(dim=1).values  # [B,k]
    index = (block[:, :, None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)  # [B, k BLOCK]
    inside = _blocks(scores).gather(1, block[:, :, None].expand(-1, -1, BLOCK))
    return _topk_of_columns(inside.flatten(1), index, k)


def _ordered_keys(scores: Tensor) -> Tensor:
    """scores[B,N] -> int64 keys [B,N] in the order of (score, lower column first): no two of a row are equal.

    0.0 is added because -0.0 must tie with it.
    """
    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)


def _topk_of_columns(scores: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of scores[B,C] for the items index[B,C], which increase along each row: index, score [B,k]."""
    column = _ordered_keys(scores).topk(k, dim=1).indices
    best = scores.gather(1, column)
    return torch.where(best > -torch.inf, index.gather(1, column), -1), best
