"""What the gates are fitted on: for each target, the candidates that matter, with the parts of their scores.

Ranking measures look at the head of the list. So the pool of a target holds the best candidates by every part
of the score (network, each moving popularity, pointer, transitions), the target itself, and a random sample
that stands for all other items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy.models.scoring.backend import Exclude
from eddy.models.scoring.popularity import POPULARITY_FLOOR
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import SPARSE_GATES, Query, Window
from eddy.models.training.log_replay import Chunk

HEAD = 64
"""Best candidates by the network, and by each moving popularity."""

SAMPLE = 96
"""Sampled candidates."""

READ_EVERY = 32
"""Targets after which the catalogue's popularities and item vectors are read again."""


@dataclass(frozen=True)
class Pools:
    """q targets with C candidates each; rows are padded with candidates of weight 0 (log -inf)."""

    output: Tensor  # float32[q,H] of the cell
    idle_ms: Tensor  # int64[q] since the user's last event, -1 = no event yet
    window: Window  # [q]
    successor: Tensor  # int32[q,L,M]
    share: Tensor  # float32[q,L,M]
    source: Tensor  # float32[q,L,F]: log popularities of the items that transitions come from
    place: Tensor  # int64[q,S]: where in the pool each entry of the mixture's Sparse is
    log_weight: Tensor  # float32[q,C]: log of how many items the candidate stands for
    is_candidate: Tensor  # bool[q,C]: whether it is ranked; lists leave the others out
    in_likelihood: Tensor  # bool[q,C]: whether it counts in the likelihood, as the user's own items do, too
    network: Tensor  # float32[q,C]: user vector · item vector, 0 where never trained
    bias: Tensor  # float32[q,C]: likewise
    popularity: Tensor  # float32[q,C,F]
    fresh: Tensor  # bool[q,C]: whether the network never trained on it
    target: Tensor  # int64[q]: where in the pool the target is

    def __len__(self) -> int:
        return len(self.target)


