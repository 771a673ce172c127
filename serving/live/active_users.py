"""Who is active: the users with the latest events, out of the rows that come. Used on the view's thread."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KEPT = 1_000
"""So many users are kept."""


class LatestUsers:
    """Users by the time of their last event. A row that is encoded anew brings its user no further up."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._least = np.iinfo(np.int64).min

    def note(self, user_of: Sequence[str | None], slots: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        """Rows of n users have come, user_of[slots[n]], whose last events were at last[n] (ms)."""
        late = np.flatnonzero(last > self._least)
        if len(late) > KEPT:
            late = late[np.argpartition(-last[late], KEPT)[:KEPT]]
        for place in late.tolist():
            user = user_of[slots[place]]
            if user is not None:
                self._last[user] = int(last[place])
        if len(self._last) > 2 * KEPT:
            kept = sorted(self._last.items(), key=lambda entry: -entry[1])[:KEPT]
            self._last, self._least = dict(kept), kept[-1][1]

    def forget(self, users: Sequence[str | None]) -> None:
        """These users are erased."""
        for user in users:
            self._last.pop(user or "", None)

    def newest(self) -> list[str]:
        """The users, who was active last first."""
        return sorted(self._last, key=lambda user: -self._last[user])
