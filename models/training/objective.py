"""The training objective: the cross entropy of the next item after each step of a batch's windows, over all
items or a sample of them.
"""

import numpy as np
import torch
from torch import Tensor, nn

from eddy.models.config import TrainConfig
from eddy.models.logs.item_features import Bags
from eddy.models.network.recommender import Recommender
from eddy.models.tensors import Inputs
from eddy.models.training.losses import LeftOut, full_softmax, sampled_softmax
from eddy.models.training.popularity_prior import Prior
from eddy.models.training.sequences import Batch, Sequences, carried, expand_ranges

SEEN = 4096
"""At most so many of a user's last events are left out of the softmax."""


class Objective(nn.Module):
    """What the optimiser minimises: the loss of a recommender on the log that it learns from."""

    def __init__(
        self, recommender: Recommender, data: Sequences, settings: TrainConfig, prior: Prior | None = None,
        features: Bags | None = None,
    ) -> None:  # fmt: skip
        """features: of the vocabulary's items."""
        super().__init__()
        self.recommender = recommender
        self.data = data
        self.settings = settings
        self.device = torch.device(settings.device)
        self.features: Bags | None = None
        if features is not None and recommender.config.features:
            self.features = Bags(*(part.to(self.device) for part in features))
        self.log_prior = None if prior is None else prior.log_p.to(self.device)
        moment = torch.zeros(len(data.row), dtype=torch.int64)
        if prior is not None:
            moment = prior.moment[torch.from_numpy(data.row)]
        # Each step picks from these: on a GPU they lie there already.
        self.inputs = Inputs(*(part.to(self.device) for part in data.inputs))
        self.idle, self.target, self.moment = (
            part.to(self.device) for part in (data.idle_ms, data.target, moment)
        )
        counts = torch.bincount(data.target, minlength=recommender.items).double()
        self.sampling = (counts + 1).sqrt() / (counts + 1).sqrt().sum()
        self.frequency = counts / counts.sum()
        self.feature_share = 0.0
        """share of items for whose vectors features stand in, in each step's softmax"""
        self.draws: torch.Generator | None = None
        """source of the sampled softmax's draws; None = torch's own, from which dropout draws, too"""

    def forward(self, batch: Batch, before: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch, and the states at the ends of its windows, through which no gradient flows.

        before: these states of the previous batch.
        """
        data, recommender = self.data, self.recommender
        if not len(batch.event):
            return recommender.item_bias.sum() * 0, recommender.initial(1)
        prediction = batch.prediction.to(self.device)
        idle, target, moment = self.idle[prediction], self.target[prediction], self.moment[prediction]
        low = recommender.training and self.settings.precision == "bfloat16"
        # On a CPU the cell stays float32: torch has no packed bfloat16 LSTM there, and the others are slower.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low and self.device.type != "cpu"):
            outputs, state = self.outputs(
                batch, before, self.settings.item_dropout if recommender.training else 0.0
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            query = recommender.user_vector(outputs, idle)
        query, state = query.to(torch.bfloat16) if low else query, state.detach().float()
        vectors, bias = self._candidates()
        prior = self.log_prior
        sampled = self.settings.sampled
        left_out = self._left_out(batch.prediction) if self.settings.unseen else None
        if not recommender.training or not 0 < sampled < recommender.items:
            return full_softmax(query, vectors, bias, target, prior, moment, left_out), state
        # The same candidates in every process that has a share of the batch.
        drawn = torch.multinomial(self.sampling, sampled, replacement=True, generator=self.draws)
        others = torch.cat([data.target[batch.all_predictions], drawn]).to(self.device)
        out = (1 - self.sampling) ** sampled * (1 - self.frequency) ** len(batch.all_predictions)
        inclusion = (1 - out).float().to(self.device)
        loss = sampled_softmax(query, vectors, bias, target, prior, moment, others, inclusion, left_out)
        return loss, state

    def fingerprint(self) -> list[int]:
        """Numbers that differ between logs, and between metadata."""
        metadata = [] if self.features is None else [int(self.features.feature.sum())]
        return [len(self.data.row), int(self.data.target.sum()), int(self.data.idle_ms.sum()), *metadata]

    def _candidates(self) -> tuple[Tensor, Tensor]:
        """Vectors [V,D] and biases [V] of the items in the softmax: their own or, for a share of the items,
        what their features give.
        """
        recommender = self.recommender
        vectors, bias = recommender.item_vectors[: recommender.items], recommender.item_bias
        if self.features is None or not self.feature_share:
            return vectors, bias
        of_features = recommender.of_features(self.features)
        chosen = torch.rand(len(bias), device=self.device) < self.feature_share
        return (
            torch.where(chosen[:, None], of_features[:, :-1], vectors.detach()),
            torch.where(chosen, of_features[:, -1], bias.detach()),
        )

    def _left_out(self, prediction: Tensor) -> LeftOut:
        """The items that the user had before each prediction, except its target."""
        data, index = self.data, prediction.numpy()
        first, target = data.start[data.user[index]], data.target[prediction]
        end = np.maximum(data.state[index] + 1, first)
        begin = np.maximum(end - SEEN, first)
        row, event = expand_ranges(begin, end)
        item = data.inputs.item[torch.from_numpy(event)]
        kept = (item < self.recommender.items) & (item != target[torch.from_numpy(row)])
        start = torch.from_numpy(np.concatenate([[0], np.cumsum(end - begin)]))
        before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        return LeftOut(before[start].to(self.device), item[kept].to(self.device))

    def outputs(self, batch: Batch, before: Tensor, item_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """The cell's outputs at the batch's predictions [q,H], and the states at its windows' ends."""
        recommender = self.recommender
        event = batch.event.to(self.device)
        item, *rest = (part[event] for part in self.inputs)
        if item_dropout:
            # Any bucket will do: which one an item falls into is arbitrary, and all must mean "unknown item".
            dropped = torch.rand(item.shape, device=self.device) < item_dropout
            drawn = torch.randint(recommender.config.item_buckets, item.shape, device=self.device)
            item = torch.where(dropped, recommender.items + drawn, item)
        outputs, state = recommender.packed(Inputs(item, *rest), batch.batch_sizes, carried(before, batch))
        start = recommender.cell.output(recommender.initial(1))
        return torch.cat([start, outputs])[batch.output.to(self.device)], state
