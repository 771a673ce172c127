"""What every catalogue item brings to the dense part of the score, and its product with queries.

A row is [item vector | bias | popularity columns]. The product with what does not change, vector and bias, is
the largest part of the work. The rows are first packed, brought into the order in which oneDNN reads them,
which every product would do anew otherwise. It can also be done in reduced precision
first, to find a short list that is then scored exactly: on int8 vectors (oneDNN) or on bfloat16 ones,
whichever this machine is faster at. The popularity columns are added in float32: they are few, they change
all the time, and their values are large.
"""

import logging
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import EddyError
from models.features import Bags, bags
from models.recommender import Recommender
from models.topk import BLOCK
from models.vocabulary import Catalogue, Vocabulary

log = logging.getLogger("eddy.scoring")

Precision = Literal["float32", "bfloat16", "int8", "auto"]

ITEM_TILE = 16_384
"""Items in one product, a multiple of BLOCK: their vectors and a tile's scores stay in the cache."""

AUTO_ITEMS = 32_768
"""Catalogue size from which "auto" looks for a first pass that is faster than float32."""

WORTHWHILE = 0.75
"""Of float32's time: a first pass that takes more does not pay for the short list."""

PACKED_TWICE = 32_768
"""Items up to which float32 rows are packed beside reduced ones, for ranks, which are always exact."""

_PACKED_FOR = 64
"""Queries at a time that the order is chosen for; for others it is as good within a few percent."""

_TRIAL_ROWS = 64
_TINY = 1e-12

