"""The engine: events in, moved rows and recommendations out. Arrays in, arrays out; no Kafka, no asyncio.

`Engine.apply` takes one micro-batch, in the steps that its docstring numbers. An exception in it leaves
memory half written: the process must end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.engine.batch_report import BatchReport, Changed, Lists
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.move_rows import move_rows, warm_up_row_moves
from eddy.stream.engine.prequential import Prequential
from eddy.stream.engine.rank_budget import RankBudget
from eddy.stream.engine.ranker import Ranker, new_scorer
from eddy.stream.engine.reencoding import Reencoding
from eddy.stream.engine.row_views import RowViews, join_views
from eddy.stream.engine.rows_by_version import Located, RowsByVersion
from eddy.stream.engine.statistics_buffer import StatisticsBuffer
from eddy.stream.engine.version_rows import VersionBuilder, VersionRows
from eddy.stream.kernels.window_loops import EventTable
from eddy.stream.records.clock import StreamClock
from eddy.stream.records.columns import join_columns, select_entries, widened
from eddy.stream.records.decode import EventColumns
from eddy.stream.records.rank_counts import RankedBy
from eddy.stream.state.catalogue_indices import CatalogueIndices
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.retirement import Forgetting, drop_idle
from eddy.stream.state.rows import Rows, encode_rows
from eddy.stream.state.sampling import in_sample
from eddy.stream.state.slab import Slab, Slots

_SAME_HASH = "item_id has the same 64-bit hash as another item"

Emit = Literal["every", "latest", "off"]


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


@dataclass
class _Part:
    """The events of a micro-batch whose users' rows are of one version."""

    version: VersionRows
    slot: Slots
    """of the rows of all accepted events, which are answered again"""
    replayed: NDArray[np.bool_]
    """which of these events the rows include already"""
    place: Slots
    """[n] positions of the other events in the micro-batch"""
    events: EventTable
    """[n] the other events"""
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    previous: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """`kept` and `previous`: see `move_rows`"""


