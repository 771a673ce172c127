"""The materialised view: what Kafka's compacted topics say of users, items and model versions, in memory.

It does no I/O and is used from one thread. A row is scored with the model of the epoch that it names.
While rows move to a new version, those of two epochs live side by side: there is one slab per epoch, which
is dropped with its model when no row names the epoch any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.untrusted import Unreadable, decoded, text
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.ranker import Ranker, new_scorer
from eddy.stream.records.clock import StreamClock
from eddy.stream.records.columns import select_entries
from eddy.stream.records.schema import DICTIONARY_KEY, Item
from eddy.stream.state.item_names import ItemNames, metadata
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.retirement import Forgetting
from eddy.stream.state.rows import Rows
from eddy.stream.state.side_by_side import leave_others
from eddy.stream.state.slab import Slab
from eddy.stream.state.stored_rows import decode_newest

_decode_item = msgspec.json.Decoder(Item).decode


@dataclass(frozen=True)
class RowAt:
    """Where a user's row is: in the slab of an epoch."""

    epoch: int
    slot: int


class MaterialisedView:
    """Rows by epoch, models by epoch, item names and metadata, item statistics, and the stream clock.

    The methods `take_…` take records of one topic in log order, in which records may be repeated. They
    return a line for each record that they could not read; the view then keeps what it had before.
    """

    def __init__(self, wall: Callable[[], int]) -> None:
        self.wall = wall
        self.clock = StreamClock()
        self.catalogue = Catalogue()
        self.names = ItemNames(self.catalogue)
        self.metadata: dict[str, Item] = {}
        self.slabs: dict[int, Slab] = {}
        self.rankers: dict[int, Ranker] = {}
        self._stats: StatisticsReader | None = None
        self._forgetting = Forgetting(self.names)

    def __len__(self) -> int:
        return sum(map(len, self.slabs.values()))

    @property
    def statistics(self) -> Statistics | None:
        """Item statistics; None before the first version, which says how they are counted."""
        return self._stats.statistics if self._stats else None

    @property
    def newest(self) -> Ranker | None:
        """The model of the greatest epoch that could be loaded."""
        return self.rankers[max(self.rankers)] if self.rankers else None

    def now(self) -> int:
        """The stream's now, ms; -1 before the first event."""
        return self.clock.now(self.wall())

    def find_row(self, user: str) -> RowAt | None:
        """Where the user's row is; None if there is none."""
        for epoch, slab in self.slabs.items():
            slot = slab.slot_of.get(user)
            if slot is not None:
                return RowAt(epoch, slot)
        return None

    # -- model versions -----------------------------------------------------------------------------------

    def put_version(self, version: Version, epoch: int) -> None:
        """Score the rows of an epoch with this version from now on.

        Errors: EddyError when the version's item statistics or the size of its states do not fit.
        """
        config = version.recommender.config
        if self._stats is None:
            statistics = Statistics(config.half_lives_ms, config.successors)
            self._stats = StatisticsReader(statistics, self.catalogue)
        counted = self._stats.statistics
        if (config.half_lives_ms, config.successors) != (counted.half_lives_ms, counted.successors):
            raise EddyError(
                f"version {version.id} wants other item statistics (half_lives_ms, successors) than those "
                "counted: restart workers and servers to go on with it"
            )
        slab = self.slabs.get(epoch)
        if slab is not None and slab.state_size != version.recommender.state_size:
            raise EddyError(
                f"version {version.id} has states of {version.recommender.state_size} floats, the rows of "
                f"epoch {epoch} have {slab.state_size}: they were made by another version"
            )
        self.catalogue.features.add(version.features.items())
        self.names.add_vocabulary(version.vocabulary.items)
        live = LiveVersion(version, epoch, self.catalogue, torch.device("cpu"))
        ranker = self._new_ranker(live, counted)
        ranker.scorer.warm_up()
        self.rankers[epoch] = ranker
        self._drop_unused()

    def forget_items(self) -> None:
        """Forget the items that can be in no list and that nothing names, if they are many."""
        if self._stats is None:
            return
        statistics = self._stats.statistics
        kept = self._forgetting.kept(statistics, self.slabs.values())
        if kept is None:
            return
        place = self.names.keep_items(kept)
        statistics.renumber(place)
        for slab in self.slabs.values():
            slab.renumber(place)
        for epoch, ranker in self.rankers.items():
            self.rankers[epoch] = self._new_ranker(ranker.live, statistics)

    def _new_ranker(self, live: LiveVersion, statistics: Statistics) -> Ranker:
        ranker = Ranker(live, self.names, new_scorer(live, self.catalogue, statistics))
        ranker.update_statistics(self.now(), self.wall())  # now, not at somebody's request
        return ranker

    def without_model(self, live: int) -> set[int]:
        """The epochs, out of the live one and those that rows name, whose model is not here."""
        return {live, *self.slabs} - self.rankers.keys()

    def _drop_unused(self) -> None:
        newest = max(self.rankers, default=-1)
        for epoch in [epoch for epoch, slab in self.slabs.items() if not len(slab)]:
            del self.slabs[epoch]
        for epoch in [epoch for epoch in self.rankers if epoch != newest and epoch not in self.slabs]:
            del self.rankers[epoch]

    # -- records ------------------------------------------------------------------------------------------

    def take_items(self, records: Sequence[tuple[bytes | None, bytes | None]]) -> list[str]:
        """Take records (key, value) of `items`: names of hashes, metadata, and which items are withdrawn."""
        unreadable, ids = [], []
        for key, value in records:
            if not key:
                continue
            try:
                if value is None:
                    self.metadata.pop(text(key), None)
                    continue
                item = decoded(_decode_item, value)
            except Unreadable as reason:
                unreadable.append(f"key {key!r}: {reason}")
                continue
            ids.append(item.item_id)
            if not key.startswith(DICTIONARY_KEY):
                self.metadata[item.item_id] = item
        self.names.name_items(ids)
        self.names.take_availability(records)
        for item_hash, features in metadata(records):
            self.catalogue.features.put(item_hash, features)
        return unreadable

    def take_statistics(
        self, partition: int, records: Sequence[tuple[bytes | None, bytes | None]]
    ) -> list[str]:
        """Take records (key, value) of `item-stats`; a version must be there."""
        if self._stats is None:
            raise RuntimeError("no model version yet")
        return self._stats.apply_records(partition, records)

    def take_rows(self, partition: int, newest: Mapping[bytes, bytes | None]) -> list[str]:
        """Take the newest record of each user in a stretch of a partition of `user-state`.

        An empty value erases the user if their row is of this partition, as at a worker's restore.
        """
        stored = decode_newest(newest)
        self._remove(partition, stored.erased)
        unreadable = [*stored.damaged.values(), *(f"key {key!r} is not UTF-8" for key in stored.foreign)]
        for rows in stored.rows:
            for epoch in np.unique(rows.epoch).tolist():
                unreadable += self._load(
                    int(epoch), select_entries(rows, np.flatnonzero(rows.epoch == epoch))
                )
        self._drop_unused()
        return unreadable

    def _remove(self, partition: int, users: Sequence[str]) -> None:
        for slab in self.slabs.values():
            slots = slab.slots_of(users)
            slab.remove_rows(slots[(slots >= 0) & (slab.partition[slots] == partition)])

    def _load(self, epoch: int, rows: Rows) -> list[str]:
        size = rows.hidden.shape[1]
        model = self.rankers.get(epoch)
        slab = self.slabs.get(epoch)
        expected = model.live.state_size if model else slab.state_size if slab else size
        if size != expected:
            return [
                f"row of user {user!r}: {size} floats, epoch {epoch} has states of {expected}"
                for user in rows.user
            ]
        behind = leave_others(rows, (slab for other, slab in self.slabs.items() if other != epoch))
        if behind.any():
            rows = select_entries(rows, np.flatnonzero(~behind))
        if not len(rows.user):
            return []
        if slab is None:
            slab = self.slabs[epoch] = Slab(size)
        slots = slab.load_rows(rows, self.catalogue)
        if len(slots):
            self.clock.observe(int(slab.last_time(slots).max()), self.wall())
        return []
