"""The rows of all model versions in use: one slab for each version, nearly always one altogether. A user has
exactly one row, and its epoch never goes back.

The newest epoch may deal its users to several versions (`eddy.stream.state.sampling.share_of`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.version_rows import VersionRows
from eddy.stream.records.columns import select_entries
from eddy.stream.state.catalogue_indices import CatalogueIndices
from eddy.stream.state.rows import Rows
from eddy.stream.state.sampling import share_of
from eddy.stream.state.side_by_side import leave_others
from eddy.stream.state.slab import NO_OFFSET, Slab, Slots


class NewerRows(EddyError):
    """Rows of a newer epoch than the engine's: it must switch to that epoch's version before it takes them,
    since states are never encoded anew for an older one.
    """

    def __init__(self, epoch: int, newest: int) -> None:
        super().__init__(f"rows of epoch {epoch} are newer than epoch {newest}, which is the live one here")
        self.epoch = epoch


class Located(NamedTuple):
    """Events whose users' rows are of one version."""

    version: VersionRows
    event: Slots
    """[m] their positions among all events, in increasing order"""
    slot: Slots
    """[m] of each event's row"""


class RowsByVersion:
    """The versions in use and their rows."""

    def __init__(self, newest: Sequence[VersionRows], percents: Sequence[int]) -> None:
        self.versions = list(newest)
        """oldest first; an older one leaves with its last row"""
        self.shared = self.versions
        """those of the newest epoch"""
        self._percents = percents
        self.may_be_stale = False
        """whether rows may be of another epoch than the newest one"""

    def __len__(self) -> int:
        return sum(len(version.slab) for version in self.versions)

    @property
    def newest(self) -> VersionRows:
        """The version of new rows, and of all others in the end: that of the newest epoch's first share."""
        return self.shared[0]

    @property
    def slabs(self) -> list[Slab]:
        """The slab of each version."""
        return [version.slab for version in self.versions]

    # -- versions ---------------------------------------------------------------------------------------

    @property
    def older(self) -> list[VersionRows]:
        """Those of older epochs."""
        return self.versions[: -len(self.shared)]

    def add_versions(self, versions: Sequence[VersionRows], percents: Sequence[int]) -> None:
        """Go on with the versions of a newer epoch; rows of the others stay with theirs until they are moved.

        Errors: ValueError when the epoch is not newer.
        """
        epoch = versions[0].live.epoch
        if epoch <= self.newest.live.epoch:
            raise ValueError(f"epoch {epoch} does not follow epoch {self.newest.live.epoch}")
        self.shared, self._percents = list(versions), percents
        self.versions = [*self.versions, *self.shared]
        self.may_be_stale = True
        self._drop_unused()

    def move_to_newest(self, version: VersionRows, slots: Slots) -> list[Changed]:
        """Encode rows of a version anew for the newest epoch, each by its share's version; returns where they
        are then.
        """
        changed = []
        share = self._share([version.slab.user_of[slot] or "" for slot in slots.tolist()])
        for number, newest in enumerate(self.shared):
            moved = slots[share == number]
            if version is not newest:
                moved = newest.slab.take_rows(version.slab, moved)
            newest.live.reencode(newest.slab, moved)
            changed.append(Changed(newest.slab, moved))
        self._drop_unused()
        return changed

    def _share(self, users: Sequence[str]) -> NDArray[np.int64]:
        """Which of the newest epoch's versions each user has: int64[n]."""
        if len(self.shared) == 1:
            return np.zeros(len(users), np.int64)
        return share_of([user.encode() for user in users], self.newest.live.epoch, self._percents)

    def _drop_unused(self) -> None:
        self.versions = [*(version for version in self.older if len(version.slab)), *self.shared]

    # -- users ------------------------------------------------------------------------------------------

    def locate(self, users: list[str], partition: NDArray[np.int32]) -> list[Located]:
        """Where the rows of n events' users are; new users get one of the newest version.

        Errors: ValueError for a user in two partitions.
        """
        # 1. The rows that are there; nearly all are of the newest version.
        slot = self.versions[-1].slab.slots_of(users)
        home = np.full(len(users), len(self.versions) - 1, np.int64)
        for number, version in enumerate(self.versions[:-1]):
            absent = np.flatnonzero(slot < 0)
            slot[absent] = version.slab.slots_of([users[i] for i in absent.tolist()])
            home[absent[slot[absent] >= 0]] = number
        # 2. New rows.
        new = np.flatnonzero(slot < 0)
        if len(new):
            first = {users[i]: int(partition[i]) for i in new.tolist()}
            names, homes = list(first), np.array(list(first.values()), np.int32)
            share = self._share(names)
            for number, version in enumerate(self.shared):
                chosen = np.flatnonzero(share == number)
                version.slab.add_users([names[i] for i in chosen.tolist()], homes[chosen], version.live.epoch)
                absent = np.flatnonzero(slot < 0)
                slot[absent] = version.slab.slots_of([users[i] for i in absent.tolist()])
                home[absent[slot[absent] >= 0]] = len(self.older) + number
        # 3. By version.
        located = []
        for number, version in enumerate(self.versions):
            event = np.arange(len(users)) if len(self.versions) == 1 else np.flatnonzero(home == number)
            if len(event):
                located.append(Located(version, event, slot[event]))
        for version, event, there in located:  # offsets of two partitions cannot be compared
            if np.any(version.slab.partition[there] != partition[event]):
                raise ValueError("events of a user in two partitions: the decoder should have refused one")
        return located

    def drop_empty(self, located: Sequence[Located]) -> None:
        """Drop those of the located rows that include no event: none of their users' has moved a state."""
        for version, _, slot in located:
            version.slab.remove_rows(np.unique(slot[version.slab.offset[slot] == NO_OFFSET]))

    def load(
        self, rows: Rows, catalogue: Catalogue, indices: CatalogueIndices | None = None
    ) -> list[Changed]:
        """Take stored rows (distinct users): those of a version in use with their states, all others to be
        encoded anew. A row that the user's row here is ahead of is ignored; returns those that were taken.
        `indices`: see `Slab.load_rows`.

        Errors: NewerRows when a row is of a newer epoch than the newest version. Then no row is taken.
        """
        newest = self.newest.live.epoch
        if int(rows.epoch.max(initial=0)) > newest:
            raise NewerRows(int(rows.epoch.max()), newest)
        taken = []
        # 1. Rows of versions in use, each to its version's slab.
        left = np.ones(len(rows.user), np.bool_)
        for version in self.versions:
            live = version.live
            its_own = (rows.epoch == live.epoch) & (rows.version == live.version_hash)
            its_own &= rows.hidden.shape[1] == live.state_size
            if its_own.any():
                taken.append(self._load_into(version, rows, its_own, catalogue, indices))
                left &= ~its_own
        # 2. The others. Whatever version they are of, it is not the newest epoch's.
        if left.any():
            others = replace(rows, epoch=np.minimum(rows.epoch, np.uint32(newest - 1)))
            share = self._share([user.decode() for user in rows.user])
            for number, version in enumerate(self.shared):
                chosen = left & (share == number)
                taken.append(self._load_into(version, others, chosen, catalogue, indices))
            self.may_be_stale = True
        self.may_be_stale |= len(self.older) > 0
        self._drop_unused()
        return [changed for changed in taken if len(changed.slots)]

    def _load_into(
        self, version: VersionRows, rows: Rows, chosen: NDArray[np.bool_], catalogue: Catalogue,
        indices: CatalogueIndices | None,
    ) -> Changed:  # fmt: skip
        """Load the chosen rows into a version's slab; returns those that were taken."""
        others = [slab for slab in self.slabs if slab is not version.slab]
        rows, indices = _select(rows, indices, chosen)
        rows, indices = _select(rows, indices, ~leave_others(rows, others))
        return Changed(version.slab, version.slab.load_rows(rows, catalogue, indices))

    def reserve(self, rows: int) -> None:
        """Make room for so many more rows at once."""
        for version in self.shared:
            version.slab.reserve(len(version.slab) + rows)

    def of_partition(self, partition: int) -> list[tuple[VersionRows, Slots]]:
        """The rows of one partition, by version."""
        return [(version, version.slab.of_partition(partition)) for version in self.versions]

    def forget_partition(self, partition: int) -> None:
        """Drop all rows of a partition."""
        for version, slots in self.of_partition(partition):
            version.slab.remove_rows(slots)
        self._drop_unused()

    def erase(self, users: Sequence[tuple[int, str]]) -> None:
        """Forget the rows of (partition, user); a row that another partition owns is not touched."""
        for slab in self.slabs:
            for partition, user in users:
                slot = slab.slots_of([user])
                slab.remove_rows(slot[(slot >= 0) & (slab.partition[slot] == partition)])
        self._drop_unused()

    def idle_users(self, partition: int, since: int, before: int) -> list[str]:
        """Users of a partition whose last event was before `since` (ms) and at an offset below `before`."""
        users: list[str] = []
        for version, slots in self.of_partition(partition):
            slab = version.slab
            idle = slots[(slab.last_time(slots) < since) & (slab.offset[slots] < before)]
            users += [slab.user_of[slot] or "" for slot in idle.tolist()]
        return users


def _select(
    rows: Rows, indices: CatalogueIndices | None, chosen: NDArray[np.bool_]
) -> tuple[Rows, CatalogueIndices | None]:
    """The chosen rows, and their indices if there are any."""
    if chosen.all():
        return rows, indices
    index = np.flatnonzero(chosen)
    return select_entries(rows, index), None if indices is None else select_entries(indices, index)
