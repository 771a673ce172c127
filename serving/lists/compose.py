"""Lists that are more than the best scores: pinned and explored items, caps, and diversity.

1. Pinned items stand at the top.
2. Explored items stand at regular places. They are drawn from the newest items with few events, by chance,
   the likelier ones more often: Gumbel noise on the scores makes that a draw without replacement from their
   softmax (Kool et al., ICML 2019). The same person gets the same draw for an hour.
3. The best of the others take the remaining places, as far as caps allow. With `diversity` they are chosen
   one after another by maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): relevance is the
   score, scaled to 0 … 1 over the candidates, and similarity the cosine of item vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.config import HOUR_MS
from eddy.models.hashing import item_hash
from eddy.models.kernels.topk import topk
from eddy.serving.catalogue.attributes import Attributes
from eddy.serving.lists.questions import Question

CANDIDATES = 4
"""Candidates for each place, where caps or diversity can pass over some; four times as many if they do not
suffice.
"""

MOST_CANDIDATES = 2_000
"""Beyond so many candidates a list with caps stays shorter than was asked for."""


class Place(NamedTuple):
    """A place of a list."""

    item: int
    """catalogue index"""
    reason: Literal["score", "pinned", "explored"]


@dataclass(frozen=True)
class Material:
    """What the lists of one moment are composed from."""

    attributes: Attributes
    pins: Sequence[int]
    """catalogue indices"""
    caps: Sequence[tuple[str, int]]
    """attribute, and the most items of one of its values"""
    fresh: NDArray[np.int64]
    """catalogue indices"""
    vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    """item vectors [n,D] of items"""
    now: int
    """the stream's, ms"""


class _Quota:
    """How many more items a list may have of each value of an attribute."""

    def __init__(self, attributes: Attributes, caps: Sequence[tuple[str, int]]) -> None:
        self._caps = [
            (attributes.by_name[name].codes.now, most) for name, most in caps if name in attributes.by_name
        ]
        self._count: dict[tuple[int, int], int] = {}

    def take(self, item: int, whatever: bool = False) -> bool:
        """Whether the item fits; it then counts. `whatever`: it counts in any case."""
        values = [
            (cap, code)
            for cap, (codes, _) in enumerate(self._caps)
            for code in (codes[item].tolist() if item < len(codes) else ())
            if code >= 0
        ]
        if not whatever and any(self._count.get(value, 0) >= self._caps[value[0]][1] for value in values):
            return False
        for value in values:
            self._count[value] = self._count.get(value, 0) + 1
        return True


def compose(
    question: Question, explore: float, scores: NDArray[np.float32], explorable: NDArray[np.float32],
    material: Material,
) -> list[Place]:  # fmt: skip
    """A list by scores[N], logarithmic, -inf for what may not be in it; explorable[N] are those of items that
    may be explored. `explore` is the share of explored items.
    """
    caps = list(material.caps)
    if question.max_per_category is not None:
        caps.append(("category", question.max_per_category))
    quota = _Quota(material.attributes, caps)
    # 1. Pinned items, which count for the caps but are not held back by them.
    pinned = [item for item in material.pins if explorable[item] > -np.inf][: question.k]
    for item in pinned:
        quota.take(item, whatever=True)
    # 2. Explored items: as many as the places that they are to have.
    rest = question.k - len(pinned)
    places = [i for i in range(rest) if int((i + 1) * explore + 1e-9) > int(i * explore + 1e-9)]
    explored: list[int] = []
    for item in _drawn(question, explorable, material) if places else ():
        if len(explored) == len(places):
            break
        if item not in pinned and quota.take(item):
            explored.append(item)
    # 3. The best of the others.
    scores = scores.copy()
    scores[pinned + explored] = -np.inf
    wanted, chooses = rest - len(explored), bool(caps) or question.diversity > 0
    width = min(wanted * (CANDIDATES if chooses else 1), len(scores))
    best: list[int] = []
    while wanted:
        index, value = (part[0].numpy() for part in topk(torch.from_numpy(scores)[None], width))
        index, value = index[index >= 0], value[index >= 0]
        trial = _Quota(material.attributes, caps)
        for item in pinned + explored:
            trial.take(item, whatever=True)
        best = []
        for item in _in_order(index, value, question.diversity, material):
            if trial.take(item):
                best.append(item)
            if len(best) == wanted:
                break
        if len(best) == wanted or len(index) < width or width >= min(len(scores), MOST_CANDIDATES):
            break
        width = min(width * CANDIDATES, len(scores), MOST_CANDIDATES)
    # 4. Explored items at their places among the best.
    listed = [Place(item, "score") for item in best]
    for place, item in zip(places, explored, strict=False):
        listed.insert(place, Place(item, "explored"))
    return [Place(item, "pinned") for item in pinned] + listed


def _drawn(question: Question, explorable: NDArray[np.float32], material: Material) -> list[int]:
    """Fresh items in the order of a draw."""
    fresh = material.fresh[explorable[material.fresh] > -np.inf]
    session = (event.item_id for event in question.session or ())
    who = item_hash("\0".join((question.user_id, *session)))
    chance = np.random.default_rng([who, max(material.now, 0) // HOUR_MS])
    noisy = explorable[fresh] + chance.gumbel(size=len(fresh))
    return fresh[np.argsort(-noisy, kind="stable")].tolist()  # type: ignore[no-any-return]


def _in_order(
    index: NDArray[np.int64], value: NDArray[np.float32], diversity: float, material: Material
) -> Iterator[int]:
    """Candidates, best first by value[C], in the order in which they are to be taken. The one that was given
    last counts as taken for the similarity of the next.
    """
    if not diversity or not len(index):
        yield from index.tolist()
        return
    spread = max(float(value[0] - value[-1]), 1e-9)
    relevance = (1 - diversity) * (value - value[-1]) / spread
    vectors = material.vectors(index)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    nearest = np.zeros(len(index), np.float32)
    left = np.ones(len(index), np.bool_)
    for _ in range(len(index)):
        best = int(np.argmax(np.where(left, relevance - diversity * nearest, -np.inf)))
        left[best] = False
        yield int(index[best])
        nearest = np.maximum(nearest, vectors @ vectors[best])
