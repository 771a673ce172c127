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

from models.compiled import compiled, inlined

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK = 64
_PLACES = 128
LEAST = np.float32(-np.inf)


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
    places, best, start = np.full(_PLACES, LEAST), LEAST, 0
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
        of_block, best = dense[block * BLOCK : block * BLOCK + BLOCK], LEAST
        for j in range(BLOCK // 4):  # four at a time, since one after another waits for the one before
            two = max(of_block[j], of_block[j + BLOCK // 4])
            other_two = max(of_block[j + BLOCK // 2], of_block[j + 3 * BLOCK // 4])
            best = max(best, max(two, other_two))
        maxima[block] = best


@compiled
def best_of(dense: Floats, maxima: Floats, item: Ints, score: Floats) -> None:
    """The best of a row of scores dense[n] with the maxima of its blocks, best first, ties to the lower
    index, into item[k] and score[k]; -1 and -inf where none is left above -inf.
    """
    item[:], score[:] = -1, LEAST
    last = len(score) - 1
    if last < 0:
        return
    for largest in maxima:  # the k-th largest of them is a threshold that k scores reach
        if largest > score[last]:
            place = last
            while place > 0 and score[place - 1] < largest:
                score[place] = score[place - 1]
                place -= 1
            score[place] = largest
    threshold = score[last]
    score[:] = LEAST
    for block in range(len(maxima)):
        if maxima[block] >= threshold and maxima[block] > score[last]:
            start = block * BLOCK
            of_block = dense[start : start + BLOCK]
            for j in range(BLOCK):
                if of_block[j] >= threshold and of_block[j] > score[last]:
                    insert(item, score, start + j, of_block[j])


@compiled
def _best_of_all(
    scores: NDArray[np.float32],
    maxima: NDArray[np.float32],
    item: NDArray[np.int64],
    best: NDArray[np.float32],
) -> None:
    for b in range(len(scores)):
        best_of(scores[b], maxima[b], item[b], best[b])


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
