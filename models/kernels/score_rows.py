"""Compiled loops that turn dense scores into whole ones, one user's row at a time while it lies in the cache,
without the interpreter between the steps: sum the sparse parts, mix them in, leave items out, take the best.

`eddy.models.network.mixture` has the formula of the score, and its symbols are used here: d (dense score), Z,
and t, p and shift of the few items whose score is not d. `eddy.models.scoring.backend` says which other code
computes the same, and which tests hold the two together.

Arrays that the loops share: B users, N items in the catalogue, W slots in a recent window, O older items, L
lags of transitions, M successors of an item. Item indices in windows, older items, successors and exclusions
that are not in 0 … N - 1 are passed over. All other indices are used unchecked: types, rows of `successor`
and `share`, `left_from`, targets, and the user's number itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, Ints, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, NONE, ONE, ZERO, exp2, gap_bucket, log
from eddy.models.kernels.topk import find_candidates, find_reaching, insert_ranked, new_peaks, take_best
from eddy.models.kernels.window import Window

NONZERO, IN_WINDOW = np.uint8(1), np.uint8(2)
"""Bits of `Scratch.mark`: an item has a sparse part; an item is in the recent window."""


MOST_RESCORED = 4096
"""Items that are scored again for one list at most, so that its time has a bound where very many items score
alike. Beyond them the list is that of the first candidates.
"""


class MixtureTables(NamedTuple):
    """What `eddy.models.network.mixture.Mixture` has learned. Without a pointer `place` has no rows, without
    transitions `lag` has none.
    """

    place: Floats  # [W,2]
    age: Floats  # [GAP_BUCKETS,2]
    kind: Floats  # [types + 1,2]
    negative: Floats  # [2]
    earlier: Floats  # [1]
    habit: Floats  # [SPARSE_GATES,HABITS]
    last_kind: Floats  # [types + 1,SPARSE_GATES]
    older_mass: Floats  # [O] exp of the log mass, by place
    older_shift: Floats  # [O], by place
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
    column: Ints  # [B] rows of `added` below, -1 = none


class BatchTables(NamedTuple):
    """What all users of a batch have in common."""

    successor: NDArray[np.int32]  # [U,M] of the U distinct items among the users' last ones
    share: Floats  # [U,M] of all transitions from the item, 0 = none
    to: Floats  # [N] weights of items as successors; [0] = all items weigh the same
    origin: Floats  # [N] weights of items as those that are followed
    everywhere: Ints  # items that nobody is recommended
    added: Floats  # [A,N] what is added to whole scores
    vectors: Floats  # [N,D + 1] for exact scores
    moving: Floats  # [columns - D - 1, N or more]


class Scratch(NamedTuple):
    """Working space of one thread. t, p, shift and mark are zero between rows."""

    t: Floats  # [N]
    p: Floats  # [N]
    shift: Floats  # [N]
    mark: NDArray[np.uint8]  # [N] bits, see NONZERO
    nonzero: Ints  # [W + O + L · M] the marked items; only the first `count`, which loops return, are in use
    value: Floats  # [4, W + O + L · M] d, t, p and shift of `nonzero`, side by side


def new_scratch(items: int, nonzero: int) -> Scratch:
    """Working space for N = `items`, of which at most `nonzero` have sparse parts in one row."""
    t, p, shift = (np.zeros(items, np.float32) for _ in range(3))
    return Scratch(
        t, p, shift, np.zeros(items, np.uint8),
        np.empty(nonzero, np.int64), np.empty((4, nonzero), np.float32),
    )  # fmt: skip


@inlined
def _age_bucket(rows: BatchColumns, b: int, slot: int, latest: int) -> int:
    """The gap bucket of the time from the event in a slot to the question."""
    age = np.float32(max(rows.window.timestamp[b, latest] - rows.window.timestamp[b, slot], 0)) + max(
        rows.idle[b], ZERO
    )
    return gap_bucket(age)


@compiled
def _user_gates(
    b: int, length: int, rows: BatchColumns, tables: MixtureTables, scratch: Scratch, items: int
) -> tuple[float, ...]:
    """The SPARSE_GATES gates of user b, with what their habits and the last event's type add: the loop form
    of `eddy.models.network.mixture.habits_of`. Leaves `mark` as it was, zero; overwrites `nonzero`.
    """
    item, gate = rows.window.item[b], rows.gates[b]
    if not len(tables.place):
        return gate[0], gate[1], gate[2], gate[3]
    # 1. Count, latest slot first: filled slots, distinct items, repeats of the event before, and the run.
    latest = max(length - 1, 0)
    filled = distinct = follows = run = 0
    last_again, in_run = ZERO, True
    last, before = item[latest], np.int64(-1)
    for place in range(length):
        j = item[latest - place]
        if 0 <= j < items:
            filled += 1
            if not scratch.mark[j]:
                scratch.mark[j] = NONZERO
                scratch.nonzero[distinct] = j
                distinct += 1
            follows += place > 0 and j == before
            last_again = ONE if place > 0 and j == last else last_again
        in_run = in_run and j == last and j >= 0
        run += in_run
        before = j
    for n in range(distinct):
        scratch.mark[scratch.nonzero[n]] = 0
    # 2. Make the HABITS numbers of them.
    slots = np.float32(max(filled, 1))
    habits = (
        np.float32(np.log1p(filled) / 4), ONE - np.float32(distinct) / slots, np.float32(follows) / slots,
        last_again, np.float32(np.log1p(run) / 2),
    )  # fmt: skip
    # 3. Add both parts to the gates.
    by_type = tables.last_kind[rows.window.type[b, latest]]
    g0, g1, g2, g3 = gate[0] + by_type[0], gate[1] + by_type[1], gate[2] + by_type[2], gate[3] + by_type[3]
    for h in range(5):
        g0 += tables.habit[0, h] * habits[h]
        g1 += tables.habit[1, h] * habits[h]
        g2 += tables.habit[2, h] * habits[h]
        g3 += tables.habit[3, h] * habits[h]
    return g0, g1, g2, g3


@inlined
def _mark_nonzero(scratch: Scratch, j: int, bits: np.uint8, count: int) -> int:
    """Mark item j as one that has sparse parts; returns how many have, where `count` had before."""
    if not scratch.mark[j]:
        scratch.nonzero[count] = j
        count += 1
    scratch.mark[j] |= bits
    return count


@compiled
def _add_window(
    b: int, length: int, gates: tuple[float, ...], rows: BatchColumns, tables: MixtureTables,
    scratch: Scratch, items: int,
) -> int:  # fmt: skip
    """Add the window's items, latest first, to p and shift; returns how many items have sparse parts."""
    count, latest = 0, length - 1
    for place in range(min(length, len(tables.place))):
        slot = latest - place
        j = rows.window.item[b, slot]
        if not 0 <= j < items:
            continue
        bucket, by_type = _age_bucket(rows, b, slot, latest), tables.kind[rows.window.type[b, slot]]
        negative = np.float32(rows.window.negative[b, slot])
        mass = tables.place[place, 0] + tables.age[bucket, 0] + by_type[0] + negative * tables.negative[0]
        mass += gates[1] + (gates[3] if j == rows.window.item[b, latest] else ZERO)
        if scratch.mark[j] & IN_WINDOW:
            mass += tables.earlier[0]
        else:
            shift = tables.place[place, 1] + tables.age[bucket, 1] + by_type[1]
            scratch.shift[j] = shift + negative * tables.negative[1] + gates[2]
        count = _mark_nonzero(scratch, j, NONZERO | IN_WINDOW, count)
        scratch.p[j] += np.exp(mass)
    return count


