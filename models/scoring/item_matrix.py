"""The item matrix: what every catalogue item brings to the dense part of the score, and its product with
queries.

An item's row is [item vector | bias | popularity columns]. Vector and bias hardly ever change. The product
with them is the largest part of the work; in reduced precision (`eddy.models.scoring.approximate_products`,
for few users `eddy.models.scoring.quantised_items`) it finds a short list that is then scored exactly. The
popularity columns are added in float32: they are few, they change all the time, and their values are large.
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
from eddy.models.scoring.approximate_products import Precision, Product, Products
from eddy.models.scoring.quantised_items import FEW_USERS, QuantisedItems, QuantisedView
from eddy.models.tensors import all_finite, roomy, to_device
from eddy.models.vocabulary import Catalogue, Vocabulary

log = logging.getLogger("eddy.scoring")

ITEM_TILE, DEVICE_ITEM_TILE = 16_384, 1 << 20
"""Items in one product, a multiple of BLOCK. On a CPU their vectors and a tile's scores have to stay in the
cache; a GPU has to be kept busy.
"""

AUTO_ITEMS = 4_096
"""Catalogue size from which "auto" looks for a first pass that is faster than float32: with fewer items the
product is too small a part of the work to pay for a short list that is scored again.
"""

PACKED_TWICE = 32_768
"""Items up to which float32 rows are packed beside reduced ones, for ranks, which are always exact. It bounds
memory: with more items ranks take the rows as they are, which is slower.
"""


@dataclass(frozen=True)
class ItemMatrixView:
    """The matrix as of one moment. Later changes of the `ItemMatrix` do not show in it, unless the features
    of known items change (`features_changed`).
    """

    items: int
    """N: how many items are ranked"""
    vectors: Tensor
    """float32[padded, D + 1]: item vector and bias"""
    moving: Tensor
    """float32[F + TREND, padded or more]: popularity by column, of any value beyond N"""
    finite: bool
    """whether all numbers in `vectors` and `moving` are finite"""
    tile: int
    """items in one product"""
    _exact: Sequence[Product]
    """float32 products by tile, empty if they are not packed"""
    _reduced: Sequence[Product]
    """products in reduced precision by tile, empty if there are none"""
    _quantised: QuantisedView | None
    """rows for the first pass of few users, None if it is not used"""

    @property
    def popularity(self) -> Tensor:
        """float32[N, F + TREND], a view of `moving`."""
        return self.moving[:, : self.items].T

    @property
    def padded(self) -> int:
        """N rounded up to a multiple of BLOCK."""
        return len(self.vectors)

    @property
    def reduced(self) -> bool:
        """Whether there is a faster first pass for any number of users, after which a short list has to be
        scored again.
        """
        return bool(self._reduced)

    def quantised_for(self, users: int) -> QuantisedView | None:
        """The rows by which the first pass of so many users is made; None where it is made by products."""
        return self._quantised if users <= FEW_USERS else None

    def tiles(self) -> list[slice]:
        """The padded rows in consecutive parts, each for one product."""
        return _tiles(self.padded, self.tile)

    def product(self, vector: Tensor, tile: slice, exact: bool) -> Products:
        """vector[B, columns] times the item vectors and biases of a tile."""
        fixed = vector[:, : self.vectors.shape[1]].contiguous()
        products = self._exact if exact or not self.reduced else self._reduced
        if products:
            product: Product = products[tile.start // self.tile]
            return product(fixed)
        return Products(torch.mm(fixed, self.vectors[tile].T))

    def exact_scores(self, vector: Tensor, index: Tensor) -> Tensor:
        """Dense scores float32[B,S] of the items index[B,S] for the queries vector[B, columns]."""
        fixed = self.vectors.shape[1]
        rows = self.vectors.index_select(0, index.flatten()).view(*index.shape, -1)
        scores = torch.bmm(rows, vector[:, :fixed].unsqueeze(2)).squeeze(2)
        return scores + torch.bmm(self.popularity[index], vector[:, fixed:].unsqueeze(2)).squeeze(2)


def _tiles(padded: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, padded)) for start in range(0, padded, tile)]


class ItemMatrix:
    """float32[N, D + 1 + F + TREND], growing with the catalogue, in two parts: vectors and biases, which
    hardly change, and the popularity columns. Padded with zeros to a multiple of BLOCK items.
    """

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, catalogue: Catalogue, precision: Precision
    ) -> None:
        self._recommender, self._vocabulary, self._catalogue = recommender, vocabulary, catalogue
        self.fixed = recommender.config.dim + 1
        """D + 1: the columns of item vector and bias"""
        self._vectors = torch.zeros(0, self.fixed, device=recommender.item_bias.device)
        self.tile = ITEM_TILE if self._vectors.device.type == "cpu" else DEVICE_ITEM_TILE
        self.items = 0
        self._features_revision = 0
        """the revision of the catalogue's features that the rows were made from"""
        self.precision = precision
        self._moving = self._vectors.new_zeros(recommender.columns, 0)
        self._finite = self._moving_finite = True
        self._view: ItemMatrixView | None = None
        self._exact: list[Product] = []
        """by tile"""
        self._reduced: list[Product] = []
        """by tile"""
        fit = self._vectors.device.type == "cpu" and precision in ("auto", "int8")
        self._quantised = QuantisedItems(self.fixed - 1) if fit else None
        self._least_quantised = AUTO_ITEMS if precision == "auto" else 0

    def go_on_with(self, catalogue: Catalogue) -> None:
        """Take new items and changed features from another catalogue from now on, of which the one before was
        a copy.
        """
        self._catalogue = catalogue

    @property
    def rows(self) -> Tensor:
        """The whole matrix [N, columns], a copy."""
        return torch.cat([self._vectors[: self.items], self._moving[:, : self.items].T], dim=1)

    def add_new_items(self) -> None:
        """Add rows for the catalogue's new items; their popularity has to be set afterwards. Rows whose
        features changed are made anew.
        """
        start, items = self.items, len(self._catalogue)
        self._update_features()
        if items == start:
            return
        if items > len(self._vectors) - BLOCK:
            self._vectors = roomy(self._vectors[:start], max(items, start * 5 // 4) + BLOCK)
        self._set_fixed(slice(start, items), self._catalogue.hashes[start:items])
        self.items = items
        if not self._recommender.columns:
            self.set_popularity(self._vectors.new_zeros(0, items), True)
        if self.precision == "auto" and items >= AUTO_ITEMS:
            self.precision = products.fastest_precision(self._vectors[: self.tile])
            log.info("%d items: first pass of the scores in %s on this machine", items, self.precision)
        self._drop_packed(start)

    def _drop_packed(self, first: int) -> None:
        """Drop the packed products and the view, because rows from `first` on are new or have changed."""
        del self._exact[first // self.tile :], self._reduced[first // self.tile :]
        if self._quantised is not None:
            self._quantised.drop(first)
        self._view = None

    @property
    def features_changed(self) -> bool:
        """Whether `add_new_items` may change rows in place that an earlier view shares."""
        changed = self._catalogue.features.revision != self._features_revision
        return bool(self._recommender.config.features) and changed

    def _update_features(self) -> None:
        """Make the rows of items outside the vocabulary anew whose features have changed."""
        if not self.features_changed:
            return
        features = self._catalogue.features
        hashes = features.changed_since(self._features_revision)
        self._features_revision = features.revision
        index = self._catalogue.find(hashes)
        outside = self._vocabulary.input_index(hashes) >= len(self._vocabulary)
        changed = outside & (index >= 0) & (index < self.items)
        if changed.any():
            rows = index[changed]
            self._set_fixed(to_device(rows, self._vectors.device), hashes[changed])
            self._drop_packed(int(rows.min()))

    def _set_fixed(self, rows: slice | Tensor, hashes: NDArray[np.uint64]) -> None:
        columns = self._fixed_columns(hashes)
        self._finite &= all_finite(columns)
        self._vectors[rows] = columns

    def _fixed_columns(self, hashes: NDArray[np.uint64]) -> Tensor:
        """Vectors and biases of the items with hashes[n]: [n, D + 1]."""
        index = to_device(self._vocabulary.input_index(hashes), self._vectors.device)
        if not self._recommender.config.features:
            return self._recommender.item_columns(index)
        return self._recommender.item_columns(index, self.columns_of_features(hashes))

    def columns_of_features(self, hashes: NDArray[np.uint64]) -> Tensor:
        """Vectors and biases that the features alone give to the items with hashes[n]: [n, D + 1]."""
        by_item = bags(self._catalogue.features.of(hashes), self._vocabulary.features)
        return self._recommender.of_features(Bags(*(part.to(self._vectors.device) for part in by_item)))

    def set_popularity(self, columns: Tensor, finite: bool) -> None:
        """Set the popularity columns of the first n items, those of the others have to be added afterwards:
        columns[F + TREND, n or more], which are not copied if there is room for all; whether all are finite.
        """
        self._moving_finite = finite
        missing = -(-self.items // BLOCK) * BLOCK - columns.shape[1]
        self._moving = pad(columns, (0, missing)) if missing > 0 else columns
        self._view = None

    def add_popularity(self, columns: Tensor) -> None:
        """Set the popularity columns of the last n items, which are new since `set_popularity`:
        columns[F + TREND, n].
        """
        start = self.items - columns.shape[1]
        if -(-self.items // BLOCK) * BLOCK > self._moving.shape[1]:
            self._moving = roomy(self._moving[:, :start], len(self._vectors), dim=1)
        self._moving_finite &= all_finite(columns)
        self._moving[:, start : self.items] = columns
        self._view = None

    def view(self) -> ItemMatrixView:
        """The matrix as it is, with its rows packed for products."""
        if self._view is None:
            padded = -(-self.items // BLOCK) * BLOCK
            vectors = self._vectors[:padded]
            reduced, tiles = self.precision in ("bfloat16", "int8"), _tiles(padded, self.tile)
            if not reduced or self.items <= PACKED_TWICE:
                for tile in tiles[len(self._exact) :]:
                    self._exact.append(products.exact_product(vectors[tile]))
            if reduced:
                for tile in tiles[len(self._reduced) :]:
                    self._reduced.append(products.reduced_product(vectors[tile], self.precision))
            exact = self._exact if len(self._exact) == len(tiles) else ()
            quantised = None
            if self._quantised is not None and self.items >= self._least_quantised:
                quantised = self._quantised.view(vectors)
            finite = self._finite and self._moving_finite
            self._view = ItemMatrixView(
                self.items, vectors, self._moving, finite, self.tile, tuple(exact), tuple(self._reduced),
                quantised,
            )  # fmt: skip
        return self._view
