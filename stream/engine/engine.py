"""The engine: events in, moved rows and recommendations out. Arrays in, arrays out; no Kafka, no asyncio.

One micro-batch: leave out what rows already include → move rows (eddy.stream.engine.move_rows) → begin the
exact top-k of the users that changed and the ranks of sampled events, in one pass → note what the item
statistics are to count: scores are made from what was counted before the batch. Any exception leaves memory
half written: the process must end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.move_rows import Columns, MoveReport, concatenate_views, move_rows, warm_up_row_moves
from eddy.stream.engine.prequential import Prequential
from eddy.stream.engine.rank_budget import RankBudget
from eddy.stream.engine.ranker import Made, Ranker
from eddy.stream.engine.statistics_buffer import StatisticsBuffer
from eddy.stream.records.clock import StreamClock
from eddy.stream.records.decode import EventBatch
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.retirement import Forgetting, drop_idle
from eddy.stream.state.rows import Rows, encode_rows
from eddy.stream.state.sampling import in_sample
from eddy.stream.state.slab import CatalogueIndices, Slab, Slots

Emit = Literal["every", "latest", "off"]


class NewerRows(EddyError):
    """Rows of an epoch that is newer than the engine's: it has to go on with that epoch before it takes
    them, since states are never encoded back for an older one.
    """

    def __init__(self, epoch: int, live: int) -> None:
        super().__init__(f"rows of epoch {epoch} are newer than epoch {live}, which is the live one here")
        self.epoch = epoch


@dataclass(frozen=True)
class Options:
    """What a deployment chooses of the engine's work."""

    k: int = 20
    emit: Emit = "latest"
    exclude_seen: bool = False
    precision: Precision = "float32"
    threads: int = 1
    """that score, side by side"""
    sample: float = 0.1
    """share of users whose events are ranked before they are applied (prequential metrics)"""
    ranking_time: float | None = None
    """share of the time that these ranks may take; the sample is thinned to keep it"""


@dataclass(frozen=True)
class Lists:
    """m recommendation lists, each as of one record of its user. What is here is a copy: later batches do not
    change it.
    """

    user: Sequence[str]
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    time: NDArray[np.int64]
    """[m] ms"""
    made: Callable[[], Made]
    """waits for items and scores"""


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
    dirty: Slots = field(default_factory=lambda: np.zeros(0, np.int64))
    """slots whose rows changed"""
    lists: Lists | None = None
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    """(partition, offset, reason) of events that cannot be applied"""


