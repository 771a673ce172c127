"""What gates are fitted on: for each target, the candidates that matter, with the parts of their scores.

Ranking measures look at the head of the list, so a target's pool holds the best candidates by every part of
the score (network, each moving popularity, pointer, transitions), the target, and a random sample that
stands for all others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eddy.models.scoring.backend import Exclude
from eddy.models.scoring.scorer import POPULARITY_FLOOR, Scorer
from eddy.models.tensors import SPARSE_GATES, Query, Window
from eddy.models.training.log_replay import Chunk

HEAD = 64
SAMPLE = 96
LOOK_EVERY = 32


@dataclass(frozen=True)
class Pools:
    """q targets with C candidates each; rows are padded with candidates of weight 0 (log -inf)."""

    output: Tensor  # float32[q,H] of the cell
    idle_ms: Tensor  # [q]
    window: Window  # [q]
    successor: Tensor  # int32[q,L,M]
    share: Tensor  # float32[q,L,M]
    source: Tensor  # float32[q,L,F]: log popularities of the items that transitions come from
    place: Tensor  # int64[q,S]: in the pool, of each entry of the mixture's Sparse
    log_weight: Tensor  # float32[q,C]: of how many items the candidate stands for
    is_candidate: Tensor  # bool[q,C]: whether it is ranked; not what lists leave out
    in_likelihood: Tensor  # bool[q,C]: whether it counts in the likelihood: rivals, and the user's own items
    network: Tensor  # float32[q,C]: user vector · item vector, 0 where never trained
    bias: Tensor  # float32[q,C]: likewise
    popularity: Tensor  # float32[q,C,F]
    fresh: Tensor  # bool[q,C]: never trained
    target: Tensor  # int64[q]: the target's place in the pool

    def __len__(self) -> int:
        return len(self.target)


class Pooling:
    """Makes pools, with one version, as the log is replayed."""

    def __init__(self, scorer: Scorer, untrained: Tensor) -> None:
        """untrained bool[V + buckets], by input index: items that the network never trained on."""
        self.scorer = scorer
        self._untrained = untrained
        self._until = 0  # events until the popularities of the whole catalogue are looked at again

    def _look(self, now: float) -> None:
        """What may be a few events old: which items are the most popular, and the sum over all items."""
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
        self._until = LOOK_EVERY

    @torch.no_grad()
    def pool(self, chunk: Chunk, seen: Exclude | None = None) -> Pools | None:
        """Pools of the chunk's targets that can be ranked; None when there are none. What is `seen` is no
        rival of the target.
        """
        known = torch.from_numpy(chunk.target >= 0)
        if not known.any():
            return None
        scorer, recommender = self.scorer, self.scorer.recommender
        self._until -= len(known)
        if self._until <= 0 or len(scorer.catalogue) > scorer.items:
            self._look(chunk.now)
        scorer.now = chunk.now
        output, idle = chunk.output[known], chunk.idle_ms[known]
        window = Window(*(part[known] for part in chunk.window))
        target = torch.from_numpy(chunk.target)[known]
        user = recommender.user_vector(output, idle)
        network = user @ self._vectors.T
        items = len(self._bias)
        query = Query(user, recommender.gates(output, idle)[:, -SPARSE_GATES:], idle)
        successor, share = scorer.successors(query, window)
        sparse = recommender.mixture(query, window, successor, share).item
        unseen = torch.ones(len(chunk.target), items, dtype=torch.bool)
        if seen is not None:
            unseen[seen.row, seen.item] = False
        unseen = unseen[known]
        own = torch.zeros_like(unseen)
        for held in (window.item, window.older):
            row, slot = (held >= 0).nonzero(as_tuple=True)
            own[row, held[row, slot]] = True
        head = network + self._bias
        best = [head.topk(min(HEAD, items), dim=1).indices]
        if seen is not None:
            best.append(head.masked_fill(~unseen, -torch.inf).topk(min(HEAD, items), dim=1).indices)
        sample = torch.randperm(items)[: min(SAMPLE, items)]
        chosen = torch.cat(
            [
                target[:, None], *best, sparse,
                self._popular.expand(len(target), -1), sample.expand(len(target), -1),
            ],
            dim=1,
        )  # fmt: skip
        # Entries are (item, whether only sampled), so that sorting puts a deliberate choice before a sampled
        # one.
        only_sampled = torch.zeros_like(chosen, dtype=torch.bool)
        only_sampled[:, -len(sample) :] = True
        ordered = (chosen * 2 + only_sampled).sort(dim=1).values
        item = ordered // 2
        first = torch.ones_like(item, dtype=torch.bool)
        first[:, 1:] = item[:, 1:] != item[:, :-1]
        sampled = first & (ordered % 2 == 1)
        stands_for = (items - (first & ~sampled).sum(dim=1)) / sampled.sum(dim=1).clamp(min=1)
        weight = torch.where(sampled, stands_for[:, None].clamp(min=1), first.float())
        return Pools(
            output=output, idle_ms=idle, window=window, successor=successor, share=share,
            source=self._log_popularity(scorer.last_items(query, window).clamp(min=0), chunk.now),
            place=torch.searchsorted(item, sparse.contiguous()), log_weight=torch.log(weight),
            is_candidate=unseen.gather(1, item), in_likelihood=(unseen | own).gather(1, item),
            network=network.gather(1, item), bias=self._bias[item],
            popularity=self._log_popularity(item, chunk.now),
            fresh=self._fresh[item], target=torch.searchsorted(item, target[:, None])[:, 0],
        )  # fmt: skip

    def _log_popularity(self, item: Tensor, now: float) -> Tensor:
        """log((decayed count + floor) / sum) of items int64[...]: float32[...,F]"""
        count = torch.from_numpy(self.scorer.statistics.popularity_of(item.numpy(), now)).movedim(0, -1)
        return (torch.log(count + POPULARITY_FLOOR) - self._log_sum).float()


def concatenate_pools(parts: list[Pools]) -> Pools:
    """Pools one after another (all have the same C except in a catalogue smaller than the pool: padded)."""
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


def part_of(pools: Pools, rows: Tensor) -> Pools:
    """Some of the targets."""
    fields = {name: getattr(pools, name)[rows] for name in Pools.__dataclass_fields__ if name != "window"}
    return Pools(**fields, window=Window(*(column[rows] for column in pools.window)))
