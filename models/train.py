"""Training by truncated backpropagation through time (Werbos 1990; Williams & Peng 1990).

Three phases: the network learns from the log but its last part (early stopping watches that part); the gates
that weigh network, moving popularity, pointer and transitions are fitted on the held-out part as the stream
would have seen it (models.gates); then the network goes on over the whole log, so that the version knows the
newest items.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.config import ModelConfig, TrainConfig
from models.diagnostics import gradients
from models.errors import EddyError
from models.events import Events
from models.gates import SCORE_PARTS, fit_gates
from models.losses import LeftOut, full_softmax, sampled_softmax
from models.prior import Prior, prior_of
from models.recommender import Recommender
from models.resume import TrainingState, load, save
from models.ridge import fit_readout, fit_scale
from models.rules import EventRules
from models.sequences import Batch, Sequences, batches, carried, sequences
from models.splits import MIN_EVENTS as MIN_USER_EVENTS
from models.tensors import Inputs
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress bar."""

    phase: str  # "network", "gates" or "whole log"
    epoch: int
    epochs: int
    done: int  # targets of this epoch
    total: int
    loss: float  # running mean, nats


@dataclass
class Trained:
    """What training gives: a recommender in evaluation mode, its vocabulary, and what was measured on the
    way.
    """

    recommender: Recommender
    vocabulary: Vocabulary
    rules: EventRules
    metrics: dict[str, Any] = field(default_factory=dict)


ProgressCallback = Callable[[Progress], None]

MIN_STEPS, MIN_EVENTS = 200, 256
"""An epoch has at least so many optimiser steps, unless they would have fewer events than that each."""

SEEN = 4096
"""Of a longer history, only so many of the last events are left out of the softmax."""


def train(
    events: Events, config: ModelConfig, settings: TrainConfig, rules: EventRules,
    progress: ProgressCallback | None = None, checkpoint: Path | None = None,
) -> Trained:  # fmt: skip
    """Train a version on a log. With `checkpoint`, every epoch is saved there and a killed run goes on from
    it.

    Errors: EddyError for a log without targets, with a single item, and when the loss stops being a number.
    """
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    if settings.ridge and config.cell != "esn":
        raise EddyError(
            f"ridge is the readout of cell esn; a {config.cell} learns by gradient: leave it at 0"
        )
    vocabulary, moved = vocabulary_of(events, config, rules)
    torch.manual_seed(settings.seed)
    recommender = Recommender(config, len(vocabulary), len(vocabulary.types)).to(settings.device)
    events, first = _held_out(events, settings.validation)
    data = sequences(events, vocabulary, rules)
    if not len(data.target):
        raise EddyError(f"{events.source}: no event is a target under the rules; change the 'target' rule")
    held_out = data.row >= first
    prior = prior_of(events, vocabulary, config, rules)
    trainer = Trainer(recommender, data, settings, progress or (lambda _: None), checkpoint, prior)
    metrics = trainer.fit_ridge(held_out) if settings.ridge else trainer.fit_network(held_out)
    if held_out.any() and settings.gate_epochs:
        metrics["gates"] = fit_gates(recommender, vocabulary, events, first, rules, settings)
    if held_out.any() and settings.whole:
        trainer.fit_whole(metrics)
    if config.cell != "esn":  # nothing is learned through its recurrence
        metrics["gradients"] = gradients(
            recommender, events, vocabulary, rules, settings.window, settings.clip
        )
    if events.clock:
        metrics["until_ms"] = int(events.timestamp[-1])  # evaluation warns of versions that know its events
    metrics.update(events=len(events), items=len(vocabulary), users=len(events.users), moved=moved)
    return Trained(recommender.eval(), vocabulary, rules, metrics)


