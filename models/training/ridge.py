"""The echo-state network's readout in closed form: ridge regression instead of gradients (Jaeger 2001;
Lukoševičius, "A Practical Guide to Applying Echo State Networks", 2012, section 4).

The reservoir's states h at the n predictions of a log, with a constant 1 beside them, are the rows of
X[n, H + 1]; the item vectors of their targets are the rows of Y[n, D]. The readout P, b of query = P h + b
minimises ‖X [P, b]ᵀ - Y‖² + λ n ‖P‖²:

    (XᵀX + λ n J) [P, b]ᵀ = XᵀY,    J = identity, but 0 for the constant.

The item vectors stay as they were drawn, nearly orthogonal, so query · item vector is a random projection of
the regression of one-hot targets. Regression gives shares, and a softmax wants logarithms: one number, the
scale between them, is chosen for the least cross entropy.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from eddy.models.errors import EddyError
from eddy.models.network.recommender import Recommender

SCALES = tuple(2.0**power for power in range(-2, 9))
"""Scales of the query that are tried: shares are at most 1, logarithms of shares differ by several nats."""


class NormalEquations:
    """XᵀX and XᵀY, summed in float64, a chunk of predictions at a time."""

    def __init__(self, hidden: int, dim: int) -> None:
        self.xx = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64)
        self.xy = torch.zeros(hidden + 1, dim, dtype=torch.float64)
        self.count = 0

    def add_chunk(self, h: Tensor, y: Tensor) -> None:
        """Add the cell's outputs h[n,H] at n predictions, and the item vectors y[n,D] of their targets."""
        x = torch.cat([h, h.new_ones(len(h), 1)], dim=1).double().cpu()
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y.double().cpu())
        self.count += len(h)

    def sum_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by those over all processes, which `total` makes."""
        self.xx, self.xy = total(self.xx), total(self.xy)
        self.count = int(total(torch.tensor(self.count)))

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """The readout P[D,H] and b[D] with λ = strength, which is above 0; zeros without any prediction.

        Errors: EddyError when the penalty is too small beside the states' squares.
        """
        penalty = torch.full((len(self.xx),), strength * max(self.count, 1), dtype=torch.float64)
        penalty[-1] = 0.0 if self.count else 1.0
        factor, failed = torch.linalg.cholesky_ex(self.xx + torch.diag(penalty))
        if failed:
            raise EddyError(
                f"training: ridge={strength:g} is too small for the readout of {len(self.xx) - 1} units from "
                f"{self.count} predictions; give a larger ridge, or fewer hidden units"
            )
        solution = torch.cholesky_solve(self.xy, factor).T
        return solution[:, :-1].float(), solution[:, -1].float()


@torch.no_grad()
def fit_readout(
    recommender: Recommender, chunks: Iterable[tuple[Tensor, Tensor]], strength: float, scale: float = 1.0,
    total: Callable[[Tensor], Tensor] = lambda partial: partial,
) -> None:  # fmt: skip
    """Set the readout from chunks of cell outputs h[n,H] and targets[n] (vocabulary indices).

    total: sums a tensor over all processes, each of which has chunks of its own.
    """
    equations = NormalEquations(recommender.config.hidden, recommender.config.dim)
    for h, target in chunks:
        equations.add_chunk(h, recommender.item_vectors[target])
    equations.sum_up(total)
    weight, bias = equations.solve(strength)
    recommender.project.weight.copy_(weight * scale)
    recommender.project.bias.copy_(bias * scale)


@torch.no_grad()
def fit_scale(recommender: Recommender, loss: Callable[[], float]) -> list[dict[str, float]]:
    """Scale the readout so that `loss` (cross entropy, convex in the scale) is least among SCALES.

    Returns the scales up to that one, each with its "validation_loss".
    """
    readout = [part.clone() for part in recommender.project.parameters()]

    def scale_to(scale: float) -> None:
        for part, unscaled in zip(recommender.project.parameters(), readout, strict=True):
            part.copy_(unscaled * scale)

    tried: list[dict[str, float]] = []
    for scale in SCALES:
        scale_to(scale)
        validation_loss = loss()
        if tried and not validation_loss < tried[-1]["validation_loss"]:
            break
        tried.append({"scale": scale, "validation_loss": validation_loss})
    scale_to(tried[-1]["scale"])
    return tried
