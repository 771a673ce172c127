"""Exact top-k by block maxima: nothing outside the k blocks with the largest maxima can be among the k.

So the k-th largest block maximum is a threshold that at least k scores reach, and only blocks that reach it
are looked into: a few hundred scores of ten thousand. On the CPU the few are sorted by numpy, whose sort of
64-bit integers uses vector instructions; elsewhere torch does the same work on the device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64
_NONE = np.iinfo(np.int64).min
"""The key of no score at all; below every other."""


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
    if scores.device.type == "cpu":
        return _above_threshold(scores.numpy(), maxima.numpy(), k)
    return _in_best_blocks(scores, maxima, k)


def _blocks(scores: Tensor) -> Tensor:
    return scores.view(len(scores), -1, BLOCK)


def block_maxima(scores: Tensor) -> Tensor:
    """scores[B,N], N a multiple of BLOCK -> [B, N / BLOCK]"""
    return _blocks(scores).amax(dim=2)


def _above_threshold(
    scores: NDArray[np.float32], maxima: NDArray[np.float32], k: int
) -> tuple[Tensor, Tensor]:
    """By the k-th largest block maximum of each row."""
    rows, blocks = maxima.shape
    threshold = np.partition(maxima, blocks - k, axis=1)[:, blocks - k, None]
    threshold = np.maximum(threshold, np.finfo(np.float32).min)  # nothing of -inf
    block = np.flatnonzero(maxima >= threshold)
    of_block = scores.reshape(rows * blocks, BLOCK)[block]
    row = block // blocks
    found = np.flatnonzero(of_block >= threshold[row])
    block_of, value = found // BLOCK, of_block.ravel()[found]
    column = (block[block_of] % blocks) * BLOCK + found % BLOCK
    row = row[block_of]
    count = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - (np.cumsum(count) - count)[row]
    keys = np.full((rows, max(k, int(count.max()))), _NONE)
    keys[row, place] = (_order(value.view(np.int32)).astype(np.int64) << 32) - column
    best = np.sort(keys, axis=1)[:, : -k - 1 : -1]
    index = -best & 0xFFFFFFFF
    value = _order(((best + index) >> 32).astype(np.int32)).view(np.float32)
    none = best == _NONE
    index[none], value[none] = -1, -np.inf
    return torch.from_numpy(index), torch.from_numpy(value)


def _order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of floats -> integers in the floats' order, -0 beside 0; applied to those, the bits again."""
    bits = np.where(bits == np.iinfo(np.int32).min, 0, bits)
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


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
