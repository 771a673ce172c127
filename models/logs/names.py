"""Names of users, items and event types: each is kept once, as Arrow text, and events refer to its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.models.logs.column_store import ColumnStore

_LEAST_PENDING, _MOST_PENDING = 1 << 16, 1 << 21
"""Names that wait until they are numbered together. With as many waiting as there are numbers already,
numbering all of them costs in proportion to their count; the upper bound is one of memory.
"""

ABSENT = -1
"""The number of no name."""


class Names(Sequence[str]):
    """A sequence of texts that takes little more memory than their bytes."""

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Names(self.texts[index])
        return self.texts[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self.texts), _LEAST_PENDING):
            yield from self.texts[begin : begin + _LEAST_PENDING].to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({len(self)})"


@dataclass(frozen=True)
class NameColumn:
    """A column of names."""

    number: NDArray[np.int32]
    """[n] index into `names`, ABSENT where there is none"""
    names: pa.LargeStringArray
    """distinct, in the order in which they were first read"""


class GrowingNames:
    """A column of names while it is read."""

    def __init__(self, store: ColumnStore) -> None:
        self._number = store.growing(np.int32)
        self._names = pa.array([], pa.large_string())
        self._pending: list[pa.Array] = []
        self._waiting = 0

    def append(self, names: pa.Array) -> None:
        """Add names, null where there is none."""
        self._pending.append(names.cast(pa.large_string()))
        self._waiting += len(names)
        if self._waiting >= min(max(_LEAST_PENDING, len(self._names)), _MOST_PENDING):
            self._number_pending()

    def finish(self) -> NameColumn:
        """The whole column."""
        self._number_pending()
        return NameColumn(self._number.finish(), self._names)

    def _number_pending(self) -> None:
        """Number the names that wait; those that have numbers already keep them, as they come first."""
        if not self._pending:
            return
        waiting = pa.concat_arrays(self._pending).dictionary_encode()
        self._pending, self._waiting = [], 0
        known = len(self._names)
        joined = pa.concat_arrays([self._names, waiting.dictionary]).dictionary_encode()
        self._names = joined.dictionary
        number_of = np.append(joined.indices.slice(known).to_numpy(), np.int32(ABSENT))
        self._number.append(number_of[waiting.indices.fill_null(ABSENT).to_numpy()])  # ABSENT: the last one
