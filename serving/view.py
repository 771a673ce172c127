"""The materialised view: what Kafka's compacted topics say of users, items and model versions, in memory.

It does no I/O and is used from one thread, which answers questions; what scores with a new version is built
beside it (`NewVersion`). A row is scored with the model of the epoch and version that it names. While rows
move to a new version, and while users are dealt to several, those of each live side by side: there is one
slab per epoch and version, which is dropped with its model when no row names it any more.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash, item_hashes
from eddy.models.logs.item_features import NONE, LaterFeatures
from eddy.models.registry import Version
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.popularity import PopularityUpdate
from eddy.models.untrusted import Unreadable, decoded, text
from eddy.models.vocabulary import Catalogue
from eddy.serving.catalogue.adjustments import Adjustments
from eddy.serving.catalogue.attributes import Attributes
from eddy.serving.catalogue.rules import Rules, RulesDocument, decode_rules
from eddy.serving.lists.fresh import FreshItems
from eddy.serving.live.active_users import LatestUsers
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.ranker import Ranker, new_scorer
from eddy.stream.engine.ranker_builder import RankerBuilder
from eddy.stream.records.clock import StreamClock
from eddy.stream.records.columns import select_entries
from eddy.stream.records.schema import DICTIONARY_KEY, RULES_KEY, DescribedItem
from eddy.stream.state.item_names import ItemNames, decode_fields, features_in, metadata
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.retirement import Forgetting
from eddy.stream.state.rows import Rows
from eddy.stream.state.side_by_side import leave_others
from eddy.stream.state.slab import Slab
from eddy.stream.state.stored_rows import decode_newest

PRECISION: Precision = "auto"
"""Of the first pass of lists. What it finds, and what its error may hide, is scored again in float32; log Z
is that of the first pass.
"""

_decode_item = msgspec.json.Decoder(DescribedItem).decode


class VersionAt(NamedTuple):
    """A model version at an epoch, as rows name it."""

    epoch: int
    version: int
    """`item_hash` of its id"""

    @classmethod
    def of(cls, version: str, epoch: int) -> "VersionAt":
        """The version with this id."""
        return cls(epoch, item_hash(version))


@dataclass(frozen=True)
class RowAt:
    """Where a user's row is: in the slab of a version."""

    at: VersionAt
    slot: int


class RowsAt(NamedTuple):
    """Where the rows of many users are, as far as they are in the slab of one version."""

    at: VersionAt
    user: NDArray[np.int64]
    """[n] which of the users these are"""
    slots: NDArray[np.int64]
    """[n]"""


class NewVersion(NamedTuple):
    """A version that is on its way into the view."""

    live: LiveVersion
    builder: RankerBuilder

    def build(self) -> Ranker:
        """Its ranker, warmed up; takes about a second with 200,000 items. May be called on any thread."""
        (ranker,) = self.builder([self.live])
        return ranker


class ScoresUpdate(NamedTuple):
    """Work that brings the scores of a version up to date."""

    ranker: Ranker
    work: Callable[[], tuple[PopularityUpdate, float]]
    """may be done on any thread; its result is for `MaterialisedView.put_update`"""
    numbering: int
    """of the catalogue, as which the items are numbered"""


