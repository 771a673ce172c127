"""The optimiser's work: epochs of truncated backpropagation through time, early stopping, the last pass.

In a group of processes (eddy.models.training.distributed) each does the same on its own share of every batch;
sums and decisions are made over all of them.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.errors import UnfitModel
from eddy.models.training.distributed import ALONE, Group
from eddy.models.training.gate_fitting import SCORE_PARTS
from eddy.models.training.objective import Objective
from eddy.models.training.resume import TrainingState, load_training_state, save_training_state
from eddy.models.training.ridge import fit_readout, fit_scale
from eddy.models.training.sequences import Batch, batches


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress bar."""

    phase: str  # "network", "metadata" or "whole log"
    epoch: int
    epochs: int
    done: int  # targets of this epoch
    total: int
    loss: float  # running mean, nats

    @property
    def text(self) -> str:
        """Where it stands, for people."""
        most = max(self.epoch, self.epochs)
        return f"{self.phase}, epoch {self.epoch} of at most {most}, loss {self.loss:.3f}"


ProgressCallback = Callable[[Progress], None]

MIN_STEPS, MIN_EVENTS = 200, 256
"""An epoch has at least MIN_STEPS optimiser steps, unless these would have fewer than MIN_EVENTS events each.
"""

LOG_EVERY = 16
"""Steps on a GPU between two looks at the loss, as reading it waits for the GPU."""

FEATURE_SHARE = 0.5
"""Share of the items for whose vectors features stand in while they learn to."""