def vocabulary_of(events: Events, config: ModelConfig, rules: EventRules) -> tuple[Vocabulary, int]:
    """Items and types that occur in the log, and how many events move states; EddyError if too few to learn
    from.
    """
    items = np.unique(events.item)
    if len(items) < 2:
        raise EddyError(f"{events.source}: {len(items)} items; a ranking needs at least two")
    moved = int(events.flags(rules).moves.sum())
    if not moved:
        raise EddyError(f"{events.source}: no event moves a state under the rules; change the 'state' rule")
    types = np.unique(events.type)
    vocabulary = Vocabulary(
        [events.items[i] for i in items], [events.types[i] for i in types], config.item_buckets
    )
    return vocabulary, moved


def _held_out(events: Events, share: float) -> tuple[Events, int]:
    """The log in an order in which what is held out comes last, and its first row that is held out.

    By time that is the last share of the log; a log without a clock has the last event of every user put at
    its end (users with three events or more), so that gates are fitted on what nobody has trained on there
    too.
    """
    if not share:
        return events, len(events)
    if events.clock:
        return events, int(len(events) * (1 - share))
    by_user = np.argsort(events.user, kind="stable")
    last = np.flatnonzero(np.diff(events.user[by_user], append=-1))  # position of each user's last event
    held = np.sort(by_user[last[np.diff(last, prepend=-1) >= MIN_USER_EVENTS]])
    rest = np.delete(np.arange(len(events)), held)
    return events.take(np.concatenate([rest, held])), len(rest)