class MaterialisedView:
    """Rows and models by epoch and version, item names and metadata, item statistics, and the stream clock.

    The methods `take_…` take records of one topic in log order, in which records may be repeated. They
    return a line for each record that they could not read; the view then keeps what it had before.
    """

    def __init__(self, wall: Callable[[], int], threads: int = 1) -> None:
        """threads: that score side by side."""
        self.wall = wall
        self._threads = threads
        self.clock = StreamClock()
        self.catalogue = Catalogue()
        self.names = ItemNames(self.catalogue)
        self.metadata: dict[str, DescribedItem] = {}
        self.attributes = Attributes()
        self.adjustments = Adjustments(self.attributes)
        self.rules = Rules(RulesDocument(rules=[]))
        self.fresh = FreshItems()
        self.latest_users = LatestUsers()
        self.slabs: dict[VersionAt, Slab] = {}
        self.rankers: dict[VersionAt, Ranker] = {}
        self._percent: dict[VersionAt, int] = {}
        """of the users who have each version, by its announcement"""
        self._stats: StatisticsReader | None = None
        self._forgetting = Forgetting(self.names)

    def __len__(self) -> int:
        return sum(map(len, self.slabs.values()))

    @property
    def statistics(self) -> Statistics | None:
        """Item statistics, for all versions that were put here; None before the first."""
        return self._stats.statistics if self._stats else None

    @property
    def newest(self) -> Ranker | None:
        """The model of the greatest epoch that could be loaded: of several, that of the most users. It
        answers whoever has no share, such as a session.
        """
        at = self.newest_at
        return None if at is None else self.rankers[at]

    @property
    def newest_at(self) -> VersionAt | None:
        """Which version `newest` is."""
        return max(self.rankers, key=lambda at: (at.epoch, self._percent[at], at.version), default=None)

    def now(self) -> int:
        """The stream's now, ms; -1 before the first event."""
        return self.clock.now(self.wall())

    def find_rows(self, users: Sequence[str]) -> Iterator[RowsAt]:
        """Where the rows of these users are, older epochs first."""
        for at in sorted(self.slabs):
            slots = self.slabs[at].slots_of(users)
            number = np.flatnonzero(slots >= 0)
            if len(number):
                yield RowsAt(at, number, slots[number])

    def find_row(self, user: str) -> RowAt | None:
        """Where the user's row is; None if there is none."""
        for at, slab in self.slabs.items():
            slot = slab.slot_of.get(user)
            if slot is not None:
                return RowAt(at, slot)
        return None

    def row_includes(self, user: str, partition: int, offset: int) -> bool:
        """Whether the user's row is of a partition of `events` and includes a record there or a later one."""
        row = self.find_row(user)
        if row is None:
            return False
        slab = self.slabs[row.at]
        return bool(slab.partition[row.slot] == partition and slab.offset[row.slot] >= offset)

    # -- model versions -----------------------------------------------------------------------------------

    def new_version(self, version: Version, epoch: int) -> NewVersion:
        """A version that is to score the rows of an epoch that name it, as soon as it is built and put here;
        its items must have been numbered (`numbering_steps`).

        Errors: EddyError when the size of its states does not fit.
        """
        self._require_fitting(version, epoch)
        config = version.recommender.config
        if self._stats is None:
            statistics = Statistics(config.half_lives_ms, config.successors)
            self._stats = StatisticsReader(statistics, self.catalogue)
        self._stats.statistics.widen(config.half_lives_ms, config.successors)
        live = LiveVersion(version, epoch, self.catalogue, torch.device("cpu"))
        now = float(self.now())
        builder = RankerBuilder(self.names, self._stats.statistics, now, PRECISION, self._threads)
        return NewVersion(live, builder)

    def put_version(self, new: NewVersion, ranker: Ranker, percent: int = 100) -> bool:
        """Score the rows of an epoch that name a version with the ranker that `new` has built, from now on.
        False, and nothing is changed, when items have got other numbers meanwhile: then begin anew. percent:
        of the users who have the version.

        Errors: EddyError when the size of its states does not fit.
        """
        version, epoch = new.live.version, new.live.epoch
        self._require_fitting(version, epoch)  # rows may have come meanwhile
        if not new.builder.attach([ranker]):
            return False
        ranker.update_statistics(self.now(), self.wall())  # now, not at somebody's request
        at = VersionAt.of(version.id, epoch)
        self.rankers[at], self._percent[at] = ranker, percent
        self._drop_unused()
        return True

    def _require_fitting(self, version: Version, epoch: int) -> None:
        slab = self.slabs.get(VersionAt.of(version.id, epoch))
        if slab is not None and slab.state_size != version.recommender.state_size:
            raise EddyError(
                f"version {version.id} has states of {version.recommender.state_size} floats, the rows of "
                f"epoch {epoch} have {slab.state_size}: they were made by another version"
            )

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
        self.attributes.keep(kept)
        for slab in self.slabs.values():
            slab.renumber(place)
        for at, ranker in self.rankers.items():
            self.rankers[at] = self._new_ranker(ranker.live, statistics)

    def _new_ranker(self, live: LiveVersion, statistics: Statistics) -> Ranker:
        scorer = new_scorer(live, self.catalogue, statistics, PRECISION, self._threads)
        ranker = Ranker(live, self.names, scorer)
        ranker.update_statistics(self.now(), self.wall())  # now, not at somebody's request
        return ranker

    def begin_updates(self) -> list[ScoresUpdate]:
        """The scores that are soon due to be brought up to date, so that no question has to wait for it."""
        now, wall, numbering = self.now(), self.wall(), self.catalogue.renumbered
        begun = ((ranker, ranker.begin_update(now, wall)) for ranker in self.rankers.values())
        return [ScoresUpdate(ranker, work, numbering) for ranker, work in begun if work is not None]

    def put_update(self, update: ScoresUpdate, popularity: PopularityUpdate, took_s: float) -> None:
        """Score as the update says, unless items have got other numbers meanwhile."""
        if update.numbering == self.catalogue.renumbered:
            update.ranker.put_update(popularity, took_s)

    def without_model(self, live: Iterable[VersionAt]) -> set[VersionAt]:
        """The versions, out of the live ones and those that rows name, whose model is not here."""
        return {*live, *self.slabs} - self.rankers.keys()

    def _drop_unused(self) -> None:
        newest = max((at.epoch for at in self.rankers), default=-1)
        for at in [at for at, slab in self.slabs.items() if not len(slab)]:
            del self.slabs[at]
        for at in [at for at in self.rankers if at.epoch != newest and at not in self.slabs]:
            del self.rankers[at], self._percent[at]

    # -- records ------------------------------------------------------------------------------------------

    def take_items(self, records: Sequence[tuple[bytes | None, bytes | None]]) -> list[str]:
        """Take records (key, value) of `items`: names of hashes, metadata, and which items are withdrawn."""
        unreadable, ids = [], []
        described: dict[str, Mapping[str, object]] = {}
        features: list[tuple[int, NDArray[np.uint64] | LaterFeatures]] = []
        for key, value in records:
            if not key:
                continue
            if key == RULES_KEY:
                unreadable += self._take_rules(value)
                continue
            is_metadata = not key.startswith(DICTIONARY_KEY)
            try:
                if value is None:
                    if is_metadata:  # the key of a retired item's tombstone is its hash
                        name = text(key)
                        self.metadata.pop(name, None)
                        described[name] = {}
                        features.append((item_hash(name), NONE))
                    continue
                named = decoded(_decode_item, value)
            except Unreadable as reason:
                unreadable.append(f"key {key!r}: {reason}")
                features += metadata([(key, value)])  # all that other readers take of it
                continue
            ids.append(named.item_id)
            if is_metadata:
                self.metadata[named.item_id] = named
                with contextlib.suppress(Unreadable):  # in a field that an Item does not have
                    described[named.item_id] = decoded(decode_fields, value)
                    features.append((item_hash(named.item_id), partial(features_in, value)))
        self.names.name_items(ids)
        self.names.take_availability(records)
        self._take_attributes(described)
        for item, of_item in features:
            self.catalogue.features.put(item, of_item)
        return unreadable

    def _take_rules(self, value: bytes | None) -> list[str]:
        """Take business rules; none for a tombstone. Those that cannot be used leave the ones before."""
        try:
            document = RulesDocument(rules=[]) if value is None else decode_rules(value)
        except EddyError as reason:
            return [f"{reason}; the rules before it go on"]
        self.rules = Rules(document)
        return []

    def _take_attributes(self, described: Mapping[str, Mapping[str, object]]) -> None:
        """Take the newest fields of items by id, none for a tombstone, into columns."""
        index, names = self.catalogue.find(item_hashes(list(described))).tolist(), self.names.ids
        self.attributes.put(
            {
                item: fields
                for item, (name, fields) in zip(index, described.items(), strict=True)
                if item >= 0 and names[item] in (name, None)  # not another one with the same hash
            }
        )

    def take_statistics(
        self, partition: int, records: Sequence[tuple[bytes | None, bytes | None]]
    ) -> list[str]:
        """Take records (key, value) of `item-stats`; a version must be there."""
        if self._stats is None:
            raise RuntimeError("no model version yet")
        return self._stats.apply_records(partition, records)

    def take_rows(self, partition: int, newest: Mapping[bytes, bytes | None]) -> list[str]:
        """Take the newest record of each user in a stretch of a partition of `user-state`.

        A tombstone erases the user if their row is of this partition, as at a worker's restore.
        """
        stored = decode_newest(newest)
        self._remove(partition, stored.erased)
        unreadable = [*stored.damaged.values(), *(f"key {key!r} is not UTF-8" for key in stored.foreign)]
        for rows in stored.rows:
            named = zip(rows.epoch.tolist(), rows.version.tolist(), strict=True)
            for at in sorted({VersionAt(*pair) for pair in named}):
                of_version = (rows.epoch == at.epoch) & (rows.version == np.uint64(at.version))
                unreadable += self._load(at, select_entries(rows, np.flatnonzero(of_version)))
        self._drop_unused()
        return unreadable

    def _remove(self, partition: int, users: Sequence[str]) -> None:
        for slab in self.slabs.values():
            slots = slab.slots_of(users)
            slots = slots[(slots >= 0) & (slab.partition[slots] == partition)]
            self.latest_users.forget([slab.user_of[slot] for slot in slots.tolist()])
            slab.remove_rows(slots)

    def _load(self, at: VersionAt, rows: Rows) -> list[str]:
        size = rows.hidden.shape[1]
        model = self.rankers.get(at)
        slab = self.slabs.get(at)
        expected = model.live.state_size if model else slab.state_size if slab else size
        if size != expected:
            return [
                f"row of user {user!r}: {size} floats, epoch {at.epoch} has states of {expected}"
                for user in rows.user
            ]
        behind = leave_others(rows, (slab for other, slab in self.slabs.items() if other != at))
        if behind.any():
            rows = select_entries(rows, np.flatnonzero(~behind))
        if not len(rows.user):
            return []
        if slab is None:
            slab = self.slabs[at] = Slab(size)
        slots = slab.load_rows(rows, self.catalogue)
        if len(slots):
            last = slab.last_time(slots)
            self.clock.observe(int(last.max()), self.wall())
            self.latest_users.note(slab.user_of, slots, last)
        return []