class Engine:
    """Rows, statistics and one live model version, which can be exchanged for that of a newer epoch between
    batches. No row is of a newer epoch than the live one.
    """

    def __init__(
        self,
        live: LiveVersion,
        names: ItemNames,
        statistics: Statistics,
        options: Options,
        wall: Callable[[], int],
    ) -> None:
        self.encoder = live
        self.names, self.statistics, self.options = names, statistics, options
        self.slab = Slab(live.state_size, live.device, options.sample)
        self.clock = StreamClock()
        self.wall = wall
        self.prequential = Prequential()
        self.rank_budget = RankBudget(options.ranking_time)
        self.ranker = self._new_ranker()
        self.versions: dict[int, int] = {live.epoch: live.version_hash}
        self.stale = 0
        """rows still of older epochs after the last `reencode_oldest`"""
        self.may_be_stale = False
        """whether `reencode_oldest` has to look"""
        self.statistics_buffer = StatisticsBuffer(statistics)
        self._forgetting = Forgetting(names)

    def _new_ranker(self) -> Ranker:
        options = self.options
        return Ranker(self.encoder, self.names, self.statistics, options.precision, options.threads)

    def warm_up(self) -> None:
        """Compile what events, lists and checkpoints need, before the first event waits for it."""
        self.ranker.scorer.update_statistics(self.wall())
        self.ranker.scorer.warm_up()
        warm_up_row_moves(self.encoder)
        encode_rows(self.slab.export(np.zeros(0, np.int64), self.names.catalogue, bytes(16), self.versions))

    # -- the model version ------------------------------------------------------------------------------

    def switch_version(self, encoder: LiveVersion) -> None:
        """Go on with the version of a newer epoch: rows are encoded anew when touched, or by
        `reencode_oldest`.
        """
        if encoder.epoch <= self.encoder.epoch:
            raise ValueError(f"epoch {encoder.epoch} does not follow epoch {self.encoder.epoch}")
        self.encoder = encoder
        self.ranker = self._new_ranker()
        self.versions[encoder.epoch] = encoder.version_hash
        self.slab.reset_states(encoder.state_size)
        self.may_be_stale = True

    def reencode_oldest(self, limit: int) -> Slots:
        """Encode up to `limit` rows of older epochs anew, most recently active first; returns their slots."""
        if not self.may_be_stale:
            return np.zeros(0, np.int64)
        used = len(self.slab.user_of)
        old = np.flatnonzero(
            (self.slab.epoch[:used] < self.encoder.epoch) & (self.slab.partition[:used] >= 0)
        )
        self.stale = max(len(old) - limit, 0)
        self.may_be_stale = self.stale > 0
        if len(old) > limit:
            old = old[np.argpartition(-self.slab.last_time(old), limit)[:limit]]
        return self.reencode(old)

    def load(self, rows: Rows, known: CatalogueIndices | None = None) -> Slots:
        """Take stored rows (distinct users); returns the slots written. `known`: see `Slab.load`.

        Errors: NewerRows when one is of a newer epoch than the live one; then none is taken, so that every
        row here is of the live epoch or of an older one.
        """
        newest = int(rows.epoch.max(initial=0))
        if newest > self.encoder.epoch:
            raise NewerRows(newest, self.encoder.epoch)
        slots = self.slab.load(rows, self.names.catalogue, known)
        if len(slots):
            self.may_be_stale = True
            self.clock.observe(int(self.slab.last_time(slots).max()), self.wall())
        return slots

    # -- events -----------------------------------------------------------------------------------------

    def apply(self, batches: Sequence[EventBatch]) -> BatchReport:
        """Apply a micro-batch: at most one `EventBatch` per partition, offsets increasing over calls; each
        user's events in one partition, the user's own (`eddy.stream.records.admission`).
        """
        outcome = BatchReport()
        users = [user for batch in batches for user in batch.user]
        if not users:
            return outcome
        partition = np.concatenate([np.full(len(batch), batch.partition, np.int32) for batch in batches])
        offset = np.concatenate([batch.offset for batch in batches])
        known = len(self.names.catalogue)
        item = self.names.find([name for batch in batches for name in batch.item])
        slot = self._slots(users, partition)
        outcome.refused = [
            (int(partition[i]), int(offset[i]), "item_id has the same 64-bit hash as another item")
            for i in np.flatnonzero(item < 0)
        ]
        type_ = self.names.catalogue.types.add(np.concatenate([batch.type for batch in batches]))
        value = np.concatenate([batch.value for batch in batches])
        flags = self.encoder.flags(type_, value)
        columns = Columns(
            slot=slot,
            item=item,
            type=type_,
            value=value,
            time=np.concatenate([batch.time for batch in batches]),
            event_id=np.concatenate([batch.event_id for batch in batches]),
            offset=offset,
            negative=flags.negative,
        )
        outcome.ignored = int((~flags.moves).sum())
        accepted = np.flatnonzero((item >= 0) & flags.moves)
        replayed = offset[accepted] <= self.slab.offset[slot[accepted]]
        outcome.already_applied = int(replayed.sum())
        fresh = accepted[~replayed]
        if len(fresh) < len(columns):
            columns, partition = columns.take(fresh), partition[fresh]
        adopted = self.reencode(slot[accepted])
        report = self._move(columns, outcome)
        self.names.touch(item[item >= 0], self.clock.now(self.wall()))
        again = None
        if self.options.emit == "latest":
            again = np.unique(slot[accepted])
        elif self.options.emit == "every" and outcome.already_applied:
            again = np.unique(slot[accepted[replayed]])
        self._answer(report, columns, partition, again, known, outcome)
        counted = np.flatnonzero(report.kept & ~columns.negative)
        self.statistics_buffer.add(
            partition[counted],
            columns.offset[counted],
            columns.item[counted].astype(np.int64),
            columns.time[counted],
            report.previous[counted],
        )
        if len(adopted):
            outcome.dirty = np.union1d(outcome.dirty, adopted)
        return outcome

    # -- items that leave -------------------------------------------------------------------------------

    def drop_idle_items(self, partition: int) -> bool:
        """Take what cannot be listed and is idle out of a partition's item statistics; whether they changed,
        and are to be written whole.
        """
        self.statistics_buffer.flush()
        return drop_idle(self.names, self.statistics, partition, self.clock.now(self.wall()))

    def forget_items(self) -> bool:
        """Forget the items that cannot be listed and that nothing names, if they are many, and give the
        others new numbers. Lists under way keep the old ones, and names for them.
        """
        kept = self._forgetting.kept(self.statistics, [self.slab])
        if kept is None:
            return False
        self.statistics_buffer.flush()
        place = self.names.keep(kept)
        for holder in (self.slab, self.statistics, self.statistics_buffer):
            holder.renumber(place)
        self.ranker = self._new_ranker()
        return True

    # -- users that leave -------------------------------------------------------------------------------

    def idle(self, partition: int, longer_than_ms: int, before: int) -> list[str]:
        """Users of a partition idle for longer than this whose last event's offset lies below `before`."""
        slots = self.slab.of_partition(partition)
        since = self.clock.now(self.wall()) - self.slab.last_time(slots)
        idle = slots[(since > longer_than_ms) & (self.slab.offset[slots] < before)]
        return [self.slab.user_of[slot] or "" for slot in idle.tolist()]

    def erase(self, users: Sequence[tuple[int, str]]) -> None:
        """Forget the rows of (partition, user); one that another partition owns is not touched."""
        for partition, user in users:
            slot = self.slab.find([user])
            self.slab.remove(slot[(slot >= 0) & (self.slab.partition[slot] == partition)])

    def reencode(self, slots: Slots) -> Slots:
        """Encode those rows anew that are of an older epoch; returns their slots."""
        old = np.unique(slots[self.slab.epoch[slots] < self.encoder.epoch])
        if len(old):
            with torch.inference_mode():
                self.encoder.reencode(self.slab, old)
        return old

    def _slots(self, users: list[str], partition: NDArray[np.int32]) -> Slots:
        """Slots of users; new users get one."""
        slots = self.slab.find(users)
        new = np.flatnonzero(slots < 0)
        if len(new):
            where = {users[i]: int(partition[i]) for i in new.tolist()}
            self.slab.add(list(where), np.array(list(where.values()), np.int32), self.encoder.epoch)
            slots[new] = self.slab.find([users[i] for i in new.tolist()])
        if np.any(self.slab.partition[slots] != partition):  # offsets of two partitions cannot be compared
            raise ValueError("events of a user in two partitions: the decoder should have refused one")
        return slots

    def _move(self, columns: Columns, outcome: BatchReport) -> MoveReport:
        if len(columns):
            self.clock.observe(int(columns.time.max()), self.wall())
        sampled = self._sampled(columns)
        every = np.full(len(columns), self.options.emit == "every")
        report = move_rows(self.slab, self.encoder, columns, sampled, every)
        outcome.applied = int(report.kept.sum())
        outcome.repeats, outcome.late, outcome.too_late = report.repeats, report.late, report.too_late
        outcome.dirty = report.users
        return report

    def _sampled(self, columns: Columns) -> NDArray[np.bool_]:
        """Which events are ranked before they are applied: those of sampled users, or of as many of them as
        the budget pays for: bool[n].
        """
        cost, sample = self.ranker.scorer.ranking_cost, self.options.sample
        self.rank_budget.spend(cost.drain_seconds())
        sampled = self.slab.sampled[columns.slot] & ~columns.negative
        wanted = np.count_nonzero(sampled)
        payable = self.rank_budget.pays_for(cost.seconds_per_rank())
        if wanted > payable:
            sample *= payable / wanted
            chosen = np.flatnonzero(sampled)
            users = [(self.slab.user_of[slot] or "").encode() for slot in columns.slot[chosen].tolist()]
            sampled[chosen] = in_sample(users, sample)
        if wanted:
            self.prequential.sample = sample
        return sampled

    # -- answers ----------------------------------------------------------------------------------------

    def _answer(
        self, report: MoveReport, columns: Columns, partition: NDArray[np.int32], again: Slots | None,
        known: int, outcome: BatchReport,
    ) -> None:  # fmt: skip
        """Begin the lists of events that `move_rows` was asked for and those of the rows `again` as they are
        now, and the ranks of sampled events from the rows just before them.

        `partition` [n] of the columns' events. `known`: items in the catalogue before this batch; an item's
        first appearance is a miss for everyone, as is one that is withdrawn.
        """
        view, slab = report.recorded, self.slab
        listed, event = view.event[: report.after], view.event[report.after :]
        slots, where, offset = columns.slot[listed], partition[listed], columns.offset[listed]
        if again is not None:
            after, before = view.part(slice(0, report.after)), view.part(slice(report.after, None))
            view = concatenate_views([after, self.ranker.latest(slab, again), before])
            slots = np.concatenate((slots, again))
            where = np.concatenate((where, slab.partition[again]))
            offset = np.concatenate((offset, slab.offset[again]))
        if not len(view):
            return
        wall = self.wall()
        now = self.clock.now(wall)
        began = time.thread_time()
        self.update_statistics(now, wall)
        if not len(slots):  # only ranks want the scores brought up to date
            self.rank_budget.spend(time.thread_time() - began)
        item = columns.item[event].astype(np.int64)
        at = np.concatenate([np.full(len(slots), now), columns.time[event]])
        exclude_seen = np.arange(len(at)) < (len(slots) if self.options.exclude_seen else 0)
        made = self.ranker.start(view, at, self.options.k, exclude_seen, target=item)
        if len(event):
            began = time.thread_time()
            by_popularity = self.ranker.popularity_ranks(item)
            self.rank_budget.spend(time.thread_time() - began)
            possible = (item < known) & self.names.may_be_listed(item)
            self.prequential.start(lambda: (made().rank, by_popularity), report.kept[event], possible)
        if len(slots):
            users = [slab.user_of[slot] or "" for slot in slots.tolist()]
            last_time = view.recent.last_time[: len(slots)]
            outcome.lists = Lists(users, where, offset, last_time, made)

    def update_statistics(self, now: int, wall: int) -> None:
        """Bring scores to the stream's `now` (ms), as of new items and of all that was counted."""
        if self.ranker.statistics_are_due(now, wall):
            self.statistics_buffer.flush()
        self.ranker.update_statistics(now, wall)
