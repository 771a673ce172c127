"""What changes in rows and item statistics when `events` gets another partition count; no I/O.

A row keeps everything but its topic id, partition and offset: state, window, count and digest go on (from
then on the digest sums over the offsets of all topics that the row has been in). Statistics keep their sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.partition_statistics import TRANSITION_HALF_LIFE_MS
from eddy.models.vocabulary import Catalogue
from eddy.stream.records.messages import Message
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import decode_rows, keyed
from eddy.stream.state.slab import NO_OFFSET

Arrays = Mapping[str, NDArray[Any]]


def moved_rows(rows: Sequence[Message], topic_id: bytes, partition: int) -> list[Message]:
    """Rows (of distinct users) as rows of a partition of a new topic, of which they include no record yet."""
    moved: list[Message] = []
    for group in decode_rows([user or b"" for user, _ in rows], [value or b"" for _, value in rows]):
        n = len(group.user)
        in_new_topic = replace(
            group,
            topic_id=topic_id,
            partition=np.full(n, partition, np.int32),
            offset=np.full(n, NO_OFFSET, np.int64),
        )
        moved += keyed(in_new_topic)
    return moved


def moved_statistics(
    statistics: Statistics, catalogue: Catalogue, partitions: int
) -> dict[int, list[Message]]:
    """Records of `item-stats` by new partition: old partition p goes into p modulo `partitions`."""
    moved: dict[int, list[Message]] = {}
    old = sorted(statistics.partitions)
    for number in range(min(partitions, max(old, default=-1) + 1)):
        parts = [statistics.export_partition(p, catalogue.hashes) for p in old if p % partitions == number]
        if not parts:
            continue
        target = Statistics(statistics.half_lives_ms, statistics.successors)
        summed = _sum(parts, statistics.successors)
        target.replace_partition(number, summed, catalogue)  # type: ignore[arg-type]
        journal = Journal(number, sequence=-1, offset=NO_OFFSET)
        journal.rewrite()
        moved[number] = journal.drain_records(target, catalogue)()
    return moved


def _sum(parts: Sequence[Arrays], successors: int) -> Arrays:
    """Exports of several partitions as one export. A half-life that one of them lacks is summed over the
    others: the topic that its events lay on goes away, and so nothing could add them later.

    1. Bring all parts to the latest of their reference times: popularity and counts decay until then.
    2. Add popularities, popularity[half-lives, items], and transition totals, total[sources]. The sums are
       exact.
    3. Of each source item's successors keep the `successors` most counted; two partitions may have had more.
    """
    if len(parts) == 1:
        return parts[0]
    # 1. Reference times, and one index of the items and of the sources of transitions.
    half_lives = np.unique(np.concatenate([part["half_lives"] for part in parts]))
    rows = [np.searchsorted(half_lives, part["half_lives"]) for part in parts]
    reference, since = np.full(len(half_lives), np.nan), np.full(len(half_lives), -np.inf)
    for row, part in zip(rows, parts, strict=True):
        reference[row] = np.fmax(reference[row], part["reference"])
        since[row] = np.maximum(since[row], part["since"])
    incomplete = np.bincount(np.concatenate(rows), minlength=len(half_lives)) < len(parts)
    since[incomplete] = np.inf
    at = np.fmax.reduce([part["transition_reference"] for part in parts])
    item, item_index = np.unique(np.concatenate([part["item"] for part in parts]), return_inverse=True)
    source, source_index = np.unique(np.concatenate([part["source"] for part in parts]), return_inverse=True)
    popularity, total = np.zeros((len(half_lives), len(item))), np.zeros(len(source), np.float32)
    pairs: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    # 2. Sums.
    items = sources = 0
    for row, part in zip(rows, parts, strict=True):
        part_items = item_index[items : items + len(part["item"])]
        part_sources = source_index[sources : sources + len(part["source"])]
        items, sources = items + len(part_items), sources + len(part_sources)
        weight = np.nan_to_num(np.exp2((part["reference"] - reference[row]) / part["half_lives"]))
        popularity[np.ix_(row, part_items)] += part["popularity"] * weight[:, None]
        decay = np.float32(
            np.nan_to_num(np.exp2((part["transition_reference"] - at) / TRANSITION_HALF_LIFE_MS))[0]
        )
        total[part_sources] += part["total"] * decay
        used = part["successor"] != 0
        pairs.append(
            (part_sources[np.nonzero(used)[0]], part["successor"][used], part["count"][used] * decay)
        )
    # 3. The most counted successors.
    successor, count = _most_counted(pairs, len(source), successors)
    return {
        "half_lives": half_lives,
        "since": since,
        "item": item,
        "popularity": popularity,
        "reference": reference,
        "source": source,
        "successor": successor,
        "count": count,
        "total": total,
        "transition_reference": at,
    }


def _most_counted(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], rows: int, keep: int
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """The `keep` greatest sums of each row's pairs: successor[rows, keep] (0 = none) and count[rows,
    keep].
    """
    row, name, count = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.lexsort((name, row))
    row, name, count = row[order], name[order], count[order]
    first = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (name[1:] != name[:-1])][: len(row)])
    row, name = row[first], name[first]
    summed = np.add.reduceat(count, first) if len(first) else count
    order = np.lexsort((-summed, row))
    row, name, summed = row[order], name[order], summed[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < keep
    successor, counts = np.zeros((rows, keep), np.uint64), np.zeros((rows, keep), np.float32)
    successor[row[kept], rank[kept]] = name[kept]
    counts[row[kept], rank[kept]] = summed[kept]
    return successor, counts


__all__ = ["moved_rows", "moved_statistics"]
