"""Slabs side by side, one for each model version in use: a user has exactly one row over all of them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from eddy.stream.state.rows import Rows
from eddy.stream.state.slab import Slab


def leave_others(rows: Rows, others: Iterable[Slab]) -> NDArray[np.bool_]:
    """Take the users of stored rows [n], which go to another slab, out of these slabs. Returns which rows are
    not to be taken, since the user's row here is ahead of them (`Slab.is_ahead`): bool[n].
    """
    users: list[str] = []
    behind = np.zeros(len(rows.user), np.bool_)
    for slab in others:
        if not len(slab):
            continue
        users = users or [user.decode() for user in rows.user]
        slots = slab.slots_of(users)
        here = slots >= 0
        ahead = here & slab.is_ahead(slots, rows)
        slab.remove_rows(slots[here & ~ahead])
        behind |= ahead
    return behind
