"""The engine: events in, moved rows and recommendations out. Arrays in, arrays out; no Kafka, no asyncio.

`Engine.apply` takes one micro-batch, in the steps that its docstring numbers. An exception in it leaves
memory half written: the process must end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.engine.batch_report import BatchReport, Lists
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.move_rows import move_rows, warm_up_row_moves
from eddy.stream.engine.prequential import Prequential
from eddy.stream.engine.rank_budget import RankBudget
from eddy.stream.engine.ranker import Ranker
from eddy.stream.engine.row_views import RowViews, join_views
from eddy.stream.engine.statistics_buffer import StatisticsBuffer
from eddy.stream.kernels.window_loops import EventTable
from eddy.stream.records.clock import StreamClock
from eddy.stream.records.columns import join_columns, select_entries
from eddy.stream.records.decode import EventColumns
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.retirement import Forgetting, drop_idle
from eddy.stream.state.rows import Rows, encode_rows
from eddy.stream.state.sampling import in_sample
from eddy.stream.state.slab import CatalogueIndices, Slab, Slots

_SAME_HASH = "item_id has the same 64-bit hash as another item"

Emit = Literal["every", "latest", "off"]


class NewerRows(EddyError):
    """Rows of a newer epoch than the engine's: it must switch to that epoch's version before it takes them,
    since states are never encoded anew for an older one.
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
    """how many threads score side by side"""
    sample: float = 0.1
    """share of users whose events are ranked before they are applied (prequential metrics)"""
    ranking_time: float | None = None
    """share of the time that these ranks may take, None = any; the sample is thinned to keep it"""


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
        self.live = live
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
        return Ranker(self.live, self.names, self.statistics, options.precision, options.threads)

    def warm_up(self) -> None:
        """Compile what events, lists and checkpoints need, before the first event waits for it."""
        self.ranker.scorer.update_statistics(self.wall())
        self.ranker.scorer.warm_up()
        warm_up_row_moves(self.live)
        encode_rows(
            self.slab.export_rows(np.zeros(0, np.int64), self.names.catalogue, bytes(16), self.versions)
        )

    # -- the model version ------------------------------------------------------------------------------

    def switch_version(self, live: LiveVersion) -> None:
        """Go on with the version of a newer epoch: rows are encoded anew when an event touches them, or by
        `reencode_oldest`.

        Errors: ValueError when its epoch is not newer.
        """
        if live.epoch <= self.live.epoch:
            raise ValueError(f"epoch {live.epoch} does not follow epoch {self.live.epoch}")
        self.live = live
        self.ranker = self._new_ranker()
        self.versions[live.epoch] = live.version_hash
        self.slab.reset_states(live.state_size)
        self.may_be_stale = True

    def reencode_oldest(self, limit: int) -> Slots:
        """Encode up to `limit` rows of older epochs anew, most recently active first; returns their slots."""
        if not self.may_be_stale:
            return np.zeros(0, np.int64)
        used = len(self.slab.user_of)
        old = np.flatnonzero((self.slab.epoch[:used] < self.live.epoch) & (self.slab.partition[:used] >= 0))
        self.stale = max(len(old) - limit, 0)
        self.may_be_stale = self.stale > 0
        if len(old) > limit:
            old = old[np.argpartition(-self.slab.last_time(old), limit)[:limit]]
        return self.reencode(old)

    def load_rows(self, rows: Rows, indices: CatalogueIndices | None = None) -> Slots:
        """Take stored rows (distinct users); returns the slots written. `indices`: see `Slab.load_rows`.

        Errors: NewerRows when a row is of a newer epoch than the live one. Then no row is taken, so that
        every row here is of the live epoch or of an older one.
        """
        newest = int(rows.epoch.max(initial=0))
        if newest > self.live.epoch:
            raise NewerRows(newest, self.live.epoch)
        slots = self.slab.load_rows(rows, self.names.catalogue, indices)
        if len(slots):
            self.may_be_stale = True
            self.clock.observe(int(self.slab.last_time(slots).max()), self.wall())
        return slots

    # -- events -----------------------------------------------------------------------------------------

    def apply(self, batches: Sequence[EventColumns]) -> BatchReport:
        """Apply a micro-batch: each partition's events in one of `batches`, offsets increasing over calls;
        each user's events in one partition, the user's own (`eddy.stream.records.admission`).

        1. Number the events: a slot for each user, the catalogue's numbers for items and types.
        2. Leave out what cannot be applied, does not move states, or is in its row already.
        3. Move the rows of the other events; rows of older epochs are encoded anew before.
        4. Begin the lists and the ranks that are wanted.
        5. Hand the events to the statistics: scores are made from what was counted before the batch.
        """
        report = BatchReport()
        batches = [batch for batch in batches if len(batch)]
        if not batches:
            return report
        # 1. Number the events. Station 4: names and hashes become slots and numbers of the catalogue.
        items_before = len(self.names.catalogue)
        events, moves = self._number(join_columns(batches), report)
        # 2. Leave out.
        named = events.item[events.item >= 0]
        accepted = np.flatnonzero((events.item >= 0) & moves)
        slot = events.slot[accepted]
        replayed = events.offset[accepted] <= self.slab.offset[slot]
        report.ignored, report.already_applied = int((~moves).sum()), int(replayed.sum())
        fresh = accepted[~replayed]
        if len(fresh) < len(moves):
            events = select_entries(events, fresh)
        # 3. Move rows. Station 5: the state moves, in memory only.
        reencoded = self.reencode(slot)
        if len(fresh):
            self.clock.observe(int(events.time.max()), self.wall())
        sampled, listed = self._sampled(events), np.full(len(fresh), self.options.emit == "every")
        kept, previous, views = move_rows(self.slab, self.live, events, sampled, listed, report)
        if len(reencoded):
            report.dirty = np.union1d(report.dirty, reencoded)
        self.names.touch_items(named, self.clock.now(self.wall()))
        # 4. Begin lists and ranks. Station 6: copies of rows are on their way to a top-k.
        again = None
        if self.options.emit == "latest":
            again = np.unique(slot)
        elif self.options.emit == "every" and report.already_applied:
            again = np.unique(slot[replayed])
        self._answer(events, kept, views, again, items_before, report)
        # 5. Count. Station 8: what the item statistics take in.
        counted = np.flatnonzero(kept & ~events.negative)
        self.statistics_buffer.add_events(
            self.slab.partition[events.slot[counted]],
            events.offset[counted],
            events.item[counted].astype(np.int64),
            events.time[counted],
            previous[counted],
        )
        return report

    def _number(self, columns: EventColumns, report: BatchReport) -> tuple[EventTable, NDArray[np.bool_]]:
        """The events in this process's numbers, -1 for an item that cannot have one, and whether they move
        states, bool[n]. New users, items and types get numbers.
        """
        item = self.names.number_items(columns.item)
        slot = self._slots(columns.user, columns.partition)
        report.refused = [
            (int(columns.partition[i]), int(columns.offset[i]), _SAME_HASH) for i in np.flatnonzero(item < 0)
        ]
        type_ = self.names.catalogue.types.add(columns.type)
        flags = self.live.flags(type_, columns.value)
        events = EventTable(
            slot, item, type_, columns.value.view(np.uint16), columns.time, columns.event_id, columns.offset,
            flags.negative,
        )  # fmt: skip
        return events, flags.moves

    # -- items that leave -------------------------------------------------------------------------------

    def drop_idle_items(self, partition: int) -> bool:
        """Take the items that cannot be listed and are idle out of a partition's item statistics. Returns
        whether the statistics changed and are to be written whole.
        """
        self.statistics_buffer.flush()
        return drop_idle(self.names, self.statistics, partition, self.clock.now(self.wall()))

    def forget_items(self) -> bool:
        """Forget the items that cannot be listed and that nothing names, if they are many, and give the
        others new numbers; returns whether it did. Lists under way keep the old numbers, and names for them.
        """
        kept = self._forgetting.kept(self.statistics, [self.slab])
        if kept is None:
            return False
        self.statistics_buffer.flush()
        new_number = self.names.keep_items(kept)
        for holder in (self.slab, self.statistics, self.statistics_buffer):
            holder.renumber(new_number)
        self.ranker = self._new_ranker()
        return True

    # -- users that leave -------------------------------------------------------------------------------

    def idle_users(self, partition: int, longer_than_ms: int, before: int) -> list[str]:
        """Users of a partition that are idle for longer than `longer_than_ms` and whose last event's offset
        lies below `before`.
        """
        slots = self.slab.of_partition(partition)
        since = self.clock.now(self.wall()) - self.slab.last_time(slots)
        idle = slots[(since > longer_than_ms) & (self.slab.offset[slots] < before)]
        return [self.slab.user_of[slot] or "" for slot in idle.tolist()]

    def erase_users(self, users: Sequence[tuple[int, str]]) -> None:
        """Forget the rows of (partition, user); a row that another partition owns is not touched."""
        for partition, user in users:
            slot = self.slab.slots_of([user])
            self.slab.remove_rows(slot[(slot >= 0) & (self.slab.partition[slot] == partition)])

    def reencode(self, slots: Slots) -> Slots:
        """Encode the rows among `slots` anew that are of an older epoch; returns their slots."""
        old = np.unique(slots[self.slab.epoch[slots] < self.live.epoch])
        if len(old):
            with torch.inference_mode():
                self.live.reencode(self.slab, old)
        return old

    def _slots(self, users: list[str], partition: NDArray[np.int32]) -> Slots:
        """Slots of users, int64[n]; new users get one. Errors: ValueError for a user in two partitions."""
        slots = self.slab.slots_of(users)
        new = np.flatnonzero(slots < 0)
        if len(new):
            home = {users[i]: int(partition[i]) for i in new.tolist()}
            self.slab.add_users(list(home), np.array(list(home.values()), np.int32), self.live.epoch)
            slots[new] = self.slab.slots_of([users[i] for i in new.tolist()])
        if np.any(self.slab.partition[slots] != partition):  # offsets of two partitions cannot be compared
            raise ValueError("events of a user in two partitions: the decoder should have refused one")
        return slots

    def _sampled(self, events: EventTable) -> NDArray[np.bool_]:
        """Which events are ranked before they are applied, bool[n]: those of sampled users, or of as many of
        these users as the budget pays for.
        """
        cost, sample = self.ranker.scorer.ranking_cost, self.options.sample
        self.rank_budget.spend(cost.drain_seconds())
        sampled = self.slab.sampled[events.slot] & ~events.negative
        wanted = np.count_nonzero(sampled)
        payable = self.rank_budget.pays_for(cost.seconds_per_rank())
        if wanted > payable:
            sample *= payable / wanted
            chosen = np.flatnonzero(sampled)
            users = [(self.slab.user_of[slot] or "").encode() for slot in events.slot[chosen].tolist()]
            sampled[chosen] = in_sample(users, sample)
        if wanted:
            self.prequential.sample = sample
        return sampled

    # -- answers ----------------------------------------------------------------------------------------

    def _answer(
        self, events: EventTable, kept: NDArray[np.bool_], views: RowViews, again: Slots | None,
        items_before: int, report: BatchReport,
    ) -> None:  # fmt: skip
        """Begin the lists of events whose rows were recorded just after them and those of the rows `again` as
        they are now, and the ranks of sampled events from the rows just before them (`views`, `kept`: see
        `move_rows`).

        `items_before`: items in the catalogue before this batch; an item's first appearance is a miss for
        everyone, as is one that is withdrawn.
        """
        # 1. Rows to make lists of, then those to make ranks from.
        slab = self.slab
        after = len(events.slot) if self.options.emit == "every" else 0
        listed, ranked = views.event[:after], views.event[after:]
        slots, offset = events.slot[listed], events.offset[listed]
        if again is not None:
            just_after, just_before = (select_entries(views, part) for part in np.s_[:after, after:])
            views = join_views([just_after, self.ranker.latest(slab, again), just_before])
            slots, offset = np.concatenate((slots, again)), np.concatenate((offset, slab.offset[again]))
        if not len(views):
            return
        # 2. Bring the scores up to date.
        wall = self.wall()
        now = self.clock.now(wall)
        began = time.thread_time()
        self.update_statistics(now, wall)
        if not len(slots):  # only ranks want it
            self.rank_budget.spend(time.thread_time() - began)
        # 3. Begin, lists at the stream's now, ranks at their events' times.
        target = events.item[ranked].astype(np.int64)
        at = np.concatenate([np.full(len(slots), now), events.time[ranked]])
        exclude_seen = np.arange(len(at)) < (len(slots) if self.options.exclude_seen else 0)
        topk = self.ranker.start_topk(views, at, self.options.k, exclude_seen, target=target)
        # 4. Ranks go to the prequential metrics, beside those by popularity.
        if len(ranked):
            began = time.thread_time()
            by_popularity = self.ranker.popularity_ranks(target)
            self.rank_budget.spend(time.thread_time() - began)
            possible = (target < items_before) & self.names.may_be_listed(target)
            self.prequential.start_ranks(
                lambda: (1 + topk().above.numpy(), by_popularity), kept[ranked], possible
            )
        # 5. Lists go out with all that their messages say.
        if len(slots):
            report.lists = Lists(
                [slab.user_of[slot] or "" for slot in slots.tolist()], slab.partition[slots], offset,
                views.last_time[: len(slots)], topk, self.names.json_ids(), self.live.epoch,
                self.live.version.id,
            )  # fmt: skip

    def update_statistics(self, now: int, wall: int) -> None:
        """Bring scores to the stream's `now` (ms), as of new items and of all that was counted."""
        if self.ranker.statistics_are_due(now, wall):
            self.statistics_buffer.flush()
        self.ranker.update_statistics(now, wall)