class Engine:
    """Statistics and the rows of the model versions in use. The newest version, to which all rows move in the
    end, can be followed by that of a newer epoch between batches.
    """

    def __init__(
        self,
        live: LiveShares,
        names: ItemNames,
        statistics: Statistics,
        options: Options,
        wall: Callable[[], int],
    ) -> None:
        self.names, self.statistics, self.options = names, statistics, options
        self.clock = StreamClock()
        self.wall = wall
        self.prequential = Prequential()
        self.rank_budget = RankBudget(options.ranking_time)
        versions = [
            VersionRows(
                version, Slab(version.state_size, version.device, options.sample), self._new_ranker(version)
            )
            for version in live.versions
        ]
        self.rows = RowsByVersion(versions, live.percents)
        self.reencoding = Reencoding(self.rows)
        self.statistics_buffer = StatisticsBuffer(statistics)
        self._forgetting = Forgetting(names)

    @property
    def newest(self) -> VersionRows:
        """The version of the newest epoch, with its rows; of several, that of the first share."""
        return self.rows.newest

    def _new_ranker(self, live: LiveVersion) -> Ranker:
        options, catalogue = self.options, self.names.catalogue
        scorer = new_scorer(live, catalogue, self.statistics, options.precision, options.threads)
        return Ranker(live, self.names, scorer)

    def warm_up(self) -> None:
        """Compile what events, lists and checkpoints need, before the first event waits for it."""
        for version in self.rows.versions:
            version.ranker.scorer.update_statistics(self.wall())
            version.ranker.scorer.warm_up()
            warm_up_row_moves(version.live)
        encode_rows(self.newest.export(np.zeros(0, np.int64), self.names.catalogue, bytes(16)))

    # -- model versions ---------------------------------------------------------------------------------

    def builder(self, live: LiveShares) -> VersionBuilder:
        """Builds what `switch_version` takes, on any thread."""
        options, now = self.options, float(self.clock.now(self.wall()))
        return VersionBuilder(
            live, self.names, self.statistics, now, len(self.rows), options.sample, options.precision,
            options.threads,
        )  # fmt: skip

    def switch_version(self, versions: Sequence[VersionRows], builder: VersionBuilder) -> None:
        """Go on with the versions of a newer epoch that were built by this builder: new users get their rows
        at once, the rows of the others go on with their own versions until `reencode_oldest` moves them.
        Nothing is changed when items have got other numbers since the builder was made; then build again.

        Errors: ValueError when the epoch is not newer.
        """
        if builder.attach(versions):
            self.rows.add_versions(versions, builder.live.percents)

    def reencode_oldest(self, seconds: float) -> list[Changed]:
        """Move rows of older epochs to the newest version for about so long, most recently active first;
        returns where they are then.
        """
        return self.reencoding.move_some(seconds)

    def load_rows(self, rows: Rows, indices: CatalogueIndices | None = None) -> list[Changed]:
        """Take stored rows: see `RowsByVersion.load`. Errors: NewerRows."""
        taken = self.rows.load(rows, self.names.catalogue, indices)
        for slab, slots in taken:
            self.clock.observe(int(slab.last_time(slots).max()), self.wall())
        return taken

    # -- events -----------------------------------------------------------------------------------------

    def apply(self, batches: Sequence[EventColumns]) -> BatchReport:
        """Apply a micro-batch: each partition's events in one of `batches`, offsets increasing over calls;
        each user's events in one partition, the user's own (`eddy.stream.records.admission`).

        1. Number the events: a row for each user, the catalogue's numbers for items and types.
        2. Leave out what cannot be applied, does not move states, or is in its row already.
        3. Move the rows of the other events, each by its own version.
        4. Begin the lists and the ranks that are wanted.
        5. Hand the events to the statistics: scores are made from what was counted before the batch.
        """
        report = BatchReport()
        batches = [batch for batch in batches if len(batch)]
        if not batches:
            return report
        # 1. and 2. Station 4: names and hashes become slots and numbers of the catalogue.
        items_before = len(self.names.catalogue)
        columns = join_columns(batches)
        item = self.names.number_items(columns.item)
        report.refused = [
            (int(columns.partition[i]), int(columns.offset[i]), _SAME_HASH) for i in np.flatnonzero(item < 0)
        ]
        type_ = self.names.catalogue.types.add(columns.type)
        located = self.rows.locate(columns.user, columns.partition)
        parts = [_part(each, columns, item, type_, report) for each in located]
        # 3. Station 5: the state moves, in memory only.
        latest = [int(part.events.time.max()) for part in parts if len(part.place)]
        if latest:
            self.clock.observe(max(latest), self.wall())
        views = [self._move(part, report) for part in parts]
        self.rows.drop_empty(located)
        self.names.touch_items(item[item >= 0], self.clock.now(self.wall()))
        # 4. Station 6: copies of rows are on their way to a top-k.
        for part, recorded in zip(parts, views, strict=True):
            self._answer(part, recorded, items_before, report)
        # 5. Station 8: what the item statistics take in.
        self._count(parts, columns.partition)
        return report

    def _move(self, part: _Part, report: BatchReport) -> RowViews:
        """Move the rows of a part's events; those of older epochs are encoded anew before."""
        version = part.version
        reencoded = version.encode_stale(part.slot)
        if len(reencoded):
            report.changed.append(Changed(version.slab, reencoded))
        sampled = self._sampled(version, part.events)
        listed = np.full(len(part.place), self.options.emit == "every")
        part.kept, part.previous, views = move_rows(
            version.slab, version.live, part.events, sampled, listed, report
        )
        return views

    def _count(self, parts: Sequence[_Part], partition: NDArray[np.int32]) -> None:
        """Hand the events that count to the statistics, in the order of the micro-batch."""
        # 1. The events of each version, with as many previous items as that of the most.
        counted = [np.flatnonzero(part.kept & ~part.events.negative) for part in parts]
        lags = max(part.previous.shape[1] for part in parts)
        columns = [
            (
                part.place[index],
                part.events.offset[index],
                part.events.item[index].astype(np.int64),
                part.events.time[index],
                widened(part.previous[index], lags),
            )
            for part, index in zip(parts, counted, strict=True)
        ]
        place, *rest = (np.concatenate(column) for column in zip(*columns, strict=True))
        # 2. All of them in order.
        if len(parts) > 1:
            order = np.argsort(place)
            place, *rest = (column[order] for column in (place, *rest))
        self.statistics_buffer.add_events(partition[place], *rest)

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
        self.statistics_buffer.flush()  # events that wait name items, too
        kept = self._forgetting.kept(self.statistics, self.rows.slabs)
        if kept is None:
            return False
        new_number = self.names.keep_items(kept)
        for holder in (self.statistics, self.statistics_buffer):
            holder.renumber(new_number)
        for version in self.rows.versions:
            version.slab.renumber(new_number)
            version.ranker = self._new_ranker(version.live)
        return True

    # -- users that leave -------------------------------------------------------------------------------

    def idle_users(self, partition: int, longer_than_ms: int, before: int) -> list[str]:
        """Users of a partition that are idle for longer than `longer_than_ms` and whose last event's offset
        lies below `before`.
        """
        since = self.clock.now(self.wall()) - longer_than_ms
        return self.rows.idle_users(partition, since, before)

    def erase_users(self, users: Sequence[tuple[int, str]]) -> None:
        """Forget the rows of (partition, user); a row that another partition owns is not touched."""
        self.rows.erase(users)

    def forget_partition(self, partition: int) -> None:
        """Drop a partition's rows, and its events that wait to be counted."""
        self.rows.forget_partition(partition)
        self.statistics_buffer.forget_partition(partition)

    # -- answers ----------------------------------------------------------------------------------------

    def _sampled(self, version: VersionRows, events: EventTable) -> NDArray[np.bool_]:
        """Which events of a version's rows are ranked before they are applied, bool[n]: those of sampled
        users, or of as many of these users as the budget pays for.
        """
        cost, sample, slab = version.ranker.scorer.ranking_cost, self.options.sample, version.slab
        self.rank_budget.spend(cost.drain_seconds())
        sampled = slab.sampled[events.slot] & ~events.negative
        wanted = np.count_nonzero(sampled)
        payable = self.rank_budget.pays_for(cost.seconds_per_rank())
        if wanted > payable:
            sample *= payable / wanted
            chosen = np.flatnonzero(sampled)
            users = [(slab.user_of[slot] or "").encode() for slot in events.slot[chosen].tolist()]
            sampled[chosen] = in_sample(users, sample)
        if wanted:
            self.prequential.sample = sample
        return sampled

    def _again(self, part: _Part) -> Slots | None:
        """The rows of a part that are answered as they are now, None where none are."""
        if self.options.emit == "latest":
            return np.unique(part.slot)
        if self.options.emit == "every" and part.replayed.any():
            return np.unique(part.slot[part.replayed])
        return None

    def _answer(self, part: _Part, views: RowViews, items_before: int, report: BatchReport) -> None:
        """Begin the lists of events whose rows were recorded just after them and those of rows as they are
        now, and the ranks of sampled events from the rows just before them (`views`: see `move_rows`).

        `items_before`: items in the catalogue before this batch; an item's first appearance is a miss for
        everyone, as is one that is withdrawn.
        """
        # 1. Rows to make lists of, then those to make ranks from.
        slab, live, ranker, events = part.version.slab, part.version.live, part.version.ranker, part.events
        again = self._again(part)
        after = len(events.slot) if self.options.emit == "every" else 0
        listed, ranked = views.event[:after], views.event[after:]
        slots, offset = events.slot[listed], events.offset[listed]
        if again is not None:
            just_after, just_before = (select_entries(views, part) for part in np.s_[:after, after:])
            views = join_views([just_after, ranker.latest(slab, again), just_before])
            slots, offset = np.concatenate((slots, again)), np.concatenate((offset, slab.offset[again]))
        if not len(views):
            return
        # 2. Bring the scores up to date.
        wall = self.wall()
        now = self.clock.now(wall)
        began = time.thread_time()
        self.update_statistics(ranker, now, wall)
        if not len(slots):  # only ranks want it
            self.rank_budget.spend(time.thread_time() - began)
        # 3. Begin, lists at the stream's now, ranks at their events' times.
        target = events.item[ranked].astype(np.int64)
        at = np.concatenate([np.full(len(slots), now), events.time[ranked]])
        exclude_seen = np.arange(len(at)) < (len(slots) if self.options.exclude_seen else 0)
        topk = ranker.start_topk(views, at, self.options.k, exclude_seen, target=target)
        # 4. Ranks go to the prequential metrics, beside those by popularity.
        if len(ranked):
            began = time.thread_time()
            by_popularity = ranker.popularity_ranks(target)
            self.rank_budget.spend(time.thread_time() - began)
            possible = (target < items_before) & self.names.may_be_listed(target)
            self.prequential.start_ranks(
                RankedBy(live.epoch, live.version.id),
                lambda: (1 + topk().above.numpy(), by_popularity),
                slab.group[events.slot[ranked]],
                part.kept[ranked],
                possible,
            )
        # 5. Lists go out with all that their messages say.
        if len(slots):
            report.lists.append(
                Lists(
                    [slab.user_of[slot] or "" for slot in slots.tolist()],
                    slab.partition[slots],
                    offset,
                    views.last_time[: len(slots)],
                    topk,
                    self.names.json_ids(),
                    live.epoch,
                    live.version.id,
                )
            )

    def update_statistics(self, ranker: Ranker, now: int, wall: int) -> None:
        """Bring a version's scores to the stream's `now` (ms), as of new items and all that was counted."""
        if ranker.statistics_are_due(now, wall):
            self.statistics_buffer.flush()
        ranker.update_statistics(now, wall)


def _part(
    located: Located, columns: EventColumns, item: NDArray[np.int32], type_: NDArray[np.uint16],
    report: BatchReport,
) -> _Part:  # fmt: skip
    """The events of one version's rows, in this process's numbers; `item` is -1 for an item that cannot have
    one. Those that do not move states, or that their rows include, are counted in `report`.
    """
    version, event, slot = located
    flags = version.live.flags(type_[event], columns.value[event])
    accepted = np.flatnonzero((item[event] >= 0) & flags.moves)
    replayed = columns.offset[event[accepted]] <= version.slab.offset[slot[accepted]]
    report.ignored += int((~flags.moves).sum())
    report.already_applied += int(replayed.sum())
    fresh = accepted[~replayed]
    place = event[fresh]
    table = EventTable(
        slot[fresh], item[place], type_[place], columns.value.view(np.uint16)[place], columns.time[place],
        columns.event_id[place], columns.offset[place], flags.negative[fresh],
    )  # fmt: skip
    return _Part(version, slot[accepted], replayed, place, table)
