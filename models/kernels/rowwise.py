"""What is left of scoring after the product with the item matrix, compiled, one user's row at a time while it
lies in the cache: the same as `eddy.models.scoring.sparse`, `eddy.models.network.mixture` and
`eddy.models.kernels.topk` do for many rows at once on any device, without the interpreter between the steps.

Symbols are those of `eddy.models.network.mixture`: d (dense score), Z, and t, p and shift of the few items
whose scores are not d.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, Ints, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, NONE, ONE, ZERO, exp2, gap_bucket, log
from eddy.models.kernels.topk import best_of, candidates_of, insert, peaks
from eddy.models.kernels.window import Window

NONZERO, IN_WINDOW = np.uint8(1), np.uint8(2)


class MixtureTables(NamedTuple):
    """What `eddy.models.network.mixture.Mixture` has learned. W = 0 rows of `place` without a pointer."""

    place: Floats  # [W,2]
    age: Floats  # [GAP_BUCKETS,2]
    kind: Floats  # [types + 1,2]
    negative: Floats  # [2]
    earlier: Floats  # [1]
    habit: Floats  # [SPARSE_GATES,HABITS]
    last_kind: Floats  # [types + 1,SPARSE_GATES]
    older_mass: Floats  # [O] exp of the log mass by place
    older_shift: Floats  # [O]
    lag: Floats  # [L]
    lag_age: Floats  # [GAP_BUCKETS]


class BatchColumns(NamedTuple):
    """B users: columns of `eddy.models.tensors.Query`, windows, and what is left out for each."""

    vector: Floats  # [B,columns]
    gates: Floats  # [B,SPARSE_GATES]
    idle: Floats  # [B] ms
    window: Window[NDArray[Any]]
    source: Ints  # [B,L] rows of the two tables below
    left_from: Ints  # [B + 1] where each user's part of `left` begins
    left: Ints  # [X]


class BatchTables(NamedTuple):
    """What all users of a batch have in common."""

    successor: NDArray[np.int32]  # [U,M]
    share: Floats  # [U,M], 0 = none
    to: Floats  # [N] by which items count more as successors; [0] = alike
    origin: Floats  # [N] and as what they follow
    everywhere: Ints  # items for nobody
    vectors: Floats  # [N,D + 1] for exact scores
    popularity: Floats  # [N,columns - D - 1]


class Scratch(NamedTuple):
    """Of one thread; t, p, shift and mark are zero between rows."""

    t: Floats  # [N]
    p: Floats  # [N]
    shift: Floats  # [N]
    mark: NDArray[np.uint8]  # [N]
    nonzero: Ints  # [W + O + L · M]
    value: Floats  # [4, as `nonzero`]


def new_scratch(items: int, nonzero: int) -> Scratch:
    """For so many items (N), of which a row can touch so many."""
    t, p, shift = (np.zeros(items, np.float32) for _ in range(3))
    return Scratch(
        t, p, shift, np.zeros(items, np.uint8),
        np.empty(nonzero, np.int64), np.empty((4, nonzero), np.float32),
    )  # fmt: skip


@inlined
def _age_bucket(rows: BatchColumns, b: int, slot: int, latest: int) -> int:
    time = rows.window.timestamp
    age = np.float32(max(time[b, latest] - time[b, slot], 0)) + max(rows.idle[b], ZERO)
    return gap_bucket(age)


@compiled
def _gates(
    b: int, length: int, rows: BatchColumns, tables: MixtureTables, scratch: Scratch, items: int
) -> tuple[float, ...]:
    """The user's gates by habits and the last event's type, as in `eddy.models.network.mixture.habits`."""
    item, gate = rows.window.item[b], rows.gates[b]
    if not len(tables.place):
        return gate[0], gate[1], gate[2], gate[3]
    latest = max(length - 1, 0)
    held = distinct = follows = run = 0
    again, in_a_row = ZERO, True
    last, before = item[latest], np.int64(-1)
    for place in range(length):
        j = item[latest - place]
        if 0 <= j < items:
            held += 1
            if not scratch.mark[j]:
                scratch.mark[j] = NONZERO
                scratch.nonzero[distinct] = j
                distinct += 1
            follows += place > 0 and j == before
            again = ONE if place > 0 and j == last else again
        in_a_row = in_a_row and j == last and j >= 0
        run += in_a_row
        before = j
    for n in range(distinct):
        scratch.mark[scratch.nonzero[n]] = 0
    filled = np.float32(max(held, 1))
    habits = (
        np.float32(np.log1p(held) / 4), ONE - np.float32(distinct) / filled, np.float32(follows) / filled,
        again, np.float32(np.log1p(run) / 2),
    )  # fmt: skip
    kind = tables.last_kind[rows.window.type[b, latest]]
    g0, g1, g2, g3 = gate[0] + kind[0], gate[1] + kind[1], gate[2] + kind[2], gate[3] + kind[3]
    for h in range(5):
        g0 += tables.habit[0, h] * habits[h]
        g1 += tables.habit[1, h] * habits[h]
        g2 += tables.habit[2, h] * habits[h]
        g3 += tables.habit[3, h] * habits[h]
    return g0, g1, g2, g3


@inlined
def _note_nonzero(scratch: Scratch, j: int, how: np.uint8, count: int) -> int:
    """Note that item j is not zero; the count of those."""
    if not scratch.mark[j]:
        scratch.nonzero[count] = j
        count += 1
    scratch.mark[j] |= how
    return count


@compiled
def _window(
    b: int,
    length: int,
    gates: tuple[float, ...],
    rows: BatchColumns,
    tables: MixtureTables,
    scratch: Scratch,
    items: int,
) -> int:
    """Mass and shift of what is in the window, latest first; how many items are not zero."""
    count, latest = 0, length - 1
    for place in range(min(length, len(tables.place))):
        slot = latest - place
        j = rows.window.item[b, slot]
        if not 0 <= j < items:
            continue
        bucket, kind = _age_bucket(rows, b, slot, latest), tables.kind[rows.window.type[b, slot]]
        negative = np.float32(rows.window.negative[b, slot])
        mass = tables.place[place, 0] + tables.age[bucket, 0] + kind[0] + negative * tables.negative[0]
        mass += gates[1] + (gates[3] if j == rows.window.item[b, latest] else ZERO)
        if scratch.mark[j] & IN_WINDOW:
            mass += tables.earlier[0]
        else:
            shift = tables.place[place, 1] + tables.age[bucket, 1] + kind[1] + negative * tables.negative[1]
            scratch.shift[j] = shift + gates[2]
        count = _note_nonzero(scratch, j, NONZERO | IN_WINDOW, count)
        scratch.p[j] += np.exp(mass)
    return count


@compiled
def _older(
    b: int,
    gates: tuple[float, ...],
    rows: BatchColumns,
    tables: MixtureTables,
    scratch: Scratch,
    items: int,
    count: int,
) -> int:
    """Mass and shift of items from before the window that are not in it; how many items are not zero."""
    older, of_user = rows.window.older[b], np.exp(gates[1])
    for place in range(min(len(older), len(tables.older_mass))):
        j = older[place]
        if 0 <= j < items and not scratch.mark[j]:
            count = _note_nonzero(scratch, j, NONZERO, count)
            scratch.p[j] = tables.older_mass[place] * of_user
            scratch.shift[j] = tables.older_shift[place] + gates[2]
    return count


@compiled
def _transitions(
    b: int, length: int, gate: float, rows: BatchColumns, shared: BatchTables, tables: MixtureTables,
    scratch: Scratch, items: int, count: int,
) -> int:  # fmt: skip
    """Mass of what follows the last items; how many items are not zero."""
    latest, weighted = length - 1, len(shared.to) > 0
    for place in range(min(len(tables.lag), length)):
        slot = latest - place
        bucket, item = _age_bucket(rows, b, slot, latest), rows.window.item[b, slot]
        row = rows.source[b, place]
        weight = np.exp(tables.lag[place] + tables.lag_age[bucket] + gate)
        if weighted and 0 <= item < items:
            weight *= shared.origin[item]
        for m in range(shared.share.shape[1]):
            j, share = shared.successor[row, m], shared.share[row, m]
            if share > 0 and 0 <= j < items:
                count = _note_nonzero(scratch, j, NONZERO, count)
                scratch.t[j] += weight * share * (shared.to[j] if weighted else ONE)
    return count


@compiled
def _gather(
    b: int, rows: BatchColumns, shared: BatchTables, tables: MixtureTables, scratch: Scratch, items: int
) -> int:
    """Sum t, p and shift of user b, as Mixture.weights does; how many items are not zero in them, which are
    in `nonzero`.
    """
    length = min(max(rows.window.length[b], 0), rows.window.item.shape[1])
    gates = _gates(b, length, rows, tables, scratch, items)
    count = _window(b, length, gates, rows, tables, scratch, items)
    if len(tables.place):
        count = _older(b, gates, rows, tables, scratch, items, count)
    return _transitions(b, length, gates[0], rows, shared, tables, scratch, items, count)


@inlined
def _mixed(d: np.float32, log_z: np.float32, t: np.float32, p: np.float32, shift: np.float32) -> np.float32:
    """The formula of eddy.models.network.mixture as log Z + log((exp(d - log Z) + t) exp(shift) + p)."""
    probability = (exp2((d - log_z) * LOG2_E) + t) * exp2(shift * LOG2_E) + p
    return d + shift if t + p == 0 else log_z + log(probability)


@compiled
def _mix(dense: Floats, log_z: np.float32, scratch: Scratch, count: int) -> None:
    """Scores of what is not zero, in place: brought together, so that the formula is vectorised."""
    nonzero, d, t, p, shift = (
        scratch.nonzero,
        scratch.value[0],
        scratch.value[1],
        scratch.value[2],
        scratch.value[3],
    )
    for n in range(count):
        j = nonzero[n]
        d[n], t[n], p[n], shift[n] = dense[j], scratch.t[j], scratch.p[j], scratch.shift[j]
    for n in range(count):
        d[n] = _mixed(d[n], log_z, t[n], p[n], shift[n])
    for n in range(count):
        dense[nonzero[n]] = d[n]


@compiled
def _clear(scratch: Scratch, count: int) -> None:
    for n in range(count):
        j = scratch.nonzero[n]
        scratch.t[j] = scratch.p[j] = scratch.shift[j] = ZERO
        scratch.mark[j] = 0


@compiled
def _leave_out(b: int, rows: BatchColumns, shared: BatchTables, dense: Floats, items: int) -> None:
    for slot in range(rows.window.item.shape[1]):
        j = rows.window.item[b, slot]
        if rows.window.negative[b, slot] and 0 <= j < items:
            dense[j] = NONE
    for n in range(rows.left_from[b], rows.left_from[b + 1]):
        if 0 <= rows.left[n] < items:
            dense[rows.left[n]] = NONE
    for j in shared.everywhere:
        if 0 <= j < items:
            dense[j] = NONE


@compiled
def _finish(
    b: int, dense: Floats, log_z: np.float32, rows: BatchColumns, shared: BatchTables,
    tables: MixtureTables, scratch: Scratch, items: int,
) -> int:  # fmt: skip
    """Finish user b's scores dense[N], in place; how many items are not zero, which the caller clears."""
    count = _gather(b, rows, shared, tables, scratch, items)
    _mix(dense, log_z, scratch, count)
    _leave_out(b, rows, shared, dense, items)
    return count


