"""Cross entropy over items, with the gradient computed in the forward pass, a tile of predictions at a time.

The logits of a batch (thousands of predictions by all items) never exist at once: each tile is scored, turned
into its gradient in place, and folded into the gradients of both sides while it is in the cache.
"""

from typing import Any

import torch
from torch import Tensor

TILE_FLOATS = 1 << 20


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
    ) -> Tensor:
        grad_query, grad_items, grad_bias = (
            torch.empty_like(query, dtype=items.dtype), torch.zeros_like(items), torch.zeros_like(bias)
        )  # fmt: skip
        loss = bias.new_zeros(())
        vectors = items.to(query.dtype)
        step = max(1, TILE_FLOATS // len(items))
        for q, t, g, at in zip(
            *(torch.split(part, step) for part in (query, target, grad_query, moment)), strict=True
        ):
            logits = torch.mm(q, vectors.T).float().add_(bias)
            if prior is not None:
                logits += prior[at]
            own = logits.gather(1, t[:, None])
            largest = logits.amax(dim=1, keepdim=True)
            unscaled = logits.sub_(largest).exp_()
            scale = 1 / unscaled.sum(dim=1, keepdim=True)
            loss += (largest - torch.log(scale) - own).sum()
            # p = unscaled * scale is never formed: the scale goes to the thin sides of the products.
            grad_bias.addmv_(unscaled.T, scale[:, 0])
            if q.dtype == torch.float32:
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
        return (query * grad).to(ctx.query_type), items * grad, bias * grad, None, None, None


def full_softmax(
    query: Tensor, items: Tensor, bias: Tensor, target: Tensor, prior: Tensor | None, moment: Tensor
) -> Tensor:
    """Summed cross entropy of query[p,D] against items[V,D] and bias[V] at target[p]: a scalar.

    prior[G,V] is added to the logits, for each prediction the row moment[p] of it. The products are made in
    the query's type, so a bfloat16 query makes them bfloat16; all else is float32.
    """
    loss: Tensor = _CrossEntropy.apply(query, items, bias, target, prior, moment)
    return loss


def sampled_softmax(
    query: Tensor, items: Tensor, bias: Tensor, target: Tensor, prior: Tensor | None, moment: Tensor,
    sample: Tensor, inclusion: Tensor,
) -> Tensor:  # fmt: skip
    """Summed cross entropy over the batch's own targets and a sample of items instead of all.

    sample[s] are item indices; inclusion[V] is the probability with which an item is among the candidates
    (drawn or a target of the batch). Its logarithm is subtracted from the logits (logQ correction: Bengio &
    Senécal 2008, Yi et al., RecSys 2019), so that the expected gradient is that of the full softmax, not that
    of popular items.
    """
    candidates, position = torch.unique(torch.cat([target, sample]), return_inverse=True)
    corrected = bias[candidates] - torch.log(inclusion[candidates])
    prior = None if prior is None else prior[:, candidates]
    loss: Tensor = _CrossEntropy.apply(
        query, items[candidates], corrected, position[: len(target)], prior, moment
    )
    return loss
