"""Exact top-k by block maxima: nothing outside the k blocks with the largest maxima can be among the k.

So the k-th largest block maximum is a threshold that at least k scores reach, and only blocks that reach it
are looked into: a few hundred scores of ten thousand. On the CPU the loop over them is compiled; elsewhere
torch does the same work on the device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from models.compiled import Floats, Ints, compiled, inlined
from models.compiled_maths import NONE

BLOCK, QUARTER = 64, 16
_PLACES = 128
_MAGNITUDE = np.int32(0x7FFFFFFF)


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
    maxima = block_maxima(scores)
    if _on_cpu(scores):
        item, best = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
        _best_of_all(np.ascontiguousarray(scores.numpy()), maxima.numpy(), item, best)
        return torch.from_numpy(item), torch.from_numpy(best)
    return _in_best_blocks(scores, maxima, k)


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


@compiled
def maxima_of(dense: Floats, maxima: Floats) -> None:
    """Of the blocks of a row of scores dense[n], into maxima[n / BLOCK]."""
    for block in range(len(maxima)):
        of_block, best = dense[block * BLOCK : block * BLOCK + BLOCK], NONE
        for j in range(BLOCK // 4):  # four at a time, since one after another waits for the one before
            two = max(of_block[j], of_block[j + BLOCK // 4])
            other_two = max(of_block[j + BLOCK // 2], of_block[j + 3 * BLOCK // 4])
            best = max(best, two, other_two)
        maxima[block] = best


@compiled
def _nth(maxima: Floats, n: int) -> np.float32:
    """The n-th largest, -inf if there are fewer: by bisection on integers in the order of the numbers, each
    step a count, which vector instructions do.
    """
    if n > len(maxima):
        return NONE
    key = np.empty(len(maxima), np.int32)
    for block in range(len(maxima)):
        bits = np.float32(maxima[block]).view(np.int32)
        key[block] = bits if bits >= 0 else bits ^ _MAGNITUDE
    low, high = np.int64(-(1 << 31)), np.int64((1 << 31) - 1)
    while low < high:
        middle = (low + high + 1) >> 1
        least, count = np.int32(middle), np.int32(0)
        for block in range(len(key)):
            count += np.int32(key[block] >= least)
        if count >= n:
            low = middle
        else:
            high = middle - 1
    bits = np.int32(low)
    return np.int32(bits if bits >= 0 else bits ^ _MAGNITUDE).view(np.float32)


@inlined
def _reaching(part: Floats, threshold: np.float32) -> int:
    """How many of the scores reach it."""
    reach = np.int32(0)
    for j in range(len(part)):
        reach += np.int32(part[j] >= threshold)
    return int(reach)


@compiled
def candidates_of(dense: Floats, maxima: Floats, k: int, found: Ints) -> int:
    """What can be among the k best of a row of scores dense[n] with the maxima of its blocks: indices above
    -inf, upwards, into `found`, a few more than k. How many; -1 if there is no room for all, as when many are
    equal.
    """
    threshold, count = _nth(maxima, k), 0  # k scores reach it
    for block in range(len(maxima)):
        if maxima[block] < threshold or maxima[block] == NONE:
            continue
        for start in range(block * BLOCK, (block + 1) * BLOCK, QUARTER):
            reach = _reaching(dense[start : start + QUARTER], threshold)
            if count + reach > len(found):
                return -1
            if not reach:
                continue
            for j in range(start, start + QUARTER):
                if dense[j] >= threshold and dense[j] > NONE:
                    found[count] = j
                    count += 1
    return count


@compiled
def best_of(dense: Floats, maxima: Floats, found: Ints, item: Ints, score: Floats) -> None:
    """The best of a row of scores dense[n] with the maxima of its blocks, best first, ties to the lower
    index, into item[k] and score[k]; -1 and -inf where none is left above -inf. `found`: working space.
    """
    item[:], score[:] = -1, NONE
    last = len(score) - 1
    if last < 0:
        return
    count = candidates_of(dense, maxima, len(score), found)
    for n in range(count):
        insert(item, score, found[n], dense[found[n]])
    if count >= 0:
        return
    for block in range(len(maxima)):
        if maxima[block] > score[last]:
            start = block * BLOCK
            for j in range(start, start + BLOCK):
                if dense[j] > score[last]:
                    insert(item, score, j, dense[j])


@inlined
def room_for(k: int) -> int:
    """Candidates for k places that there should be room for."""
    return 4 * k + BLOCK


@compiled
def _best_of_all(
    scores: NDArray[np.float32],
    maxima: NDArray[np.float32],
    item: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    found = np.empty(room_for(item.shape[1]), np.int64)
    for b in range(len(scores)):
        best_of(scores[b], maxima[b], found, item[b], best[b])


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