@compiled
def finish_rows(
    dense: Floats,
    log_z: Floats,
    first: int,
    rows: BatchColumns,
    shared: BatchTables,
    tables: MixtureTables,
    scratch: Scratch,
    items: int,
) -> None:
    """Finish the scores dense[B,N] of users from `first` on, in place."""
    for b in range(len(dense)):
        _clear(scratch, _finish(first + b, dense[b], log_z[b], rows, shared, tables, scratch, items))


@inlined
def _rescore(
    b: int, j: int, log_z: np.float32, rows: BatchColumns, shared: BatchTables, scratch: Scratch
) -> np.float32:
    """User b's score of item j in float32, but for log Z."""
    vector, row, popularity, d = rows.vector[b], shared.vectors[j], shared.popularity[j], ZERO
    for column in range(len(row)):
        d += vector[column] * row[column]
    for column in range(len(popularity)):
        d += vector[len(row) + column] * popularity[column]
    return _mixed(d, log_z, scratch.t[j], scratch.p[j], scratch.shift[j]) if scratch.mark[j] else d


@compiled
def list_rows(
    dense: Floats,
    log_z: Floats,
    first: int,
    rows: BatchColumns,
    shared: BatchTables,
    tables: MixtureTables,
    scratch: Scratch,
    items: int,
    short: int,
    item: Ints,
    score: Floats,
) -> None:
    """Finish the scores dense[B,N] of users from `first` on and take the best into item[B,k] and score[B,k].

    short > 0: dense scores are about right; the best so many are scored again, exactly but for log Z.
    """
    most = max(short, item.shape[1])
    of, listed, value = peaks(dense.shape[1], most), np.empty(most, np.int64), np.empty(most, np.float32)
    for b in range(len(dense)):
        count = _finish(first + b, dense[b], log_z[b], rows, shared, tables, scratch, items)
        if not short:
            best_of(dense[b], of, item[b], score[b])
        else:
            candidates, n_candidates = of.found, candidates_of(dense[b], short, of)
            if n_candidates < 0:
                best_of(dense[b], of, listed, value)
                candidates, n_candidates = listed, most
            item[b], score[b] = -1, NONE
            for n in range(n_candidates):
                j = candidates[n]
                if j >= 0:
                    insert(item[b], score[b], j, _rescore(first + b, j, log_z[b], rows, shared, scratch))
        _clear(scratch, count)


@compiled
def count_rows(dense: Floats, target: Ints, own: Floats, above: Ints) -> None:
    """Into own[B] the score of each row's target, into above[B] how many others score at least as high."""
    for b in range(len(dense)):
        row, least, found = dense[b], dense[b, target[b]], 0
        for j in range(len(row)):
            found += row[j] >= least
        own[b], above[b] = least, found - 1
