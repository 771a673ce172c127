"""Cross entropy over items, with the gradient computed in the forward pass, a tile of predictions at a time.

The logits of a batch (thousands of predictions by all items) never exist at once: each tile is scored, turned into its
gradient in place, and folded into the gradients of both sides while it is in the cache.
"""

from typing import Any

import torch
from torch import Tensor

TILE_FLOATS = 1 << 20


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, items: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        grad_query, grad_items, grad_bias = (
            torch.empty_like(query), torch.zeros_like(items), torch.zeros_like(bias)
        )  # fmt: skip
        loss = query.new_zeros(())
        step = max(1, TILE_FLOATS // len(items))
        for q, t, g in zip(query.split(step), target.split(step), grad_query.split(step), strict=True):
            logits = torch.addmm(bias, q, items.T)
            log_z = torch.logsumexp(logits, dim=1, keepdim=True)
            loss += (log_z - logits.gather(1, t[:, None])).sum()
            p = logits.sub_(log_z).exp_()
            p.scatter_add_(1, t[:, None], torch.full_like(log_z, -1.0))
            torch.mm(p, items, out=g)
            grad_items.addmm_(p.T, q)
            grad_bias += p.sum(dim=0)
        ctx.save_for_backward(grad_query, grad_items, grad_bias)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        query, items, bias = ctx.saved_tensors
        return query * grad, items * grad, bias * grad, None


def full_softmax(query: Tensor, items: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """Summed cross entropy of query[p,D] against items[V,D] and bias[V] at target[p]: a scalar."""
    loss: Tensor = _CrossEntropy.apply(query, items, bias, target)
    return loss


def sampled_softmax(
    query: Tensor, items: Tensor, bias: Tensor, target: Tensor, sample: Tensor, inclusion: Tensor
) -> Tensor:
    """Summed cross entropy over the batch's own targets and a sample of items instead of all.

    sample[s] are item indices; inclusion[V] is the probability with which an item is among the candidates (drawn or
    a target of the batch). Its logarithm is subtracted from the logits (logQ correction: Bengio & Senécal 2008, Yi et
    al., RecSys 2019), so that the expected gradient is that of the full softmax, not that of popular items.
    """
    candidates, position = torch.unique(torch.cat([target, sample]), return_inverse=True)
    corrected = bias[candidates] - torch.log(inclusion[candidates])
    loss: Tensor = _CrossEntropy.apply(query, items[candidates], corrected, position[: len(target)])
    return loss