class Pooling:
    """Makes the pools of a log's targets with one version, chunk by chunk, while the log is replayed."""

    def __init__(self, scorer: Scorer, untrained: Tensor) -> None:
        """untrained: bool[V + buckets] by input index, the items that the network never trained on."""
        self.scorer = scorer
        self._untrained = untrained
        self._until = 0  # targets until the popularities of the whole catalogue are read again

    def _read_catalogue(self, now: float) -> None:
        """Read what may be a few events old: which items are the most popular, the sum of the popularities
        of all items, and all item vectors.
        """
        scorer = self.scorer
        scorer.update_statistics(now)
        count = torch.from_numpy(scorer.statistics.popularity(scorer.items, now)) + POPULARITY_FLOOR
        self._log_sum = torch.log(count.sum(dim=1))
        self._popular = count.topk(min(HEAD, scorer.items), dim=1).indices.flatten()
        index = torch.from_numpy(scorer.vocabulary.input_index(scorer.catalogue.hashes))
        self._fresh = self._untrained[index]
        dim = scorer.recommender.config.dim
        matrix = scorer.matrix
        self._vectors = matrix[:, :dim].masked_fill(self._fresh[:, None], 0.0)
        self._bias = matrix[:, dim].masked_fill(self._fresh, 0.0)
        self._until = READ_EVERY

    @torch.no_grad()
    def pool(self, chunk: Chunk, seen: Exclude | None = None) -> Pools | None:
        """Make the pools of the chunk's targets that can be ranked; None when none of them can.

        seen: items that lists leave out. They are no rivals of the target.
        """
        can_rank = torch.from_numpy(chunk.target >= 0)
        if not can_rank.any():
            return None
        scorer, recommender = self.scorer, self.scorer.recommender
        # 1. Read the catalogue again where it is too old or has grown.
        self._until -= len(can_rank)
        if self._until <= 0 or len(scorer.catalogue) > scorer.items:
            self._read_catalogue(chunk.now)
        scorer.now = chunk.now
        # 2. Score all N items by the network, and find those that the sparse parts of the score raise.
        output, idle = chunk.output[can_rank], chunk.idle_ms[can_rank]
        window = Window(*(part[can_rank] for part in chunk.window))
        target = torch.from_numpy(chunk.target)[can_rank]
        user = recommender.user_vector(output, idle)
        network = user @ self._vectors.T  # [q,N]
        query = Query(user, recommender.gates(output, idle)[:, -SPARSE_GATES:], idle)
        successor, share = scorer.successors(query, window)
        sparse = recommender.mixture(query, window, successor, share).item  # [q,S]
        # 3. Tell which items are rivals of the target, and which are the user's own.
        unseen = torch.ones(len(chunk.target), network.shape[1], dtype=torch.bool)
        if seen is not None:
            unseen[seen.row, seen.item] = False
        unseen = unseen[can_rank]
        is_own = torch.zeros_like(unseen)
        for own_items in (window.item, window.older):
            row, slot = (own_items >= 0).nonzero(as_tuple=True)
            is_own[row, own_items[row, slot]] = True
        # 4. Choose the candidates, and gather the parts of their scores.
        item, weight = self._choose(target, sparse, network + self._bias, None if seen is None else unseen)
        return Pools(
            output=output, idle_ms=idle, window=window, successor=successor, share=share,
            source=self._log_popularity(scorer.last_items(query, window).clamp(min=0), chunk.now),
            place=torch.searchsorted(item, sparse.contiguous()), log_weight=torch.log(weight),
            is_candidate=unseen.gather(1, item), in_likelihood=(unseen | is_own).gather(1, item),
            network=network.gather(1, item), bias=self._bias[item],
            popularity=self._log_popularity(item, chunk.now),
            fresh=self._fresh[item], target=torch.searchsorted(item, target[:, None])[:, 0],
        )  # fmt: skip

    def _choose(
        self, target: Tensor, sparse: Tensor, network: Tensor, unseen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The candidates of each target, in increasing order with repeats: item int64[q,C], and of how many
        items each stands for: weight float32[q,C], 0 for a repeat.

        They are target[q], sparse[q,S], the best by network[q,N], among all and among the unseen[q,N], the
        most popular, and a sample.
        """
        targets, items = network.shape
        best = [network.topk(min(HEAD, items), dim=1).indices]
        if unseen is not None:
            best.append(network.masked_fill(~unseen, -torch.inf).topk(min(HEAD, items), dim=1).indices)
        sample = torch.randperm(items)[: min(SAMPLE, items)]
        chosen = torch.cat(
            [
                target[:, None], *best, sparse,
                self._popular.expand(targets, -1), sample.expand(targets, -1),
            ],
            dim=1,
        )  # fmt: skip
        # Entries are 2 * item + whether it is only sampled, so that sorting puts a deliberate choice before a
        # sampled one of the same item.
        only_sampled = torch.zeros_like(chosen, dtype=torch.bool)
        only_sampled[:, -len(sample) :] = True
        ordered = (chosen * 2 + only_sampled).sort(dim=1).values
        item = ordered // 2
        first = torch.ones_like(item, dtype=torch.bool)
        first[:, 1:] = item[:, 1:] != item[:, :-1]
        # The sampled items stand for all that nobody chose.
        sampled = first & (ordered % 2 == 1)
        stands_for = (items - (first & ~sampled).sum(dim=1)) / sampled.sum(dim=1).clamp(min=1)
        return item, torch.where(sampled, stands_for[:, None].clamp(min=1), first.float())

    def _log_popularity(self, item: Tensor, now: float) -> Tensor:
        """log((decayed count + floor) / sum) of items int64[...]: float32[...,F]"""
        count = torch.from_numpy(self.scorer.statistics.popularity_of(item.numpy(), now)).movedim(0, -1)
        return (torch.log(count + POPULARITY_FLOOR) - self._log_sum).float()


def concatenate_pools(parts: list[Pools]) -> Pools:
    """Put pools one after another. All have the same C, except in a catalogue smaller than the pool: these
    are padded.
    """
    widest = max(part.log_weight.shape[1] for part in parts)

    def pad(tensor: Tensor, dim: int, size: int, value: float) -> Tensor:
        missing = size - tensor.shape[dim]
        if not missing:
            return tensor
        shape = list(tensor.shape)
        shape[dim] = missing
        return torch.cat([tensor, tensor.new_full(shape, value)], dim=dim)

    def column(name: str, value: float) -> Tensor:
        return torch.cat([pad(getattr(part, name), 1, widest, value) for part in parts])

    width = max(part.place.shape[1] for part in parts)
    older = max(part.window.older.shape[1] for part in parts)
    windows = [part.window._replace(older=pad(part.window.older, 1, older, -1)) for part in parts]
    return Pools(
        output=torch.cat([part.output for part in parts]),
        idle_ms=torch.cat([part.idle_ms for part in parts]),
        window=Window(*(torch.cat(field) for field in zip(*windows, strict=True))),
        successor=torch.cat([part.successor for part in parts]),
        share=torch.cat([part.share for part in parts]),
        source=torch.cat([part.source for part in parts]),
        place=torch.cat([pad(part.place, 1, width, 0) for part in parts]),  # older items are the last
        log_weight=column("log_weight", -torch.inf), is_candidate=column("is_candidate", False),
        in_likelihood=column("in_likelihood", False),
        network=column("network", 0), bias=column("bias", 0), popularity=column("popularity", 0),
        fresh=column("fresh", 0), target=torch.cat([part.target for part in parts]),
    )  # fmt: skip


def select_targets(pools: Pools, rows: Tensor) -> Pools:
    """The pools of these targets."""
    fields = {name: getattr(pools, name)[rows] for name in Pools.__dataclass_fields__ if name != "window"}
    return Pools(**fields, window=Window(*(column[rows] for column in pools.window)))
