"""The recommender's ranks in a trial: the log is replayed as the stream would see it, micro-batch by
micro-batch.

States, windows, catalogue and statistics come from eddy.models.training.log_replay, and scores from
eddy.models.scoring.scorer, which the stream's engine uses, too. Inside a micro-batch states and windows are
exact, and item statistics are those from before it, as in the stream. With micro-batches of one event
everything is exact.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.evaluation.baselines import Ranks, histories
from eddy.models.evaluation.metrics import MISS
from eddy.models.evaluation.protocols import Trial
from eddy.models.hashing import item_hashes
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query, Window
from eddy.models.training.log_replay import Replay
from eddy.models.vocabulary import Vocabulary

_SCORES = 1 << 21
"""Scores computed at a time (8 MB)."""


@torch.no_grad()
def recommender_ranks(
    trial: Trial,
    recommender: Recommender,
    vocabulary: Vocabulary,
    rules: EventRules,
    batch: int,
    progress: Callable[[int], None] = lambda judged: None,
    features: ItemFeatures | None = None,
) -> Ranks:
    """Strict ranks of the trial's judged events, `batch` events of the log at a time.

    rules: what moves the recommender's states and counts in its statistics. Which events are judged is the
    trial's to say, so that all rank the same ones, whatever each was trained to aim at.
    progress: called with the number of events that were ranked since the last call.
    """
    recommender.eval()
    replay = Replay(
        recommender, vocabulary, trial.events, rules, trial.train, features, targets=trial.flags.target
    )
    scorer = Scorer(recommender, vocabulary, replay.catalogue, replay.statistics)
    own_items = _own_items(trial)
    parts: list[Tensor] = [torch.zeros(2, 0, dtype=torch.int64)]
    # Where statistics do not learn, nothing changes after the training part: all judged events are one
    # micro-batch.
    for chunk in replay.chunks(batch if trial.learns else len(trial.events), trial.learns):
        scorer.update_statistics(float(trial.events.timestamp[chunk.row[0]]))
        query = recommender.query_of_output(chunk.output, chunk.idle_ms)
        step = max(1, _SCORES // max(scorer.items, 1))
        for begin in range(0, len(chunk.row), step):
            part = slice(begin, begin + step)
            scores = scorer.scores(
                Query(*(column[part] for column in query)), Window(*(column[part] for column in chunk.window))
            )
            own_of_users = [replay.catalogue.find(hashes) for hashes in islice(own_items, len(scores))]
            parts.append(_ranks(scores, torch.from_numpy(chunk.target[part]), own_of_users))
            progress(len(scores))
    ranks = torch.cat(parts, dim=1).numpy()
    return Ranks(all=ranks[0], unseen=ranks[1])


def counting(progress: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """A callback for `recommender_ranks`, of which one may serve several calls: it adds up what it is called
    with, and hands the sum on, with the total of all calls.
    """
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return add


def _ranks(scores: Tensor, target: Tensor, own_of_users: list[NDArray[np.int64]]) -> Tensor:
    """Ranks int64[2,q] (all, unseen) of target[q] (-1 = no candidate) by scores[q,N].

    own_of_users: catalogue indices of each target's user's own items, -1 for items that are no candidates.
    """
    row = torch.arange(len(own_of_users)).repeat_interleave(
        torch.tensor([len(items) for items in own_of_users])
    )
    item = torch.from_numpy(np.concatenate(own_of_users))
    is_other = (item >= 0) & (item != target[row])
    row, item = row[is_other], item[is_other]
    target_score = scores.gather(1, target.clamp(min=0)[:, None])
    # Not "greater or equal": a score that is not a number must count against the target.
    rank = (~(scores < target_score)).sum(dim=1)
    own_not_below = ~(scores[row, item] < target_score[row, 0])
    unseen = rank.index_add(0, row, -own_not_below.long())
    return torch.where(target >= 0, torch.stack([rank, unseen]), MISS)


def _own_items(trial: Trial) -> Iterator[NDArray[np.uint64]]:
    """Hashes of the user's own items before each judged event."""
    hashes = item_hashes(trial.events.items)
    target = trial.flags.target
    for row, _, own_items, _ in histories(trial):
        if row >= trial.train and target[row]:
            yield hashes[np.fromiter(own_items, np.int64, len(own_items))]