class Trainer:
    """One network, one log, one optimiser."""

    def __init__(
        self, objective: Objective, progress: ProgressCallback, checkpoint: Path | None = None,
        group: Group = ALONE,
    ) -> None:  # fmt: skip
        self.objective = objective
        self.recommender, self.data, self.settings = objective.recommender, objective.data, objective.settings
        self.group = group
        self._loss_of = group.wrapped(self.objective)
        self.progress = progress
        self.checkpoint = checkpoint
        self.device = objective.device
        self.log_every = LOG_EVERY if self.device.type == "cuda" else 1
        self.users = np.flatnonzero(group.total(np.diff(self.data.start)))
        self.whole_log = range(self.data.rows)
        self.optimizer = self._new_optimizer()
        self.average: dict[str, Tensor] = {}
        self.averaged = 0
        self.started = time.perf_counter()
        self.identity = repr(
            (self.recommender.config, replace(self.settings, device=""), objective.fingerprint())
        )

    def _new_optimizer(self) -> torch.optim.Optimizer:
        r = self.recommender
        network = [p for n, p in r.named_parameters() if not n.startswith(SCORE_PARTS)]
        return torch.optim.AdamW(
            network, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )

    def count(self, wanted: range) -> int:
        """The number of predictions of targets in these rows, of all processes."""
        return int(self.group.total(np.array([self.data.count(wanted)]))[0])

    def fit_network(self, first: int) -> dict[str, Any]:
        """Train without the held-out part until early stopping; the weights of the best epoch are kept.

        first: the held-out part begins with this row of the log. Returns "curve" (a point per epoch),
        "best_epoch" and "seconds".

        Each epoch: 1. Check patience and the time budget. 2. Make the pass. 3. Judge the running average of
        the weights, or the weights, on the held-out part. 4. Keep the best, and save the checkpoint.
        """
        settings, learned, held_out = self.settings, range(first), range(first, self.data.rows)
        watches = self.count(held_out) > 0
        state = self._restored()
        began = time.process_time() - (state.curve[-1]["cpu_s"] if state.curve else 0.0)
        for epoch in range(state.epoch + 1, settings.epochs + 1):
            # 1. Patience and time.
            if epoch - 1 - state.best_epoch >= settings.patience:
                break
            if state.curve and self.group.from_first(self._elapsed()) > settings.seconds:
                break
            # 2. The pass.
            loss, speed = self._epoch("network", epoch, settings.epochs, learned, self._falling)
            point = {
                "epoch": epoch,
                "loss": loss,
                "events_per_s": speed,
                "cpu_s": time.process_time() - began,
            }
            # 3. The candidate for the best epoch, judged.
            state.weights = self._weights()
            state.average = {name: weight.detach().cpu().clone() for name, weight in self.average.items()}
            state.averaged = self.averaged
            candidate = state.weights | state.average
            self.recommender.load_state_dict(candidate)
            watched = loss
            if watches:
                point["validation_loss"] = watched = self.loss(held_out)
            self._require_number(watched, epoch)
            self.recommender.load_state_dict(state.weights)
            # 4. What is kept.
            state.epoch = epoch
            state.curve.append(point)
            if watched < state.best_loss:
                state.best_loss, state.best_epoch, state.best_weights = watched, epoch, candidate
            if self.checkpoint is not None and self.group.first:
                state.optimizer = self.optimizer.state_dict()
                save_training_state(self.checkpoint, state, self.identity)
        self.recommender.load_state_dict(state.best_weights)
        return {"curve": state.curve, "best_epoch": state.best_epoch, "seconds": self._elapsed()}

    def fit_ridge(self, first: int) -> dict[str, Any]:
        """Fit the readout in closed form (eddy.models.training.ridge), at the scale at which the loss of the
        held-out part, from row `first` on, is least.
        """
        held_out = range(first, self.data.rows)
        fit_readout(self.recommender, self._states(range(first)), self.settings.ridge, total=self.group.sum)
        watched = held_out if self.count(held_out) else self.whole_log
        curve = fit_scale(self.recommender, lambda: self.loss(watched))
        return {"curve": curve, "seconds": self._elapsed()}

    @torch.no_grad()
    def _states(self, wanted: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the cell's outputs [q,H] at the targets in the wanted rows, and these [q], batch by batch."""
        self.recommender.eval()
        state = self.recommender.initial(1)
        for batch in self._batches(wanted, self.users, 4 * self.settings.bptt_steps, 8192):
            if len(batch.event):
                outputs, state = self.objective.outputs(batch, state)
                yield outputs, self._targets(batch).to(self.device)

    def _batches(self, wanted: range, users: NDArray[np.int64], steps: int, events: int) -> Iterator[Batch]:
        return batches(self.data, wanted, users, steps, events, self.group.total)

    def _targets(self, batch: Batch) -> Tensor:
        """The targets of this process's part of a batch: int64[q]."""
        return self.data.target[batch.prediction].long()

    def fit_whole(self, metrics: dict[str, Any]) -> None:
        """Make one more pass, over the whole log; the learning rate falls from TrainConfig.whole of its peak
        to 0. Adds "whole_loss" to the metrics.
        """
        if self.settings.ridge:
            scale = metrics["curve"][-1]["scale"]
            states = self._states(self.whole_log)
            fit_readout(self.recommender, states, self.settings.ridge, scale, self.group.sum)
            return
        self.optimizer = self._new_optimizer()
        epoch = self.settings.epochs + 1
        peak = self.settings.whole
        loss, _ = self._epoch("whole log", epoch, epoch, self.whole_log, lambda done: peak * (epoch - done))
        metrics["whole_loss"] = loss

    def fit_features(self) -> None:
        """Make one pass over the whole log in which features learn to stand in for items' own vectors: in
        each step for half of the items, beside the vectors of the others. Nothing else learns.
        """
        settings = self.settings
        self.optimizer = torch.optim.Adam([self.recommender.feature_vectors], settings.learning_rate)
        self.objective.feature_share = FEATURE_SHARE
        epoch = settings.epochs + 2
        self._epoch("metadata", epoch, epoch, self.whole_log, lambda done: epoch - done)
        self.objective.feature_share = 0.0

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.recommender.state_dict().items()}

    def _restored(self) -> TrainingState:
        state = None
        if self.checkpoint is not None and self.group.first:
            state = load_training_state(self.checkpoint, self.identity)
        state = self.group.from_first(state)
        if state is None:
            weights = self._weights()
            return TrainingState(0, weights, {}, 0, weights, math.inf, 0, {}, [])
        self.recommender.load_state_dict(state.weights)
        self.optimizer.load_state_dict(state.optimizer)
        self.average = {name: weight.to(self.device) for name, weight in state.average.items()}
        self.averaged = state.averaged
        return state

    @torch.no_grad()
    def _take_into_average(self) -> None:
        """Move the running average towards the present weights; the first steps fade fast."""
        keep = min(self.settings.average, (1 + self.averaged) / (10 + self.averaged))
        for name, weight in self.recommender.named_parameters():
            if name in self.average:
                self.average[name].lerp_(weight, 1 - keep)
            else:
                self.average[name] = weight.detach().clone()
        self.averaged += 1

    def _falling(self, done: float) -> float:
        """Share of the peak learning rate after `done` epochs: it rises within half an epoch, and has fallen
        to 2 % at the end.
        """
        return min(1.0, 0.05 + done / 0.5) * (1 - 0.98 * min(done / self.settings.epochs, 1.0))

    def _elapsed(self) -> float:
        return time.perf_counter() - self.started

    def _epoch(
        self,
        phase: str,
        epoch: int,
        epochs: int,
        wanted: range,
        schedule: Callable[[float], float],
    ) -> tuple[float, float]:
        """Make one pass over the targets in the wanted rows; returns the mean loss (nats) and events per
        second.

        1. Seed, and shuffle the users. 2. For each batch: backpropagate, step, and carry the states on. 3.
        Look at the loss now and then: tell the progress, or end a run that diverges.
        """
        settings, recommender = self.settings, self.recommender
        # 1. Users in an order of this epoch's own.
        self._seed(epoch)
        users = np.random.default_rng((settings.seed, epoch)).permutation(self.users)
        recommender.train()
        count = self.count(wanted)
        done, seen, began = 0, 0, time.perf_counter()
        summed = torch.zeros((), dtype=torch.float64, device=self.device)
        state = recommender.initial(1)
        # A small log in large batches is too few steps to learn from.
        per_step = min(settings.bptt_steps * settings.batch, max(MIN_EVENTS, count // MIN_STEPS))
        steps = self._batches(wanted, users, settings.bptt_steps, per_step)
        learning = [weight for weights in self.optimizer.param_groups for weight in weights["params"]]
        # 2. Optimiser steps.
        for number, batch in enumerate(steps, 1):
            targets = self.group.concatenated(self._targets(batch))
            loss, state = self._loss_of(batch, state, targets)
            for weights in self.optimizer.param_groups:
                weights["lr"] = settings.learning_rate * schedule(epoch - 1 + done / count)
            self.optimizer.zero_grad()
            # The group averages gradients of sums; the step needs the gradient of the mean over predictions.
            torch.autograd.backward(loss * (self.group.size / max(1, len(targets))))
            torch.nn.utils.clip_grad_norm_(learning, settings.clip)
            self.optimizer.step()
            if settings.average and phase == "network":
                self._take_into_average()
            summed += self.group.sum(loss.detach())
            done += len(targets)
            seen += len(batch.event)
            # 3. A look at the loss.
            if done < count and number % self.log_every:
                continue
            total = summed.item()
            self._require_number(total, epoch)
            self.progress(Progress(phase, epoch, epochs, done, count, total / max(done, 1)))
        seen = int(self.group.sum(torch.tensor(seen)))
        return summed.item() / max(done, 1), seen / (time.perf_counter() - began)

    def _require_number(self, loss: float, epoch: int) -> None:
        """Errors: UnfitModel for a loss that is not a number, or infinite: its weights are of no use."""
        if not math.isfinite(loss):
            raise UnfitModel(
                f"training: the loss is not a number in epoch {epoch}; lower learning_rate "
                f"({self.settings.learning_rate}) or clip ({self.settings.clip})"
            )

    def _seed(self, epoch: int) -> None:
        """Seed dropout, which differs between processes, and the sampled softmax, whose items are the same in
        all processes and in a lone one.
        """
        seed = self.settings.seed * 100_003 + epoch
        torch.manual_seed(seed + self.group.rank * 1_000_000_007)
        if self.group.size > 1:
            self.objective.draws = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def loss(self, wanted: range) -> float:
        """Mean full-softmax loss (nats) of the targets in the wanted rows, after whole histories."""
        self.recommender.eval()
        total, count = 0.0, 0
        state = self.recommender.initial(1)
        for batch in self._batches(wanted, self.users, 4 * self.settings.bptt_steps, 8192):
            loss, state = self.objective(batch, state, self._targets(batch))
            total += loss.item()
            count += len(batch.prediction)
        summed = self.group.sum(torch.tensor([total, count], dtype=torch.float64))
        return float(summed[0] / max(summed[1].item(), 1))
