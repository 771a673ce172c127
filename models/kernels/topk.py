"""Exact top-k by block maxima: nothing outside the k blocks with the largest maxima can be among the k.

So the k-th largest block maximum is a threshold that at least k scores reach, and only blocks that reach it
are looked into: a few hundred scores of ten thousand. On the CPU the loops are compiled, and blocks are what
suits them; elsewhere torch does the same work on the device.
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
_PLACES = 128
_MAGNITUDE = np.int32(0x7FFFFFFF)
_LEAST, _KEY_OF_NONE = np.int32(-(1 << 31)), np.int32(-(1 << 31) + 0x7FFFFF)
"""Keys, integers in the order of float32: below them all, and of -inf."""


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of scores[B,N]: index int64[B,k] and score[B,k], best first, ties to the lower index.

    k > N gives N columns. Scores of -inf are never chosen: places beyond the others have index -1, score
    -inf.
    """
    rows, items = scores.shape
    k = min(k, items)
    if not rows or not k or items < k * BLOCK:
        return _sorted(scores, torch.arange(items, device=scores.device).expand(rows, -1), k)
    if items % BLOCK:
        scores = pad(scores, (0, -items % BLOCK), value=-torch.inf)
    if _on_cpu(scores):
        item, best = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
        _best_of_all(np.ascontiguousarray(scores.numpy()), item, best)
        return torch.from_numpy(item), torch.from_numpy(best)
    return _in_best_blocks(scores, block_maxima(scores), k)


def _on_cpu(scores: Tensor) -> bool:
    return scores.device.type == "cpu"


def _blocks(scores: Tensor) -> Tensor:
    return scores.view(len(scores), -1, BLOCK)


def block_maxima(scores: Tensor) -> Tensor:
    """scores[B,N], N a multiple of BLOCK -> [B, N / BLOCK]"""
    return _blocks(scores).amax(dim=2)


@inlined
def insert(item: Ints | NDArray[np.int32], score: Floats, j: int, value: np.float32) -> None:
    """Into the best ones, best first, ties to the lower index; no place is left for the last."""
    place = len(score)
    while place > 0 and (score[place - 1] < value or (score[place - 1] == value and item[place - 1] > j)):
        place -= 1
        if place + 1 < len(score):
            score[place + 1], item[place + 1] = score[place], item[place]
    if place < len(score):
        score[place], item[place] = value, j


@compiled
def largest_of(dense: Floats) -> np.float32:
    """Of a row of scores dense[n]: the maximum in each of so many places first, which vector instructions do
    without waiting for one another.
    """
    places, best, start = np.full(_PLACES, NONE), NONE, 0
    while start + _PLACES <= len(dense):
        part = dense[start : start + _PLACES]
        for j in range(_PLACES):
            places[j] = part[j] if part[j] > places[j] else places[j]
        start += _PLACES
    for j in range(start, len(dense)):
        best = dense[j] if dense[j] > best else best
    for j in range(_PLACES):
        best = places[j] if places[j] > best else best
    return best


class Peaks(NamedTuple):
    """Maxima of few and of many of a row of scores dense[n], n a multiple of BLOCK; and working space.

    What is taken together lies apart, so that loops run along the memory: loops over a few neighbours would
    not use vector instructions.
    """

    lanes: Floats
    """[n / LANE] of the scores j, j + n / LANE …"""
    tops: Floats
    """[n / BLOCK] of the lanes j, j + n / BLOCK …"""
    key: NDArray[np.int32]
    """[n / LANE + BLOCK]"""
    candidates: Ints
    """[4 k + BLOCK] indices that `candidates_of` writes"""


