"""Fitting the gates: how much network, moving popularity, pointer and transitions count, given the state.

The held-out part of the log is replayed as the stream would see it (models.replay). Only the gates and tables of the
score learn; the network, which never saw these events, is frozen, so the gates learn how far to trust it on what comes
next.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from models.config import TrainConfig
from models.events import Events
from models.mixture import mixed
from models.recommender import Recommender
from models.replay import Chunk, Replay
from models.rules import EventRules
from models.scoring import Scorer
from models.tensors import SPARSE_GATES, Query, Window
from models.vocabulary import Vocabulary

CHUNK = 256


@dataclass(frozen=True)
class _Memory:
    """A chunk with everything that does not change while the gates learn."""

    output: Tensor
    idle_ms: Tensor
    window: Window
    target: Tensor
    user_vector: Tensor  # [q,D]
    fresh: Tensor  # bool[N]: items that the network never trained on
    bias: Tensor  # [N]
    popularity: Tensor  # [F,N]
    successor: Tensor  # [q,L,M]
    share: Tensor  # [q,L,M]
    candidate: Tensor  # int64[q,C]: distinct sparse candidates, padded with 0
    group: Tensor  # int64[q,C]: which candidate each entry of Sparse belongs to
    is_target: Tensor  # bool[q,C]


def fit_gates(
    recommender: Recommender, vocabulary: Vocabulary, events: Events, first: int, rules: EventRules,
    settings: TrainConfig,
) -> dict[str, float]:  # fmt: skip
    """Fit on the targets from row `first` on, which the network has not seen. Returns the loss per target, in nats,
    before and after.
    """
    recommender.eval()
    # Items that appeared in the held-out part only have vectors that were never trained.
    seen = np.zeros(len(events.items), bool)
    seen[events.item[:first]] = True
    fresh_ids = {events.items[i] for i in np.flatnonzero(~seen)}
    untrained = torch.tensor([name in fresh_ids for name in vocabulary.items] + [True] * vocabulary.buckets)
    begin = max(first, len(events) - settings.gate_events)
    replay = Replay(recommender, vocabulary, events, rules, begin)
    scorer = Scorer(recommender, vocabulary, replay.catalogue, replay.statistics)
    tape = [
        memory
        for chunk in replay.chunks(CHUNK)
        if (memory := _remember(chunk, scorer, untrained)) is not None
    ]
    if not tape:
        return {}
    parameters = [p for n, p in recommender.named_parameters() if n.startswith(("mixture", "gate_", "new_"))]
    vectors = _vectors(scorer)
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.03, total_steps=max(2, settings.gate_epochs * len(tape))
    )
    losses = []
    for _ in range(settings.gate_epochs):
        total, count = 0.0, 0
        for index in torch.randperm(len(tape)).tolist():
            loss = _loss(recommender, vectors, tape[index])
            optimizer.zero_grad()
            decay = recommender.gate_state.weight.square().sum() + recommender.gate_idle.square().sum()
            (loss / len(tape[index].target) + 1e-3 * decay).backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            count += len(tape[index].target)
        losses.append(total / count)
    return {"first_loss": losses[0], "last_loss": losses[-1], "targets": float(count)}


def _vectors(scorer: Scorer) -> Tensor:
    scorer.refresh(scorer.now)
    return scorer.matrix[:, : scorer.recommender.config.dim].clone()


@torch.no_grad()
def _remember(chunk: Chunk, scorer: Scorer, untrained: Tensor) -> _Memory | None:
    known = torch.from_numpy(chunk.target >= 0)
    if not known.any():
        return None
    recommender = scorer.recommender
    scorer.refresh(chunk.now)
    output, idle = chunk.output[known], chunk.idle_ms[known]
    window = Window(*(part[known] for part in chunk.window))
    target = torch.from_numpy(chunk.target)[known]
    dim = recommender.config.dim
    input_index = torch.from_numpy(scorer.vocabulary.input_index(scorer.catalogue.hashes))
    query = recommender.query_of_output(output, idle)
    successor, share = scorer.successors(query, window)
    sparse = recommender.mixture(query, window, successor, share)
    ordered, order = sparse.index.sort(dim=1, stable=True)
    new = torch.ones_like(ordered)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    number = new.cumsum(dim=1) - 1
    group = torch.empty_like(number).scatter_(1, order, number)
    candidate = torch.zeros_like(ordered).scatter_(1, number, ordered)
    real = torch.zeros_like(ordered).scatter_(1, number, 1).bool()
    return _Memory(
        output=output, idle_ms=idle, window=window, target=target,
        user_vector=recommender.user_vector(output, idle),
        fresh=untrained[input_index],
        bias=scorer.matrix[:, dim].clone(),
        popularity=scorer.matrix[:, dim + 1 :].T.contiguous(),
        successor=successor, share=share, candidate=candidate, group=group,
        is_target=(candidate == target[:, None]) & real,
    )  # fmt: skip


def _loss(recommender: Recommender, vectors: Tensor, memory: _Memory) -> Tensor:
    """Summed cross entropy of a chunk under the whole score."""
    raw = recommender.gates(memory.output, memory.idle_ms)
    trust = softplus(raw[:, :2])
    query = Query(raw, raw[:, -SPARSE_GATES:], memory.idle_ms)
    items = len(memory.fresh)
    fresh = memory.fresh.float()
    own = memory.user_vector @ (vectors[:items] * ~memory.fresh[:, None]).T
    network = own + (memory.user_vector @ recommender.new_vector)[:, None] * fresh
    bias = memory.bias * ~memory.fresh + recommender.new_bias * fresh
    dense = trust[:, :1] * network + trust[:, 1:] * bias
    if len(memory.popularity):
        dense = dense + raw[:, 2:-SPARSE_GATES] @ memory.popularity
    log_z = torch.logsumexp(dense, dim=1, keepdim=True)
    own_score = dense.gather(1, memory.target[:, None])
    sparse = recommender.mixture(query, memory.window, memory.successor, memory.share)
    if not sparse.index.shape[1]:
        return (log_z - own_score).sum()
    summed = [torch.zeros_like(part).scatter_add(1, memory.group, part) for part in sparse[1:]]
    before = dense.gather(1, memory.candidate)
    # The same formula at padding changes nothing: no mass, no shift.
    after = mixed(before, log_z, *summed)
    change = (torch.exp(after - log_z) - torch.exp(before - log_z)).sum(dim=1, keepdim=True)
    target = torch.where(
        memory.is_target.any(dim=1, keepdim=True),
        torch.where(memory.is_target, after, 0.0).sum(dim=1, keepdim=True),
        own_score,
    )
    return (log_z + torch.log((1 + change).clamp(min=1e-6)) - target).sum()
