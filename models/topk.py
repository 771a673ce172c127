"""Exact top-k by block maxima: nothing outside the k blocks with the largest maxima can be among the k."""

import torch
from torch import Tensor

BLOCK = 64


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of scores[B,N]: index int64[B,k] and score[B,k], best first, ties to the lower index.

    k > N gives N columns.
    """
    rows, items = scores.shape
    k = min(k, items)
    whole = items // BLOCK * BLOCK
    if whole // BLOCK < 2 * k:
        return _sorted(scores, torch.arange(items, device=scores.device).expand(rows, -1), k)
    blocks = scores[:, :whole].reshape(rows, -1, BLOCK)
    # A tie between block maxima at the k-th place must go to the lower block: compare (score, -block) pairs.
    best = _ordered(blocks.amax(dim=2)).topk(k, dim=1, sorted=False).indices
    best = best.sort(dim=1).values
    index = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    inside = blocks.gather(1, best[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    if whole < items:
        tail = torch.arange(whole, items, device=scores.device).expand(rows, -1)
        index, inside = torch.cat([index, tail], 1), torch.cat([inside, scores[:, whole:]], 1)
    return _sorted(inside, index, k)


def _ordered(scores: Tensor) -> Tensor:
    """int64 keys in the order of (score, lower column first): equal scores get different keys."""
    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)


def _sorted(scores: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of scores[B,C] whose columns are in increasing order of `index`."""
    at = _ordered(scores).topk(k, dim=1).indices
    return index.gather(1, at), scores.gather(1, at)
