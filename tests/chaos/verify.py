"""The check after the chaos: compares what is on Kafka with an undisturbed engine that reads the same log
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch

from eddy.models.hashing import item_hash
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.engine import Engine
from eddy.stream.records.decode import decode_events, stretches
from eddy.stream.records.schema import Recommendation
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import Rows, decode_rows
from eddy.stream.state.sampling import share_of
from tests.chaos.cluster import Cluster
from tests.support.engines import TOLERANCE, new_engine

WALL_MS = 10**13
BATCH = 1000


@dataclass
class Verdict:
    """The outcome of the check; `problems` is empty if every promise was kept."""

    events: int = 0
    without_id: int = 0
    """events that have no event_id: only their offsets tell whether they were applied"""
    users: int = 0
    erased: int = 0
    """users who are gone in the end"""
    spared: int = 0
    """tombstones that were refused, because they were in the wrong partition"""
    applied: int = 0
    missing: int = 0
    doubled: int = 0
    rejected: int = 0
    dead_letters: int = 0
    recommendations: int = 0
    largest_state_difference: float = 0.0
    largest_invariant_difference: float = 0.0
    problems: list[str] = field(default_factory=list)

    def must(self, holds: object, promise: str) -> None:
        if not holds:
            self.problems.append(promise)


@dataclass
class Undisturbed:
    """The outcome of one pass over the whole log, partition by partition."""

    engine: Engine
    dead_letters: set[str] = field(default_factory=set)
    """keys of the dead letters that are due"""
    erased: set[str] = field(default_factory=set)
    """users of tombstones that were not refused"""

    @property
    def gone(self) -> set[str]:
        """Users who were erased and have had no event since."""
        return self.erased - self.engine.newest.slab.slot_of.keys()


def undisturbed(cluster: Cluster, version: Version, epoch: int, verdict: Verdict) -> Undisturbed:
    """Make that pass."""
    settings = cluster.settings
    expected = Undisturbed(new_engine(version, epoch=epoch, wall=WALL_MS))
    topic = settings.topics.events
    records = cluster.read(topic, settings.partitions)
    for partition, chunk in groupby(
        sorted(records, key=lambda r: (r.partition, r.offset)), lambda r: r.partition
    ):
        log = list(chunk)
        verdict.events += len(log)
        for start in range(0, len(log), BATCH):
            decoded = decode_events(log[start : start + BATCH], partition, settings.admission)
            verdict.without_id += int((decoded.events.event_id == 0).sum())
            for batches, erased in stretches([decoded]):
                verdict.applied += expected.engine.apply(batches).applied
                expected.engine.erase_users(erased)
                expected.erased |= {user for _, user in erased}
            refused = [rejection.record for rejection in decoded.rejected]
            expected.dead_letters |= {f"{topic}:{partition}:{record.offset}" for record in refused}
            verdict.spared += sum(record.value is None for record in refused)
    verdict.rejected = len(expected.dead_letters)
    verdict.erased = len(expected.gone)
    return expected


def stored_rows(cluster: Cluster) -> dict[bytes, tuple[int, bytes]]:
    """user -> (partition, row): the last row of each user on `user-state`, without users whose last record is
    a tombstone.
    """
    settings = cluster.settings
    newest = {
        record.key: (record.partition, record.value)
        for record in cluster.read(settings.topics.user_state, settings.partitions)
    }
    return {user: row for user, row in newest.items() if row[1] is not None}


def check_order(cluster: Cluster, verdict: Verdict) -> None:
    """On the changelog neither the epoch nor the offset of a user's row ever goes back. A tombstone ends a
    row; the next one is another.
    """
    settings, going_back = cluster.settings, set[bytes]()
    newest: dict[bytes, tuple[int, int]] = {}
    for record in cluster.read(settings.topics.user_state, settings.partitions):
        if record.value is None:
            newest.pop(record.key, None)
            continue
        (row,) = decode_rows([record.key], [record.value])
        at = int(row.epoch[0]), int(row.offset[0])
        before = newest.get(record.key, at)
        if at[0] < before[0] or at[1] < before[1]:
            going_back.add(record.key)
        newest[record.key] = at
    verdict.must(not going_back, f"epochs and offsets of rows only grow ({sorted(going_back)[:3]} went back)")


def check_shares(
    cluster: Cluster, versions: Sequence[tuple[Version, int]], epoch: int, verdict: Verdict
) -> None:
    """Every row is of the version of its user's share of an epoch, and its state follows from its anchor and
    window by that version.
    """
    stored = stored_rows(cluster)
    users = sorted(stored)
    share = share_of(users, epoch, [percent for _, percent in versions])
    for number, (version, _) in enumerate(versions):
        of_share = [
            user for user, its_share in zip(users, share.tolist(), strict=True) if its_share == number
        ]
        rows = decode_rows(of_share, [stored[user][1] for user in of_share])
        verdict.must(
            all((part.version == item_hash(version.id)).all() for part in rows),
            "rows name their share's version",
        )
        engine = new_engine(version, epoch=epoch, wall=WALL_MS)
        difference = max((invariant_difference(engine, part) for part in rows), default=0.0)
        verdict.must(difference < TOLERANCE, f"hidden = encode(anchor, window) by version {version.id}")


def _by_user(rows: Rows, name: str) -> dict[bytes, Any]:
    return dict(zip(rows.user, getattr(rows, name), strict=True))


def check_rows(
    cluster: Cluster, engine: Engine, topic_id: bytes, verdict: Verdict, swapped: bool = False
) -> None:
    """0 missing, 0 doubled, equal windows and digests, states within tolerance, and the row invariant.

    `swapped`: another version was live before. A row that was encoded anew for this one has no anchor from
    before its window, so that its state is held against its own anchor and window only.
    """
    stored = stored_rows(cluster)
    slots = np.flatnonzero(engine.newest.slab.partition[: len(engine.newest.slab.user_of)] >= 0)
    expected = engine.newest.export(slots, engine.names.catalogue, topic_id)
    verdict.users = len(expected.user)
    surplus_users, missing_users = set(stored) - set(expected.user), set(expected.user) - set(stored)
    verdict.must(
        not surplus_users,
        f"no user has a row who was erased or never came ({sorted(surplus_users)[:3]} have)",
    )
    verdict.must(
        not missing_users, f"every user with events has a row ({sorted(missing_users)[:3]} have none)"
    )
    users = [user for user in expected.user if user in stored]
    (rows,) = decode_rows(users, [stored[user][1] for user in users])
    verdict.must(rows.topic_id == topic_id, "rows name their source topic's id")
    applied = _by_user(rows, "applied")
    for user, due in _by_user(expected, "applied").items():
        surplus = int(applied.get(user, 0)) - int(due)
        verdict.missing += max(-surplus, 0)
        verdict.doubled += max(surplus, 0)
    index = {user: i for i, user in enumerate(expected.user)}
    order = np.array([index[user] for user in users])
    for name in ("partition", "offset", "digest", "length", "epoch" if swapped else "anchor_time"):
        verdict.must(
            (getattr(rows, name) == getattr(expected, name)[order]).all(), f"equal {name} in every row"
        )
    filled = np.arange(rows.item.shape[1]) < rows.length[:, None]
    for name in ("item", "time", "type", "event_id"):
        same = getattr(rows, name)[filled] == getattr(expected, name)[order][filled]
        verdict.must(same.all(), f"equal {name}s in every window")
    if not swapped:
        verdict.largest_state_difference = float(np.abs(rows.hidden - expected.hidden[order]).max())
        verdict.must(verdict.largest_state_difference < TOLERANCE, "states equal within tolerance")
    verdict.largest_invariant_difference = invariant_difference(engine, rows)
    verdict.must(
        verdict.largest_invariant_difference < TOLERANCE, "hidden = encode(anchor, window) in every row"
    )


def invariant_difference(engine: Engine, rows: Rows) -> float:
    """The largest difference of a hidden state from the one that an engine computes from nothing but the
    row's anchor and window.
    """
    judge = new_engine(engine.newest.live.version, epoch=engine.newest.live.epoch, wall=WALL_MS)
    ((slab, slots),) = judge.load_rows(rows)
    length = slab.length[slots].astype(np.int64)
    with torch.inference_mode():
        start = judge.newest.slab.anchor[torch.from_numpy(slots)].clone()
        fresh = judge.newest.live.recompute(
            judge.newest.slab, slots, np.zeros(len(slots), np.int64), length, start
        )
    return float(np.abs(fresh.numpy() - rows.hidden).max())


def check_answers(cluster: Cluster, expected: Undisturbed, verdict: Verdict) -> None:
    """Every user's last event was answered, and the lists of users who are gone are withdrawn. Every bad
    record is a dead letter, and nothing else is.
    """
    import msgspec

    settings, engine = cluster.settings, expected.engine
    decode = msgspec.json.Decoder(Recommendation).decode
    newest: dict[str, int] = {}
    withdrawn: dict[str, bool] = {}
    for record in cluster.read(settings.topics.recommendations, settings.partitions):
        user = record.key.decode()
        withdrawn[user] = record.value is None
        if record.value is not None:
            answer = decode(record.value)
            verdict.recommendations += 1
            newest[user] = max(newest.get(user, -1), answer.offset)
    late = [
        u
        for u, slot in engine.newest.slab.slot_of.items()
        if newest.get(u, -1) != engine.newest.slab.offset[slot]
    ]
    verdict.must(not late, f"a recommendation for every user's last event ({len(late)} without)")
    listed = [user for user in expected.gone if not withdrawn.get(user, True)]
    verdict.must(not listed, f"no list of an erased user stands ({listed[:3]} have one)")
    letters = {record.key.decode() for record in cluster.read(settings.topics.dead_letters, 1)}
    verdict.dead_letters = len(letters)
    verdict.must(letters == expected.dead_letters, "dead letters for the bad records, and only for those")


def check_statistics(cluster: Cluster, engine: Engine, verdict: Verdict) -> None:
    """Popularity as read from `item-stats` is what one pass over the log counts."""
    settings = cluster.settings
    config = engine.newest.live.recommender.config
    catalogue = Catalogue()
    read = Statistics(config.half_lives_ms, config.successors)
    reader = StatisticsReader(read, catalogue)
    for record in cluster.read(settings.topics.item_stats, settings.partitions):
        reader.apply_records(record.partition, [(record.key, record.value)])
    engine.statistics_buffer.flush()
    counted = engine.statistics
    hashes = engine.names.catalogue.hashes
    index = catalogue.add(hashes)
    now = float(engine.clock.now(WALL_MS))
    ours = read.popularity(len(catalogue), now)[:, index]
    theirs = counted.popularity(len(hashes), now)
    verdict.must(
        np.allclose(ours, theirs, rtol=1e-6, atol=1e-9), "popularity on item-stats counts each event once"
    )


def check_offsets(cluster: Cluster, verdict: Verdict) -> None:
    settings = cluster.settings
    ends = cluster.ends(settings.topics.events, settings.partitions)
    committed = dict.fromkeys(ends, 0) | cluster.committed()
    verdict.must(committed == ends, f"committed {committed} at the log's end {ends}")


def verify(
    cluster: Cluster, version: Version, topic_id: bytes, epoch: int = 1, swapped: bool = False
) -> Verdict:
    """Check everything that was promised, with `version` live as `epoch`; `swapped`: see `check_rows`."""
    verdict = Verdict()
    expected = undisturbed(cluster, version, epoch, verdict)
    check_rows(cluster, expected.engine, topic_id, verdict, swapped)
    check_order(cluster, verdict)
    check_answers(cluster, expected, verdict)
    check_statistics(cluster, expected.engine, verdict)
    check_offsets(cluster, verdict)
    return verdict
