"""Arrays that grow at the end, as the catalogue does."""

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


class Growable(Generic[T]):
    """An array whose appends cost in proportion to what they append: full room is at least doubled.

    `now` is a view, which other threads may ask for while one appends. Appending never changes what an
    earlier view shows; writing through a view changes what is in the array until the next append moves it.
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
        start, end, room = self._length, self._length + len(values), self._room
        if end > len(room):
            room = np.empty((max(end, 2 * len(room)), *room.shape[1:]), room.dtype)
            room[:start] = self._room[:start]
        room[start:end] = values
        # The length comes last: whoever asks for `now` meanwhile, on another thread, gets whole values.
        self._room, self._length = room, end

    def extend(self, length: int, value: T | int | bool) -> None:
        """Append `value` until there are `length` values."""
        missing = length - self._length
        if missing > 0:
            self.append(np.full((missing, *self._room.shape[1:]), value, self._room.dtype))