@inlined
def peaks(n: int, k: int) -> Peaks:
    """Space for rows of n scores of which the k best are wanted."""
    return Peaks(
        np.empty(n // LANE, np.float32), np.empty(n // BLOCK, np.float32),
        np.empty(n // LANE + BLOCK, np.int32), np.empty(4 * k + BLOCK, np.int64),
    )  # fmt: skip


@inlined
def _larger(a: np.float32, b: np.float32) -> np.float32:
    return a if a > b else b


@inlined
def _largest_of_four(of: Floats, first: int, n: int, into: Floats, so_far: bool) -> None:
    """into[n]: of the four times n numbers from `first` on, and of what it holds `so_far`."""
    a, b = of[first : first + n], of[first + n : first + 2 * n]
    c, d = of[first + 2 * n : first + 3 * n], of[first + 3 * n : first + 4 * n]
    if so_far:
        for j in range(n):
            into[j] = _larger(into[j], _larger(_larger(a[j], b[j]), _larger(c[j], d[j])))
    else:
        for j in range(n):
            into[j] = _larger(_larger(a[j], b[j]), _larger(c[j], d[j]))


@compiled
def _find_peaks(dense: Floats, of: Peaks) -> None:
    _largest_of_four(dense, 0, len(of.lanes), of.lanes, False)
    for lane in range(0, BLOCK // LANE, 4):
        _largest_of_four(of.lanes, lane * len(of.tops), len(of.tops), of.tops, lane > 0)


@compiled
def _reached_by(value: Floats, n: int, key: NDArray[np.int32]) -> np.float32:
    """A number that n of the values reach, and no more where that can be: by bisection on integers in the
    order of the numbers, each step a count, which vector instructions do; -inf if there are fewer values.
    """
    if n > len(value):
        return NONE
    whole = -(-len(value) // BLOCK) * BLOCK  # vector instructions leave no rest then
    for j in range(len(value)):
        bits = np.float32(value[j]).view(np.int32)
        key[j] = bits if bits >= 0 else bits ^ _MAGNITUDE
    key[len(value) : whole] = _LEAST
    padded = key[:whole]
    low, high = np.int64(_KEY_OF_NONE), np.int64(_MAGNITUDE)
    while low < high:
        middle = (low + high + 1) >> 1
        least, count = np.int32(middle), np.int32(0)
        for j in range(len(padded)):
            count += np.int32(padded[j] >= least)
        low, high = (middle, high) if count >= n else (low, middle - 1)
        if count == n:
            break
    bits = np.int32(low)
    return np.int32(bits if bits >= 0 else bits ^ _MAGNITUDE).view(np.float32)


@compiled
def candidates_of(dense: Floats, k: int, of: Peaks) -> int:
    """What can be among the k best of a row of scores dense[n]: indices above -inf, in any order, into
    `of.candidates`, a few more than k. How many; -1 if there is no room for all, as when many are equal.
    """
    _find_peaks(dense, of)
    lanes, tops, count = of.lanes, of.tops, 0
    # k scores reach it. As good as the k-th score itself if hardly two of the best share a maximum.
    threshold = _reached_by(tops if 2 * k <= len(tops) else lanes, k, of.key)
    for top in range(len(tops)):
        if tops[top] < threshold or tops[top] == NONE:
            continue
        for lane in range(top, len(lanes), len(tops)):
            if lanes[lane] < threshold:
                continue
            for j in range(lane, len(dense), len(lanes)):
                if dense[j] >= threshold and dense[j] > NONE:
                    if count == len(of.candidates):
                        return -1
                    of.candidates[count] = j
                    count += 1
    return count


@compiled
def best_of(dense: Floats, of: Peaks, item: Ints, score: Floats) -> None:
    """The best of a row of scores dense[n], best first, ties to the lower index, into item[k] and score[k];
    -1 and -inf where none is left above -inf.
    """
    item[:], score[:] = -1, NONE
    last = len(score) - 1
    if last < 0:
        return
    count = candidates_of(dense, len(score), of)
    for n in range(count):
        insert(item, score, of.candidates[n], dense[of.candidates[n]])
    if count < 0:
        for j in range(len(dense)):
            if dense[j] > score[last]:
                insert(item, score, j, dense[j])


@compiled
def _best_of_all(scores: NDArray[np.float32], item: NDArray[np.int64], best: NDArray[np.float32]) -> None:
    of = peaks(scores.shape[1], item.shape[1])
    for b in range(len(scores)):
        best_of(scores[b], of, item[b], best[b])


def _in_best_blocks(scores: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """By the k blocks with the largest maxima."""
    # A tie between block maxima at the k-th place must go to the lower block: compare (score, -block) pairs.
    best = _ordered(maxima).topk(k, dim=1, sorted=False).indices
    best = best.sort(dim=1).values
    index = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    inside = _blocks(scores).gather(1, best[:, :, None].expand(-1, -1, BLOCK))
    return _sorted(inside.flatten(1), index, k)


def _ordered(scores: Tensor) -> Tensor:
    """int64 keys in the order of (score, lower column first): equal scores get different keys."""
    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)


def _sorted(scores: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of scores[B,C] whose columns are in increasing order of `index`."""
    at = _ordered(scores).topk(k, dim=1).indices
    best = scores.gather(1, at)
    return torch.where(best > -torch.inf, index.gather(1, at), -1), best
