"""The training objective: the cross entropy of the next item after each step of a batch's windows, over all
items or a sample of them.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from eddy.models.config import TrainConfig
from eddy.models.logs.item_features import Bags
from eddy.models.logs.order import count_numbers
from eddy.models.network.recommender import Recommender
from eddy.models.tensors import Inputs
from eddy.models.training.distributed import ALONE, Group
from eddy.models.training.losses import LeftOut, full_softmax, sampled_softmax
from eddy.models.training.popularity_prior import Prior
from eddy.models.training.sequences import Batch, Sequences, carried, expand_ranges

SEEN = 4096
"""At most so many of a user's last events are left out of the softmax."""


class Objective(nn.Module):
    """What the optimiser minimises: the loss of a recommender on the log that it learns from."""

    def __init__(
        self, recommender: Recommender, data: Sequences, settings: TrainConfig, prior: Prior | None = None,
        features: Bags | None = None, group: Group = ALONE,
    ) -> None:  # fmt: skip
        """features: of the vocabulary's items."""
        super().__init__()
        self.recommender = recommender
        self.data = data
        self.group = group
        self.settings = settings
        self.device = torch.device(settings.device)
        self.features: Bags | None = None
        if features is not None and recommender.config.features:
            self.features = Bags(*(part.to(self.device) for part in features))
        self.prior = prior
        self.log_prior = None if prior is None else prior.log_p.to(self.device)
        # Each step picks from these: on a GPU they lie there already, unless they may be too many.
        if not data.store.is_limited:
            data = replace(
                data, inputs=Inputs(*(part.to(self.device) for part in data.inputs)),
                idle_ms=data.idle_ms.to(self.device), target=data.target.to(self.device),
            )  # fmt: skip
        self.on_device = data
        target = self.data.target.numpy()
        counts = torch.from_numpy(
            group.total(count_numbers(lambda part: target[part], len(target), recommender.items))
        ).double()
        self.sampling = (counts + 1).sqrt() / (counts + 1).sqrt().sum()
        self.frequency = counts / counts.sum()
        self.feature_share = 0.0
        """share of items for whose vectors features stand in, in each step's softmax"""
        self.draws: torch.Generator | None = None
        """source of the sampled softmax's draws; None = torch's own, from which dropout draws, too"""

    def forward(self, batch: Batch, before: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch, and the states at the ends of its windows, through which no gradient flows.

        before: these states of the previous batch. targets: int64[Q] of the batch's predictions in all
        processes; the sampled softmax takes them for candidates.
        """
        recommender = self.recommender
        if not len(batch.event):
            return recommender.item_bias.sum() * 0, recommender.initial(1)
        prediction = batch.prediction.to(self.on_device.target.device)
        idle = self.on_device.idle_ms[prediction].to(self.device)
        target = self.on_device.target[prediction].to(self.device).long()
        moment = self._moment(batch.prediction)
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
        others = torch.cat([targets, drawn]).to(self.device)
        out = (1 - self.sampling) ** sampled * (1 - self.frequency) ** len(targets)
        inclusion = (1 - out).float().to(self.device)
        loss = sampled_softmax(query, vectors, bias, target, prior, moment, others, inclusion, left_out)
        return loss, state

    def fingerprint(self) -> list[int]:
        """Numbers that differ between logs, and between metadata, but not between processes."""
        metadata = [] if self.features is None else [int(self.features.feature.sum())]
        data = self.data
        of_log = [len(data.row), int(data.target.sum()), int(data.idle_ms.sum())]
        return [*self.group.total(np.array(of_log)).tolist(), *metadata]

    def _moment(self, prediction: Tensor) -> Tensor:
        """The prior's moments of predictions: int64[q]."""
        if self.prior is None:
            return torch.zeros(len(prediction), dtype=torch.int64, device=self.device)
        return self.prior.moment_of(torch.from_numpy(self.data.row[prediction.numpy()])).to(self.device)

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
        first, target = data.start[data.user_of(index)], data.target[prediction]
        end = np.maximum(data.state_of(index) + 1, first)
        begin = np.maximum(end - SEEN, first)
        row, event = expand_ranges(begin, end)
        item = data.inputs.item[torch.from_numpy(event)].long()
        kept = (item < self.recommender.items) & (item != target[torch.from_numpy(row)])
        start = torch.from_numpy(np.concatenate([[0], np.cumsum(end - begin)]))
        before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        return LeftOut(before[start].to(self.device), item[kept].to(self.device))

    def outputs(self, batch: Batch, before: Tensor, item_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """The cell's outputs at the batch's predictions [q,H], and the states at its windows' ends."""
        recommender = self.recommender
        inputs = self.on_device.inputs_at(batch.event.to(self.on_device.target.device))
        item, *rest = (part.to(self.device) for part in inputs)
        if item_dropout:
            # Any bucket will do: which one an item falls into is arbitrary, and all must mean "unknown item".
            dropped = torch.rand(item.shape, device=self.device) < item_dropout
            drawn = torch.randint(recommender.config.item_buckets, item.shape, device=self.device)
            item = torch.where(dropped, recommender.items + drawn, item)
        outputs, state = recommender.packed(Inputs(item, *rest), batch.batch_sizes, carried(before, batch))
        start = recommender.cell.output(recommender.initial(1))
        return torch.cat([start, outputs])[batch.output.to(self.device)], state