class Trainer:
    """One network, one log, one optimiser."""

    def __init__(
        self, recommender: Recommender, data: Sequences, settings: TrainConfig, progress: ProgressCallback,
        checkpoint: Path | None = None, prior: Prior | None = None,
    ) -> None:  # fmt: skip
        self.log_prior = None if prior is None else prior.log_p.to(settings.device)
        self.moment = torch.zeros(len(data.row), dtype=torch.int64)
        if prior is not None:
            self.moment = prior.moment[torch.from_numpy(data.row)]
        self.recommender = recommender
        self.data = data
        self.settings = settings
        self.progress = progress
        self.checkpoint = checkpoint
        self.device = torch.device(settings.device)
        self.users = np.flatnonzero(np.diff(data.start))
        self.optimizer = self._new_optimizer()
        counts = torch.bincount(data.target, minlength=recommender.items).double()
        self.sampling = (counts + 1).sqrt() / (counts + 1).sqrt().sum()
        self.frequency = counts / counts.sum()
        self.average: dict[str, Tensor] = {}
        self.averaged = 0
        self.started = time.perf_counter()
        what = (recommender.config, settings, len(data.row), int(data.target.sum()), int(data.idle_ms.sum()))
        self.identity = repr(what)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        r = self.recommender
        network = [p for n, p in r.named_parameters() if not n.startswith(SCORE_PARTS)]
        return torch.optim.AdamW(
            network, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )

    def fit_network(self, held_out: NDArray[np.bool_]) -> dict[str, Any]:
        """Early-stopped training without the held-out part; leaves the best epoch's weights."""
        settings = self.settings
        state = self._restored()
        began = time.process_time() - (state.curve[-1]["cpu_s"] if state.curve else 0.0)
        for epoch in range(state.epoch + 1, settings.epochs + 1):
            if epoch - 1 - state.best_epoch >= settings.patience or self._elapsed() > settings.seconds:
                break
            loss, speed = self._epoch("network", epoch, settings.epochs, ~held_out, self._falling)
            point = {
                "epoch": epoch,
                "loss": loss,
                "events_per_s": speed,
                "cpu_s": time.process_time() - began,
            }
            state.weights = self._weights()
            state.average = {name: weight.detach().cpu().clone() for name, weight in self.average.items()}
            state.averaged = self.averaged
            candidate = state.weights | state.average
            self.recommender.load_state_dict(candidate)
            watched = loss
            if held_out.any():
                point["validation_loss"] = watched = self.loss(held_out)
            self.recommender.load_state_dict(state.weights)
            state.epoch = epoch
            state.curve.append(point)
            if watched < state.best_loss:
                state.best_loss, state.best_epoch, state.best_weights = watched, epoch, candidate
            if self.checkpoint is not None:
                state.optimizer = self.optimizer.state_dict()
                save(self.checkpoint, state, self.identity)
        self.recommender.load_state_dict(state.best_weights)
        return {"curve": state.curve, "best_epoch": state.best_epoch, "seconds": self._elapsed()}

    def fit_ridge(self, held_out: NDArray[np.bool_]) -> dict[str, Any]:
        """The readout in closed form (models.ridge), with the scale that the held-out part likes best."""
        everything = np.ones(len(self.data.row), bool)
        fit_readout(self.recommender, self._states(~held_out), self.settings.ridge)
        watched = held_out if held_out.any() else everything
        curve = fit_scale(self.recommender, lambda: self.loss(watched))
        return {"curve": curve, "seconds": self._elapsed()}

    @torch.no_grad()
    def _states(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[Tensor, Tensor]]:
        """The cell's outputs [q,H] at the wanted predictions, and the targets [q], a batch at a time."""
        self.recommender.eval()
        state = self.recommender.initial(1)
        for batch in batches(self.data, wanted, self.users, 4 * self.settings.window, 8192):
            outputs, state = self.outputs(batch, state)
            yield outputs, self.data.target[batch.prediction].to(self.device)

    def fit_whole(self, metrics: dict[str, Any]) -> None:
        """One more pass over the whole log; the learning rate falls from its share of the peak to 0."""
        everything = np.ones(len(self.data.row), bool)
        if self.settings.ridge:
            scale = metrics["curve"][-1]["scale"]
            fit_readout(self.recommender, self._states(everything), self.settings.ridge, scale)
            return
        self.optimizer = self._new_optimizer()
        epoch = self.settings.epochs + 1
        peak = self.settings.whole
        loss, _ = self._epoch("whole log", epoch, epoch, everything, lambda at: peak * (epoch - at))
        metrics["whole_loss"] = loss

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.recommender.state_dict().items()}

    def _restored(self) -> TrainingState:
        state = None if self.checkpoint is None else load(self.checkpoint, self.identity)
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
        """Move the running average towards the weights as they are; the first steps fade fast."""
        keep = min(self.settings.average, (1 + self.averaged) / (10 + self.averaged))
        for name, weight in self.recommender.named_parameters():
            if name in self.average:
                self.average[name].lerp_(weight, 1 - keep)
            else:
                self.average[name] = weight.detach().clone()
        self.averaged += 1

    def _falling(self, at: float) -> float:
        """Share of the peak learning rate after `at` epochs: up over half an epoch, then down to 2 % at the
        last.
        """
        return min(1.0, 0.05 + at / 0.5) * (1 - 0.98 * min(at / self.settings.epochs, 1.0))

    def _elapsed(self) -> float:
        return time.perf_counter() - self.started

    def _epoch(
        self,
        phase: str,
        epoch: int,
        epochs: int,
        wanted: NDArray[np.bool_],
        schedule: Callable[[float], float],
    ) -> tuple[float, float]:
        """One pass: mean loss and events per second."""
        settings, recommender = self.settings, self.recommender
        torch.manual_seed(settings.seed * 100_003 + epoch)
        users = np.random.default_rng((settings.seed, epoch)).permutation(self.users)
        recommender.train()
        count = int(wanted.sum())
        total, done, seen, began = 0.0, 0, 0, time.perf_counter()
        state = recommender.initial(1)
        # A small log in large batches is too few steps to learn from.
        per_step = min(settings.window * settings.batch, max(MIN_EVENTS, count // MIN_STEPS))
        for batch in batches(self.data, wanted, users, settings.window, per_step):
            loss, state = self._forward(batch, state.detach())
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule(epoch - 1 + done / count)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss / max(1, len(batch.prediction)))
            torch.nn.utils.clip_grad_norm_(recommender.parameters(), settings.clip)
            self.optimizer.step()
            if settings.average and phase == "network":
                self._take_into_average()
            total += loss.item()
            done += len(batch.prediction)
            seen += len(batch.event)
            if not math.isfinite(total):
                raise EddyError(
                    f"training: the loss is not a number in epoch {epoch}; lower learning_rate "
                    f"({settings.learning_rate}) or clip ({settings.clip})"
                )
            self.progress(Progress(phase, epoch, epochs, done, count, total / max(done, 1)))
        return total / max(done, 1), seen / (time.perf_counter() - began)

    def _forward(self, batch: Batch, before: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch and the states at its windows' ends; `before` are the previous batch's."""
        data, recommender = self.data, self.recommender
        idle = data.idle_ms[batch.prediction].to(self.device)
        target = data.target[batch.prediction].to(self.device)
        low = recommender.training and self.settings.precision == "bfloat16"
        # On a CPU the cell stays float32: torch has no packed bfloat16 LSTM there, and the others are slower.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low and self.device.type != "cpu"):
            outputs, state = self.outputs(
                batch, before, self.settings.item_dropout if recommender.training else 0.0
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            query = recommender.user_vector(outputs, idle)
        query, state = query.to(torch.bfloat16) if low else query, state.float()
        vectors, bias = recommender.item_vectors[: recommender.items], recommender.item_bias
        prior, moment = self.log_prior, self.moment[batch.prediction].to(self.device)
        sampled = self.settings.sampled
        left_out = self._left_out(batch.prediction) if self.settings.unseen else None
        if not recommender.training or not 0 < sampled < recommender.items:
            return full_softmax(query, vectors, bias, target, prior, moment, left_out), state
        sample = torch.multinomial(self.sampling, sampled, replacement=True)
        out = (1 - self.sampling) ** sampled * (1 - self.frequency) ** len(target)
        inclusion = (1 - out).float().to(self.device)
        loss = sampled_softmax(
            query, vectors, bias, target, prior, moment, sample.to(self.device), inclusion, left_out
        )
        return loss, state

    def _left_out(self, prediction: Tensor) -> LeftOut:
        """The items before each prediction, but its target."""
        data, index = self.data, prediction.numpy()
        state, target = data.state[index], data.target[prediction]
        count = np.where(state >= 0, np.minimum(state + 1 - data.start[data.user[index]], SEEN), 0)
        row = np.repeat(np.arange(len(index)), count)
        first = state + 1 - count - (np.cumsum(count) - count)  # of a row's events, less their place in `row`
        item = data.inputs.item[torch.from_numpy(first[row] + np.arange(len(row)))]
        kept = (item < self.recommender.items) & (item != target[torch.from_numpy(row)])
        start = torch.from_numpy(np.concatenate([[0], np.cumsum(count)]))
        before = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        return LeftOut(before[start].to(self.device), item[kept].to(self.device))

    def outputs(self, batch: Batch, before: Tensor, item_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """The cell's outputs at the batch's predictions [q,H], and the states at its windows' ends."""
        recommender = self.recommender
        item, *rest = (part[batch.event] for part in self.data.inputs)
        if item_dropout:
            # Any bucket will do: which one an item falls into is arbitrary, what it must mean is "unknown
            # item".
            dropped = torch.rand(item.shape) < item_dropout
            bucket = recommender.items + torch.randint(recommender.config.item_buckets, item.shape)
            item = torch.where(dropped, bucket, item)
        inputs = Inputs(*(part.to(self.device) for part in (item, *rest)))
        outputs, state = recommender.packed(inputs, batch.batch_sizes, carried(before, batch))
        start = recommender.cell.output(recommender.initial(1))
        return torch.cat([start, outputs])[batch.output.to(self.device)], state

    @torch.no_grad()
    def loss(self, wanted: NDArray[np.bool_]) -> float:
        """Mean full-softmax loss of these predictions, each from its user's whole history."""
        self.recommender.eval()
        total, count = 0.0, 0
        state = self.recommender.initial(1)
        for batch in batches(self.data, wanted, self.users, 4 * self.settings.window, 8192):
            loss, state = self._forward(batch, state)
            total += loss.item()
            count += len(batch.prediction)
        return total / max(count, 1)
