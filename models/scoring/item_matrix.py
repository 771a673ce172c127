"""What every catalogue item brings to the dense part of the score, and its product with queries.

A row is [item vector | bias | popularity columns]. The product with what does not change, vector and bias, is
the largest part of the work (`eddy.models.scoring.approximate_products`); in reduced precision it finds a
short list that is then scored exactly. The popularity columns are added in float32: they are few, they change
all the time, and their values are large.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from eddy.models.kernels.topk import BLOCK
from eddy.models.logs.item_features import Bags, bags
from eddy.models.network.recommender import Recommender
from eddy.models.scoring import approximate_products as products
from eddy.models.scoring.approximate_products import Precision, Product
from eddy.models.tensors import all_finite, roomy, to_device
from eddy.models.vocabulary import Catalogue, Vocabulary

log = logging.getLogger("eddy.scoring")

ITEM_TILE, DEVICE_ITEM_TILE = 16_384, 1 << 20
"""Items in one product, a multiple of BLOCK: on a CPU their vectors and a tile's scores stay in the cache; a
GPU is kept busy.
"""

AUTO_ITEMS = 4_096
"""Catalogue size from which "auto" looks for a first pass that is faster than float32."""

PACKED_TWICE = 32_768
"""Items up to which float32 rows are packed beside reduced ones, for ranks, which are always exact."""


@dataclass(frozen=True)
class Items:
    """The matrix as of one moment; what `ItemMatrix` does later does not change it."""

    items: int
    """N that are ranked"""
    vectors: Tensor
    """[padded, D + 1]: item vector and bias"""
    popularity: Tensor
    """[N, F + TREND]"""
    moving: Tensor
    """[F + TREND, padded or more]: the same by column"""
    finite: bool
    """whether all of that are numbers"""
    tile: int
    """items in one product"""
    _exact: Sequence[Product]
    """by tile; none = not packed"""
    _reduced: Sequence[Product]
    """by tile"""

    @property
    def padded(self) -> int:
        """N, rounded up to whole blocks."""
        return len(self.vectors)

    @property
    def reduced(self) -> bool:
        """Whether there is a faster first pass, after which a short list has to be scored again."""
        return bool(self._reduced)

    def tiles(self) -> list[slice]:
        """Consecutive parts of the padded rows."""
        return _tiles(self.padded, self.tile)

    def product(self, vector: Tensor, tile: slice, exact: bool) -> tuple[Tensor, Tensor | None]:
        """vector[B, columns] times item vectors and biases of a tile: [B, items of the tile], the caller's
        own, to be multiplied by [B, 1] if that is given.
        """
        fixed = vector[:, : self.vectors.shape[1]].contiguous()
        products = self._exact if exact or not self.reduced else self._reduced
        if products:
            product: Product = products[tile.start // self.tile]
            return product(fixed)
        return torch.mm(fixed, self.vectors[tile].T), None

    def exact(self, vector: Tensor, index: Tensor) -> Tensor:
        """vector[B, columns], index int64[B,S] -> float32[B,S]"""
        fixed = self.vectors.shape[1]
        rows = self.vectors.index_select(0, index.flatten()).view(*index.shape, -1)
        scores = torch.bmm(rows, vector[:, :fixed].unsqueeze(2)).squeeze(2)
        return scores + torch.bmm(self.popularity[index], vector[:, fixed:].unsqueeze(2)).squeeze(2)


def _tiles(padded: int, tile: int) -> list[slice]:
    return [slice(at, min(at + tile, padded)) for at in range(0, padded, tile)]


class ItemMatrix:
    """float32[N, D + 1 + F + TREND], growing with the catalogue, in two parts: what does not change, and the
    popularity columns. Padded with zeros to a multiple of BLOCK items.
    """

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, catalogue: Catalogue, precision: Precision
    ) -> None:
        self._recommender, self._vocabulary, self._catalogue = recommender, vocabulary, catalogue
        self.fixed = recommender.config.dim + 1
        """columns that do not change: item vector and bias"""
        self._vectors = torch.zeros(0, self.fixed, device=recommender.item_bias.device)
        self.tile = ITEM_TILE if self._vectors.device.type == "cpu" else DEVICE_ITEM_TILE
        self.items = 0
        self._features_until = 0
        """revision of the catalogue's features that the rows are of"""
        self.precision = precision
        self._popularity = self._vectors.new_zeros(0, recommender.columns)
        self._moving = self._popularity.T
        self._finite = self._moving_finite = True
        self._now: Items | None = None
        self._exact: list[Product] = []
        """by tile"""
        self._reduced: list[Product] = []
        """by tile"""

    @property
    def rows(self) -> Tensor:
        """[N, columns], a copy"""
        return torch.cat([self._vectors[: self.items], self._popularity[: self.items]], dim=1)

    def grow(self) -> None:
        """Take in the catalogue's new items."""
        start, items = self.items, len(self._catalogue)
        self._take_features()
        if items == start:
            return
        if items > len(self._vectors) - BLOCK:
            self._vectors = roomy(self._vectors[:start], max(items, start * 5 // 4) + BLOCK)
        self._set_fixed(slice(start, items), self._catalogue.hashes[start:items])
        self.items = items
        if not self._recommender.columns:
            self.set_popularity(self._vectors.new_zeros(items, 0))
        if self.precision == "auto" and items >= AUTO_ITEMS:
            self.precision = products.fastest(self._vectors[: self.tile])
            log.info("%d items: first pass of the scores in %s on this machine", items, self.precision)
        self._changed(start)

    def _changed(self, first: int) -> None:
        """Rows from this one on are not what was packed any more."""
        del self._exact[first // self.tile :], self._reduced[first // self.tile :]
        self._now = None

    @property
    def features_changed(self) -> bool:
        """Whether `grow` may change rows in place that an earlier `now` shares."""
        changed = self._catalogue.features.revision != self._features_until
        return bool(self._recommender.config.features) and changed

    def _take_features(self) -> None:
        """Score anew what is outside the vocabulary and has other features than before."""
        if not self.features_changed:
            return
        features = self._catalogue.features
        hashes = features.changed_since(self._features_until)
        self._features_until = features.revision
        place = self._catalogue.find(hashes)
        outside = self._vocabulary.input_index(hashes) >= len(self._vocabulary)
        changed = outside & (place >= 0) & (place < self.items)
        if changed.any():
            where = place[changed]
            self._set_fixed(to_device(where, self._vectors.device), hashes[changed])
            self._changed(int(where.min()))

    def _set_fixed(self, at: slice | Tensor, hashes: NDArray[np.uint64]) -> None:
        columns = self._columns(hashes)
        self._finite &= all_finite(columns)
        self._vectors[at] = columns

    def _columns(self, hashes: NDArray[np.uint64]) -> Tensor:
        """Vectors and biases of items: [n, D + 1]."""
        index = to_device(self._vocabulary.input_index(hashes), self._vectors.device)
        if not self._recommender.config.features:
            return self._recommender.item_columns(index)
        return self._recommender.item_columns(index, self.of_features(hashes))

    def of_features(self, hashes: NDArray[np.uint64]) -> Tensor:
        """What features alone make of items: [n, D + 1]."""
        found = bags(self._catalogue.features.of(hashes), self._vocabulary.features)
        return self._recommender.of_features(Bags(*(part.to(self._vectors.device) for part in found)))

    def set_popularity(self, columns: Tensor) -> None:
        """columns[N, F + TREND]"""
        self._moving_finite = all_finite(columns)
        self._popularity, self._moving = columns, pad(columns.T, (0, -self.items % BLOCK)).contiguous()
        self._now = None

    def add_popularity(self, columns: Tensor) -> None:
        """columns[n, F + TREND] of the last n items, which `set_popularity` was not given."""
        start, room = self.items - len(columns), len(self._vectors)
        if -(-self.items // BLOCK) * BLOCK > self._moving.shape[1] or self.items > len(self._popularity):
            self._popularity = roomy(self._popularity[:start], room)
            self._moving = roomy(self._moving[:, :start], room, dim=1)
        self._moving_finite &= all_finite(columns)
        self._popularity[start : self.items] = columns
        self._moving[:, start : self.items] = columns.T
        self._now = None

    def now(self) -> Items:
        """As it is, with what passes over the items need."""
        if self._now is None:
            padded = -(-self.items // BLOCK) * BLOCK
            vectors = self._vectors[:padded]
            reduced, tiles = self.precision in ("bfloat16", "int8"), _tiles(padded, self.tile)
            if not reduced or self.items <= PACKED_TWICE:
                for tile in tiles[len(self._exact) :]:
                    self._exact.append(products.exact(vectors[tile]))
            if reduced:
                for tile in tiles[len(self._reduced) :]:
                    self._reduced.append(products.reduced(vectors[tile], self.precision))
            exact = self._exact if len(self._exact) == len(tiles) else ()
            finite = self._finite and self._moving_finite
            self._now = Items(
                self.items,
                vectors,
                self._popularity[: self.items],
                self._moving,
                finite,
                self.tile,
                tuple(exact),
                tuple(self._reduced),
            )
        return self._now