@compiled
def _add_older_items(
    b: int, gates: tuple[float, ...], rows: BatchColumns, tables: MixtureTables,
    scratch: Scratch, items: int, count: int,
) -> int:  # fmt: skip
    """Set p and shift of the older items that are not in the window as well. Only the window may have been
    added before. Returns how many items have sparse parts, where `count` had before.
    """
    older, user_mass = rows.window.older[b], np.exp(gates[1])
    for place in range(min(len(older), len(tables.older_mass))):
        j = older[place]
        if 0 <= j < items and not scratch.mark[j]:
            count = _mark_nonzero(scratch, j, NONZERO, count)
            scratch.p[j] = tables.older_mass[place] * user_mass
            scratch.shift[j] = tables.older_shift[place] + gates[2]
    return count


@compiled
def _add_transitions(
    b: int, length: int, gate: float, rows: BatchColumns, shared: BatchTables, tables: MixtureTables,
    scratch: Scratch, items: int, count: int,
) -> int:  # fmt: skip
    """Add the successors of the user's last items to t; returns how many items have sparse parts, where
    `count` had before.
    """
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
                count = _mark_nonzero(scratch, j, NONZERO, count)
                scratch.t[j] += weight * share * (shared.to[j] if weighted else ONE)
    return count


@compiled
def _sum_sparse_parts(
    b: int, rows: BatchColumns, shared: BatchTables, tables: MixtureTables, scratch: Scratch, items: int
) -> int:
    """Sum t, p and shift of user b into `scratch`, as `Mixture.weights` does for many users, and list the
    items that have any of them in `nonzero`; returns how many those are.
    """
    length = min(max(rows.window.length[b], 0), rows.window.item.shape[1])
    gates = _user_gates(b, length, rows, tables, scratch, items)
    count = _add_window(b, length, gates, rows, tables, scratch, items)
    if len(tables.place):
        count = _add_older_items(b, gates, rows, tables, scratch, items, count)
    return _add_transitions(b, length, gates[0], rows, shared, tables, scratch, items, count)


