"""Fitting the gates: how much network, moving popularity, pointer and transitions count, given the state.

The held-out part of the log is replayed as the stream would see it (eddy.models.training.log_replay). Only
the gates and tables of the score learn. The network never saw these events and is frozen, so the gates learn
how far to trust it on events to come.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout, softplus

from eddy.models.config import TrainConfig
from eddy.models.network.mixture import mixed
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import SPARSE_GATES, Query
from eddy.models.training.candidate_pools import Pooling, Pools, concatenate_pools, select_targets
from eddy.models.training.gate_log import GateLog
from eddy.models.training.log_replay import Replay
from eddy.models.vocabulary import Vocabulary

SCORE_PARTS = ("mixture", "gate_", "new_", "trend")
"""First parts of the names of the parameters that are fitted here; all others are the network's."""

OF_STATE = ("gate_state.weight", "gate_idle")
"""Parameters by which gates depend on the state and on idle time."""

CHUNK = 8
"""Events replayed at a time: nearly as fresh as one by one, and several times as fast."""

BATCH = 256
"""Targets of a step."""

LEARNING_RATE = 0.05
WEIGHT_DECAY = 2e-2
"""Decay of the parameters OF_STATE towards 0: without it they learn the held-out users by heart."""

TABLE_DECAY = 3e-3
"""Decay of all other parameters towards their initial values: few events speak for rare places, ages and
types.
"""

RANK_TEMPERATURE = 0.5
"""Width, in nats, of the sigmoid that counts an item as ranked above the target (smooth rank; Qin et al.
2010).
"""

LIKELIHOOD, RECIPROCAL_RANK = 4.0, 10.0
"""Weights of the two parts of the loss: ranking is judged by the head of the list; likelihood, the larger
part, still holds when the stream has moved on, and never stops teaching where a sigmoid is flat.
With likelihood at 0.1 the tuning parts' MRR@20 was .2832 for .2878 (yoochoose), .0827 for .0845 (ml-100k).
"""


def fit_gates(
    recommender: Recommender, vocabulary: Vocabulary, log: GateLog, rules: EventRules, settings: TrainConfig
) -> dict[str, float]:
    """Fit the gates on the targets that the network has not seen.

    Returns what `fit_pools` measured; empty where no target can be ranked.
    """
    torch.manual_seed(settings.seed)
    pools = collect(recommender, vocabulary, log, rules, settings.unseen)
    if pools is None:
        return {}
    return fit_pools(recommender, pools, settings.gate_epochs)


def collect(
    recommender: Recommender, vocabulary: Vocabulary, log: GateLog, rules: EventRules, unseen: bool = False
) -> Pools | None:
    """The pools of the targets; None where no target can be ranked.

    unseen: whether the pools are for lists that leave out what the user had.
    """
    recommender.eval()
    # Items that appear in the held-out part only have vectors that were never trained.
    events = log.events
    fresh_ids = {events.items[i] for i in np.flatnonzero(~log.trained)}
    untrained = torch.tensor([name in fresh_ids for name in vocabulary.items] + [True] * vocabulary.buckets)
    replay = Replay(recommender, vocabulary, events, rules, log.first, known=log.known)
    scorer = Scorer(recommender, vocabulary, replay.catalogue, replay.statistics)
    pooling = Pooling(scorer, untrained)
    pools_of_chunks = [
        pooling.pool(chunk, replay.seen(chunk) if unseen else None) for chunk in replay.chunks(CHUNK)
    ]
    parts = [pools for pools in pools_of_chunks if pools is not None]
    return concatenate_pools(parts) if parts else None


def fit_pools(recommender: Recommender, pools: Pools, epochs: int) -> dict[str, float]:
    """Fit the gates on collected pools. Returns the last epoch's means (loss "nll", "soft_mrr") and the
    number of "targets".

    Outputs of the cell are dropped at the same rate as while the network learned: a few thousand targets are
    too few for gates that read single units. On trivago such gates ranked every fitted target first that
    repeated the last item, and then, on later events, put another item before it where the counting rule
    never does.
    """
    parameters = {n: p for n, p in recommender.named_parameters() if n.startswith(SCORE_PARTS)}
    begin = {n: p.detach().clone() for n, p in parameters.items() if n not in OF_STATE}
    optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE)
    steps = (len(pools) + BATCH - 1) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=max(2, epochs * steps)
    )
    losses = []
    for _ in range(epochs):
        total = torch.zeros(2)
        for rows in torch.split(torch.randperm(len(pools)), BATCH):
            part = select_targets(pools, rows)
            part = replace(part, output=dropout(part.output, recommender.config.dropout))
            nll, mrr = losses_of(recommender, part)
            decay = WEIGHT_DECAY * sum(parameters[n].square().sum() for n in OF_STATE)
            decay = decay + TABLE_DECAY * sum(
                (parameters[n] - start).square().sum() for n, start in begin.items()
            )
            optimizer.zero_grad()
            loss = (LIKELIHOOD * nll - RECIPROCAL_RANK * mrr) / len(rows) + decay
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += torch.tensor([nll.item(), mrr.item()])
        losses.append((total / len(pools)).tolist())
    return {"nll": losses[-1][0], "soft_mrr": losses[-1][1], "targets": float(len(pools))}


def scores_of(recommender: Recommender, pools: Pools) -> tuple[Tensor, Tensor]:
    """The score of every candidate of the pools [q,C], and of each target [q,1], as eddy.models.scoring makes
    it for lists.
    """
    # 1. The dense part: network, bias and popularities, each times its gate.
    raw = recommender.gates(pools.output, pools.idle_ms)
    trust = softplus(raw[:, :2])
    user = recommender.user_vector(pools.output, pools.idle_ms).detach()
    of_new = trust[:, :1] * (user @ recommender.new_vector)[:, None] + trust[:, 1:] * recommender.new_bias
    dense = trust[:, :1] * pools.network + trust[:, 1:] * pools.bias + of_new * pools.fresh
    dense = dense + (raw[:, None, 2:-SPARSE_GATES] * recommender.popularity_columns(pools.popularity)).sum(
        dim=2
    )
    log_z = torch.logsumexp(dense + pools.log_weight, dim=1, keepdim=True)
    # 2. The sparse parts: entries for the same candidate are summed.
    query = Query(raw, raw[:, -SPARSE_GATES:], pools.idle_ms)
    damping, share = recommender.config.damping, pools.share
    if damping is not None:
        share = share * recommender.mixture.boost_of(pools.source[..., damping]).unsqueeze(-1)
    sparse = recommender.mixture(query, pools.window, pools.successor, share)
    summed = [torch.zeros_like(dense).scatter_add(1, pools.place, part) for part in sparse[1:]]
    if damping is not None:
        summed[0] = recommender.mixture.damped(summed[0], pools.popularity[..., damping])
    score = mixed(dense, log_z, *summed)
    return score, score.gather(1, pools.target[:, None])


def losses_of(recommender: Recommender, pools: Pools) -> tuple[Tensor, Tensor]:
    """The sums over the targets of the cross entropy and of the smooth reciprocal rank."""
    score, target = scores_of(recommender, pools)
    likely = torch.where(pools.in_likelihood, score + pools.log_weight, -torch.inf)
    nll = torch.logsumexp(likely, dim=1) - target[:, 0]
    above = torch.sigmoid((score - target) / RANK_TEMPERATURE) * torch.exp(pools.log_weight)
    rank = (above * pools.is_candidate).sum(dim=1)
    return nll.sum(), (1 / (0.5 + rank)).sum()
