"""What the engine tells of a micro-batch: counts, the rows that changed, and lists, which may still be in the
making.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.backend import TopK
from eddy.stream.state.item_names import JsonIds
from eddy.stream.state.slab import Slab, Slots


# Station 7: lists on their way to their messages.
@dataclass(frozen=True)
class Lists:
    """m recommendation lists, each as of one record of its user, and what messages say of where they come
    from. All of it is a copy: later batches do not change it.
    """

    user: Sequence[str]
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    time: NDArray[np.int64]
    """[m] ms of the user's last event"""
    topk: Callable[[], TopK]
    """waits for items and scores"""
    names: JsonIds
    """of the items listed"""
    epoch: int
    version: str
    """id of the model version that scored them"""


class Changed(NamedTuple):
    """Rows that changed, and so are to be written: where they are."""

    slab: Slab
    slots: Slots


@dataclass
class BatchReport:
    """What a micro-batch did."""

    applied: int = 0
    already_applied: int = 0
    ignored: int = 0
    """events whose type does not move states"""
    repeats: int = 0
    late: int = 0
    too_late: int = 0
    changed: list[Changed] = field(default_factory=list)
    lists: list[Lists] = field(default_factory=list)
    """by the version that scored them; each user in one of them"""
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    """(partition, offset, reason) of events that cannot be applied"""