@inlined
def _mixed_score(
    d: np.float32, log_z: np.float32, t: np.float32, p: np.float32, shift: np.float32
) -> np.float32:
    """The score of one item, by the formula of `eddy.models.network.mixture` written as
    log Z + log((exp(d - log Z) + t) exp(shift) + p), in which no power overflows.
    """
    probability = (exp2((d - log_z) * LOG2_E) + t) * exp2(shift * LOG2_E) + p
    return d + shift if t + p == 0 else log_z + log(probability)


@compiled
def _mix_sparse_parts(dense: Floats, log_z: np.float32, scratch: Scratch, count: int) -> None:
    """Replace the dense scores dense[N] of the `count` items that have sparse parts by their whole scores.

    They are brought side by side first, so that the formula is computed by vector instructions.
    """
    nonzero, value = scratch.nonzero, scratch.value
    d, t, p, shift = value[0], value[1], value[2], value[3]
    for n in range(count):
        j = nonzero[n]
        d[n], t[n], p[n], shift[n] = dense[j], scratch.t[j], scratch.p[j], scratch.shift[j]
    for n in range(count):
        d[n] = _mixed_score(d[n], log_z, t[n], p[n], shift[n])
    for n in range(count):
        dense[nonzero[n]] = d[n]


@compiled
def _clear_scratch(scratch: Scratch, count: int) -> None:
    """Bring t, p, shift and mark back to zero where the first `count` items of `nonzero` are."""
    for n in range(count):
        j = scratch.nonzero[n]
        scratch.t[j] = scratch.p[j] = scratch.shift[j] = ZERO
        scratch.mark[j] = 0


@compiled
def _exclude_items(b: int, rows: BatchColumns, shared: BatchTables, dense: Floats, items: int) -> None:
    """Write -inf into user b's scores dense[N] of items that are negative in the window, left out for the
    user, or left out for everybody.
    """
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
def _add_column(b: int, rows: BatchColumns, shared: BatchTables, dense: Floats, items: int) -> None:
    """Add user b's column of `added` to the scores dense[N]."""
    column = rows.column[b]
    if column >= 0:
        added = shared.added[column]
        for j in range(items):
            dense[j] += added[j]


@compiled
def _finish_row(
    b: int, dense: Floats, log_z: np.float32, rows: BatchColumns, shared: BatchTables,
    tables: MixtureTables, scratch: Scratch, items: int,
) -> int:  # fmt: skip
    """Turn user b's dense scores dense[N] into whole ones, in place; returns how many items have sparse
    parts, which the caller clears from `scratch` when it needs them no longer.
    """
    count = _sum_sparse_parts(b, rows, shared, tables, scratch, items)
    _mix_sparse_parts(dense, log_z, scratch, count)
    _exclude_items(b, rows, shared, dense, items)
    _add_column(b, rows, shared, dense, items)
    return count


@compiled
def finish_rows(
    dense: Floats, log_z: Floats, first: int, rows: BatchColumns, shared: BatchTables,
    tables: MixtureTables, scratch: Scratch, items: int,
) -> None:  # fmt: skip
    """Turn the dense scores dense[n, N or more] of the n users from `first` on into whole ones, in place;
    log_z[n] is log Z, of no account where the mixture has no sparse parts.
    """
    for b in range(len(dense)):
        count = _finish_row(first + b, dense[b], log_z[b], rows, shared, tables, scratch, items)
        _clear_scratch(scratch, count)