Product = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Of vectors float32[B, D + 1]: scores float32[B, items of a tile], to be multiplied by [B, 1] if given."""


class ItemMatrix:
    """float32[N, D + 1 + F + TREND], growing with the catalogue; rows up to a multiple of BLOCK are zero."""

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, catalogue: Catalogue, precision: Precision
    ) -> None:
        self._recommender, self._vocabulary, self._catalogue = recommender, vocabulary, catalogue
        self.fixed = recommender.config.dim + 1
        """columns that do not change: item vector and bias"""
        self._rows = torch.zeros(0, self.fixed + recommender.columns, device=recommender.item_bias.device)
        self.items = 0
        self._features_until = 0
        """revision of the catalogue's features that the rows are of"""
        self.precision = precision
        self.moving = self._rows.new_zeros(recommender.columns, 0)
        """[F + TREND, padded] the popularity columns, as rows"""
        self._exact: list[Product] = []
        """by tile"""
        self._reduced: list[Product] = []
        """by tile"""

    @property
    def padded(self) -> int:
        """`items`, rounded up to whole blocks."""
        return -(-self.items // BLOCK) * BLOCK

    @property
    def rows(self) -> Tensor:
        """[N, columns]"""
        return self._rows[: self.items]

    def grow(self) -> None:
        """Take in the catalogue's new items."""
        start, items = self.items, len(self._catalogue)
        self._take_features()
        if items == start:
            return
        if items > len(self._rows) - BLOCK:
            room = self._rows.new_zeros(max(items, start * 5 // 4) + BLOCK, self._rows.shape[1])
            room[:start] = self.rows
            self._rows = room
        self._rows[start:items, : self.fixed] = self._columns(self._catalogue.hashes[start:items])
        self.items = items
        if self.precision == "auto" and items >= AUTO_ITEMS:
            self.precision = _fastest(self._rows[:ITEM_TILE, : self.fixed].contiguous())
            log.info("%d items: first pass of the scores in %s on this machine", items, self.precision)
        self._changed(start)

    def _changed(self, first: int) -> None:
        """Rows from this one on are not what was packed any more."""
        del self._exact[first // ITEM_TILE :], self._reduced[first // ITEM_TILE :]

    def _take_features(self) -> None:
        """Score anew what is outside the vocabulary and has other features than before."""
        features = self._catalogue.features
        if not self._recommender.config.features or features.revision == self._features_until:
            return
        hashes = features.changed_since(self._features_until)
        self._features_until = features.revision
        place = self._catalogue.find(hashes)
        outside = self._vocabulary.input_index(hashes) >= len(self._vocabulary)
        changed = outside & (place >= 0) & (place < self.items)
        if changed.any():
            where = place[changed]
            at = torch.from_numpy(where).to(self._rows.device)
            self._rows[at, : self.fixed] = self._columns(hashes[changed])
            self._changed(int(where.min()))

    def _columns(self, hashes: NDArray[np.uint64]) -> Tensor:
        """Vectors and biases of items: [n, D + 1]."""
        index = torch.from_numpy(self._vocabulary.input_index(hashes)).to(self._rows.device)
        if not self._recommender.config.features:
            return self._recommender.item_columns(index)
        return self._recommender.item_columns(index, self.of_features(hashes))

    def of_features(self, hashes: NDArray[np.uint64]) -> Tensor:
        """What features alone make of items: [n, D + 1]."""
        found = bags(self._catalogue.features.of(hashes), self._vocabulary.features)
        return self._recommender.of_features(Bags(*(part.to(self._rows.device) for part in found)))

    def set_popularity(self, columns: Tensor) -> None:
        """columns[N, F + TREND]"""
        self._rows[: self.items, self.fixed :] = columns
        self.moving = self._rows[: self.padded, self.fixed :].T.contiguous()

    @property
    def reduced(self) -> bool:
        """Whether the first pass is not float32, so that a short list has to be scored again."""
        return self.precision in ("bfloat16", "int8")

    def tiles(self) -> list[slice]:
        """Consecutive parts of the padded rows."""
        return [slice(at, min(at + ITEM_TILE, self.padded)) for at in range(0, self.padded, ITEM_TILE)]

    def product(self, vector: Tensor, tile: slice, exact: bool) -> tuple[Tensor, Tensor | None]:
        """vector[B, columns] times the fixed columns of a tile of the items: [B, items of the tile], to be
        multiplied by [B, 1] if that is given.
        """
        number, fixed = tile.start // ITEM_TILE, vector[:, : self.fixed].contiguous()
        products = self._exact if exact or not self.reduced else self._reduced
        if number < len(products):
            return products[number](fixed)
        return torch.mm(fixed, self._rows[tile, : self.fixed].T), None

    def pack(self) -> None:
        """Make what passes over the items need; before `product`, which threads may share."""
        if not self.reduced or self.items <= PACKED_TWICE:
            tiles = self.tiles()[len(self._exact) :]
            self._exact += [_float32(self._rows[tile, : self.fixed].contiguous()) for tile in tiles]
        if not self.reduced:
            return
        for tile in self.tiles()[len(self._reduced) :]:
            rows = self._rows[tile, : self.fixed].contiguous()
            try:
                self._reduced.append(_REDUCED[self.precision](rows))
            except (RuntimeError, AttributeError) as error:
                raise EddyError(
                    f"no scores in {self.precision} on this machine ({error}): set EDDY_PRECISION to auto"
                ) from None

    def exact(self, vector: Tensor, index: Tensor) -> Tensor:
        """vector[B, columns], index int64[B,S] -> float32[B,S]"""
        rows = self._rows.index_select(0, index.flatten()).view(*index.shape, -1)
        return torch.bmm(rows, vector.unsqueeze(2)).squeeze(2)


def _float32(rows: Tensor) -> Product:
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
    except (RuntimeError, AttributeError):  # not on this device, or not in this torch
        return lambda vector: (torch.mm(vector, rows.T), None)
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda vector: (linear(vector, packed, None, "none", [], ""), None)


def _int8(rows: Tensor) -> Product:
    """Vectors as int8, queries as 7 bits (sums of 8 by 8 bits can overflow on AVX2), with a scale each."""
    scale = rows.abs().amax(dim=1).clamp(min=_TINY) / 127
    onednn = torch.ops.onednn
    weight = onednn.qlinear_prepack((rows / scale[:, None]).round().to(torch.int8), None)
    zero = torch.zeros(len(rows), dtype=torch.int32)

    def product(vector: Tensor) -> tuple[Tensor, Tensor]:
        unit = vector.abs().amax(dim=1, keepdim=True).clamp(min=_TINY) / 63
        steps = (vector / unit + 128).round_().to(torch.uint8)
        raw = onednn.qlinear_pointwise(
            steps, 1.0, 128, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return raw, unit

    return product


def _bfloat16(rows: Tensor) -> Product:
    transposed = rows.bfloat16().T
    return lambda vector: (torch.mm(vector.bfloat16(), transposed).float(), None)


_REDUCED: dict[str, Callable[[Tensor], Product]] = {"int8": _int8, "bfloat16": _bfloat16}


def _fastest(rows: Tensor) -> Precision:
    """What the first pass should use on this machine: measured, since no flag of the processor says it."""
    best, shortest = "float32", WORTHWHILE * _seconds(_float32(rows), rows)
    for name, pack in _REDUCED.items():
        try:
            took = _seconds(pack(rows), rows)
        except (RuntimeError, AttributeError):  # not on this device, or not in this torch
            continue
        if took < shortest:
            best, shortest = name, took
    return best  # type: ignore[return-value]


def _seconds(product: Product, rows: Tensor) -> float:
    """The shortest of a few runs."""
    vector = torch.randn(_TRIAL_ROWS, rows.shape[1], device=rows.device)
    product(vector)
    took = []
    for _ in range(3):
        if vector.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        product(vector)
        if vector.is_cuda:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return min(took)
