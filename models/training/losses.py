"""Cross entropy over items, with the gradient computed in the forward pass, a tile of predictions at a time.

The logits of a batch (thousands of predictions by all items) never exist at once: each tile is scored, turned
into its gradient in place, and folded into the gradients of both sides while it is in the cache.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE_FLOATS, DEVICE_TILE_FLOATS = 1 << 20, 1 << 26
"""Logits at a time: on a CPU what its cache holds, 4 MB; on a GPU what keeps it busy, 256 MB."""


class LeftOut(NamedTuple):
    """Items that are no candidates of a prediction: those of prediction i are item[start[i] : start[i + 1]].

    A prediction's target must not be among them.
    """

    start: Tensor  # int64[p + 1]
    item: Tensor  # int64[n]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        items: Tensor,
        bias: Tensor,
        target: Tensor,
        prior: Tensor | None,
        moment: Tensor,
        left_out: LeftOut | None,
    ) -> Tensor:
        grad_query, grad_items, grad_bias = (
            torch.empty_like(query, dtype=items.dtype), torch.zeros_like(items), torch.zeros_like(bias)
        )  # fmt: skip
        loss = bias.new_zeros(())
        full, vectors = query.dtype == torch.float32, items.to(query.dtype)
        step = max(1, (DEVICE_TILE_FLOATS if query.is_cuda else TILE_FLOATS) // len(items))
        tiles = zip(*(torch.split(part, step) for part in (query, target, grad_query, moment)), strict=True)
        for number, (q, t, g, of_tile) in enumerate(tiles):
            logits = torch.addmm(bias, q, vectors.T) if full else torch.mm(q, vectors.T).float().add_(bias)
            if prior is not None:
                logits += prior[of_tile]
            if left_out is not None:
                _leave_out(logits, left_out, number * step)
            of_target = logits.gather(1, t[:, None])
            largest = logits.amax(dim=1, keepdim=True)
            unscaled = logits.sub_(largest).exp_()
            scale = 1 / unscaled.sum(dim=1, keepdim=True)
            loss += (largest - torch.log(scale) - of_target).sum()
            grad_bias.addmv_(unscaled.T, scale[:, 0])
            if full:  # p = unscaled * scale is never formed: the scale goes to the thin sides of the products
                torch.mm(unscaled, items, out=g).mul_(scale)
                grad_items.addmm_(unscaled.T, q * scale)
            else:
                p = unscaled.mul_(scale).to(q.dtype)
                g.copy_(torch.mm(p, vectors))
                grad_items += torch.mm(p.T, q)
        grad_query -= items[target]
        grad_items.index_add_(0, target, query.float(), alpha=-1)
        grad_bias -= torch.bincount(target, minlength=len(items))
        ctx.query_type = query.dtype
        ctx.save_for_backward(grad_query, grad_items, grad_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, items, bias = ctx.saved_tensors  # autograd wants the gradient in the query's own type
        return (query * grad).to(ctx.query_type), items * grad, bias * grad, None, None, None, None


def _leave_out(logits: Tensor, left_out: LeftOut, first: int) -> None:
    """Set the logits of the items that predictions first … first + len(logits) - 1 leave out to -inf."""
    start = left_out.start[first : first + len(logits) + 1]
    row = torch.repeat_interleave(start.diff())
    item = left_out.item[int(start[0]) : int(start[-1])]
    logits.view(-1).index_fill_(0, row * logits.shape[1] + item, -torch.inf)


def full_softmax(
    query: Tensor, items: Tensor, bias: Tensor, target: Tensor, prior: Tensor | None, moment: Tensor,
    left_out: LeftOut | None = None,
) -> Tensor:  # fmt: skip
    """Summed cross entropy of query[p,D] against items[V,D] and bias[V] at target[p]: a scalar.

    Row moment[i] of prior[G,V] is added to the logits of prediction i. The products are made in the query's
    type, so a bfloat16 query makes them bfloat16; all else is float32.
    """
    loss: Tensor = _CrossEntropy.apply(query, items, bias, target, prior, moment, left_out)
    return loss


def sampled_softmax(
    query: Tensor, items: Tensor, bias: Tensor, target: Tensor, prior: Tensor | None, moment: Tensor,
    sample: Tensor, inclusion: Tensor, left_out: LeftOut | None = None,
) -> Tensor:  # fmt: skip
    """Summed cross entropy over the batch's own targets and a sample of items instead of all.

    sample[s] are item indices; inclusion[V] is the probability that an item is among the candidates (drawn,
    or a target of the batch). Its logarithm is subtracted from the logits (logQ correction: Bengio & Senécal
    2008, Yi et al., RecSys 2019), so that the expected gradient is that of the full softmax, not that of
    popular items.
    """
    candidates, position = torch.unique(torch.cat([target, sample]), return_inverse=True)
    corrected = bias[candidates] - torch.log(inclusion[candidates])
    prior = None if prior is None else prior[:, candidates]
    if left_out is not None:
        candidate_of = torch.full((len(items),), -1, device=items.device)
        candidate_of[candidates] = torch.arange(len(candidates), device=items.device)
        item = candidate_of[left_out.item]
        is_candidate = item >= 0
        before = torch.cat([is_candidate.new_zeros(1, dtype=torch.int64), is_candidate.cumsum(0)])
        left_out = LeftOut(before[left_out.start], item[is_candidate])
    loss: Tensor = _CrossEntropy.apply(
        query, items[candidates], corrected, position[: len(target)], prior, moment, left_out
    )
    return loss