@inlined
def _rescore_item(
    b: int, j: int, log_z: np.float32, rows: BatchColumns, shared: BatchTables, scratch: Scratch
) -> np.float32:
    """User b's score of item j, with an exact d but the log Z of the first pass. `scratch` must still hold
    the user's sparse parts.
    """
    column, added = rows.column[b], ZERO
    if column >= 0:
        added = shared.added[column, j]
    vector, row, moving, d = rows.vector[b], shared.vectors[j], shared.moving, ZERO
    for column in range(len(row)):
        d += vector[column] * row[column]
    for column in range(len(moving)):
        d += vector[len(row) + column] * moving[column, j]
    if scratch.mark[j]:
        d = _mixed_score(d, log_z, scratch.t[j], scratch.p[j], scratch.shift[j])
    return d + added


@inlined
def _rescore_candidates(
    b: int, n: int, candidates: Ints, log_z: np.float32, rows: BatchColumns, shared: BatchTables,
    scratch: Scratch, item: Ints, score: Floats,
) -> None:  # fmt: skip
    """Write the best of the first n of the candidates (-1 = none), scored again for user b, into item[k] and
    score[k]. `scratch` must still hold the user's sparse parts.
    """
    item[:], score[:] = -1, NONE
    for place in range(n):
        j = candidates[place]
        if j >= 0:
            insert_ranked(item, score, j, _rescore_item(b, j, log_z, rows, shared, scratch))


@compiled
def list_best(
    dense: Floats, log_z: Floats, error: Floats, first: int, rows: BatchColumns, shared: BatchTables,
    tables: MixtureTables, scratch: Scratch, items: int, rescored: int, item: Ints, score: Floats,
) -> None:  # fmt: skip
    """As `finish_rows`, then write the k best items of each user, best first, into item[n,k] and score[n,k]:
    -1 and -inf where fewer than k may be recommended. The columns of `dense` are a multiple of BLOCK.

    `rescored` > 0: the dense scores are approximate, by error[n] at most; that many candidates are scored
    again exactly, but for log Z, and then all others that can be better than the last of them, if they are
    not more than MOST_RESCORED.
    """
    most = max(rescored, item.shape[1])
    peaks = new_peaks(dense.shape[1], most, MOST_RESCORED if rescored else 0)
    listed, value = np.empty(most, np.int64), np.empty(most, np.float32)
    for b in range(len(dense)):
        # 1. Finish the scores.
        count = _finish_row(first + b, dense[b], log_z[b], rows, shared, tables, scratch, items)
        if not rescored:
            # 2. Take the best of exact scores.
            take_best(dense[b], peaks, item[b], score[b])
        else:
            # 2. Find candidates, a few more than asked for; exactly as many where too many scores are equal.
            candidates, n_candidates = peaks.candidates, find_candidates(dense[b], rescored, peaks)
            if n_candidates < 0:
                take_best(dense[b], peaks, listed, value)
                candidates, n_candidates = listed, most
            # 3. Score them again, and take the best.
            _rescore_candidates(
                first + b, n_candidates, candidates, log_z[b], rows, shared, scratch, item[b], score[b]
            )
            # 4. Whatever the error may have kept from the list reaches its last score but for the error: a
            # whole score grows with the dense one, and by no more.
            last = score[b, item.shape[1] - 1] if item.shape[1] else NONE
            if last > NONE:
                n_candidates = find_reaching(dense[b], last - error[b], peaks)
                if n_candidates >= 0:
                    _rescore_candidates(
                        first + b, n_candidates, peaks.candidates, log_z[b], rows, shared, scratch,
                        item[b], score[b],
                    )  # fmt: skip
        _clear_scratch(scratch, count)


@compiled
def rank_targets(dense: Floats, target: Ints, own: Floats, above: Ints) -> None:
    """Into own[n] the score of the target[n] of each row of dense[n,N], into above[n] how many other items
    score at least as high. A target must be one of the N columns.
    """
    for b in range(len(dense)):
        row, score, count = dense[b], dense[b, target[b]], 0
        for j in range(len(row)):
            count += row[j] >= score
        own[b], above[b] = score, count - 1
