"""Arrays that grow at the end, as the catalogue does."""

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class Growable(Generic[T]):
    """An array whose appends cost in proportion to what they append: full room is at least doubled.

    `now` is a view. Appending never changes what an earlier view shows, so other threads may keep one;
    writing through a view changes what is in the array until the next append moves it.
    """

    def __init__(self, values: NDArray[T]) -> None:
        self._room = values
        self._length = len(values)

    def __len__(self) -> int:
        return self._length

    @property
    def now(self) -> NDArray[T]:
        """The values, as a view."""
        return self._room[: self._length]

    def append(self, values: NDArray[T]) -> None:
        """Add these values at the end."""
        start, self._length = self._length, self._length + len(values)
        if self._length > len(self._room):
            room = np.empty((max(self._length, 2 * len(self._room)), *self._room.shape[1:]), self._room.dtype)
            room[:start] = self._room[:start]
            self._room = room
        self._room[start : self._length] = values

    def extend(self, length: int, value: T | int | bool) -> None:
        """Append `value` until there are `length` values."""
        missing = length - self._length
        if missing > 0:
            self.append(np.full((missing, *self._room.shape[1:]), value, self._room.dtype))
