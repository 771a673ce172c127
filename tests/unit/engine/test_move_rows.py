"""Rows are what a plain per-user program would make of the same events, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.config import CELLS
from eddy.models.hashing import item_hash
from eddy.models.registry import Version
from eddy.stream.engine.engine import Engine
from eddy.stream.state.rows import NO_TIME, OLDER, WINDOW, Rows, decode_rows, encode_rows
from tests.support.engines import (
    TOLERANCE,
    Happening,
    assert_same_rows,
    batch,
    item_id,
    new_engine,
    random_version,
    reencode_all,
    stored_rows,
    switch,
)
from tests.support.oracle import Oracle

START = 1_300_000_000_000
ITEMS = 230


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    folder: Path = tmp_path_factory.mktemp("registry")
    return {cell: random_version(folder, cell) for cell in CELLS}


@pytest.fixture(scope="module")
def state_alone(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version whose lists depend on hidden states alone, not on the moment or on what others did."""
    folder: Path = tmp_path_factory.mktemp("state-alone")
    version = random_version(
        folder, items=ITEMS, time_gaps=False, half_lives_ms=(), transition_lags=0, pointer=False
    )
    version.recommender.gate_idle.zero_()
    return version


@st.composite
def streams(draw: st.DrawFn) -> list[Happening]:
    """Up to 400 events of up to 5 users: in order, equal in time, late, too late; re-sent in the window
    or after it.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, users = draw(st.integers(1, 400)), draw(st.integers(1, 5))
    tick = draw(st.sampled_from([0, 1, 1000, 10_000_000]))
    disorder = draw(st.sampled_from([0.0, 0.05, 0.5]))
    unheard_of = [f"page_{i}" for i in rng.integers(0, 10**9, draw(st.sampled_from([1, 50])))]
    named, resent = draw(st.booleans()), draw(st.sampled_from([0.0, 0.1]))
    clock, sent = START, list[Happening]()
    for i in range(n):
        if sent and rng.random() < resent:
            back = int(rng.integers(1, min(len(sent), 80) + 1))
            sent.append(sent[-back])
            continue
        clock += int(rng.integers(0, 3)) * tick
        late = int(rng.integers(0, 150)) * tick if rng.random() < disorder else 0
        rated = rng.random() < 0.3
        sent.append(
            Happening(
                user=f"user-{rng.integers(users)}",
                item=item_id(int(rng.integers(0, ITEMS))),  # some are outside most versions' vocabulary
                time=max(clock - late, 0),
                type="rating" if rated else str(rng.choice(unheard_of)) if rng.random() < 0.1 else "view",
                value=float(rng.integers(1, 11)) if rated else None,
                event_id=f"event-{i}" if named else None,
            )
        )
    return sent


def cut(rng: np.random.Generator, n: int) -> list[tuple[int, int]]:
    """A way through n records: pieces of any length, sometimes going back as after a crash."""
    pieces, at, done = [], 0, 0
    while done < n:
        end = min(n, at + int(rng.choice([1, 2, 7, 60, 400])))
        pieces.append((at, end))
        done = max(done, end)
        at = int(rng.integers(0, end + 1)) if rng.random() < 0.2 else end
    return pieces


def run(engine: Engine, sent: Sequence[Happening], pieces: Sequence[tuple[int, int]]) -> None:
    for start, end in pieces:
        engine.apply([batch(sent[start:end], range(start, end))])


def invariant_error(engine: Engine) -> float:
    """Largest difference between a row's hidden state and a fresh encoding of its anchor and window."""
    slab = engine.newest.slab
    slots = slab.of_partition(0)
    length = slab.length[slots].astype(np.int64)
    with torch.inference_mode():
        fresh = engine.newest.live.recompute(
            slab, slots, np.zeros(len(slots), np.int64), length, slab.anchor[torch.from_numpy(slots)].clone()
        )
        return float((fresh - slab.hidden[torch.from_numpy(slots)]).abs().max())


@settings(max_examples=25)
@given(sent=streams(), seed=st.integers(0, 2**32 - 1), cell=st.sampled_from(CELLS))
def test_rows_are_the_oracle_s_for_any_stream_cut_and_replayed_anyhow(
    versions: dict[str, Version], sent: list[Happening], seed: int, cell: str
) -> None:
    oracle = Oracle(versions[cell])
    for offset, one in enumerate(sent):
        oracle.apply(one, offset)
    engine = new_engine(versions[cell])
    run(engine, sent, cut(np.random.default_rng(seed), len(sent)))
    assert_same_rows(stored_rows(engine), oracle.rows())
    assert invariant_error(engine) < TOLERANCE


@settings(max_examples=10)
@given(sent=streams())
def test_lists_and_ranks_are_as_of_their_event_however_late_or_often_it_comes(
    state_alone: Version, sent: list[Happening]
) -> None:
    together, one_by_one = (new_engine(state_alone, emit="every", sample=0.5) for _ in range(2))
    (lists,) = together.apply([batch(sent, range(len(sent)))]).lists
    score_at = dict(zip(lists.offset.tolist(), lists.topk().score, strict=True))
    assert len(score_at) == len(sent)
    for offset, happening in enumerate(sent):
        (expected,) = one_by_one.apply([batch([happening], [offset])]).lists
        np.testing.assert_allclose(score_at[offset], expected.topk().score[0], rtol=0, atol=1e-3)
    for engine in (together, one_by_one):
        engine.prequential.finish_ranks()
    assert together.prequential.events == one_by_one.prequential.events
    assert_same_rows(stored_rows(together), stored_rows(one_by_one))


@settings(max_examples=12)
@given(sent=streams(), seed=st.integers(0, 2**32 - 1))
def test_a_restored_engine_goes_on_as_if_it_had_never_stopped(
    versions: dict[str, Version], sent: list[Happening], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    undisturbed = new_engine(versions["gru"])
    run(undisturbed, sent, cut(rng, len(sent)))
    engine = new_engine(versions["gru"])
    for start, end in cut(rng, len(sent)):
        run(engine, sent, [(start, end)])
        if rng.random() < 0.3:  # a crash: only what was written is left, and what comes next may come again
            stored = stored_rows(engine)
            engine = new_engine(versions["gru"])
            for rows in decode_rows(stored.user, encode_rows(stored)):
                engine.load_rows(rows)
            again = int(rng.integers(0, end + 1))
            run(engine, sent, [(again, end)])
    assert_same_rows(stored_rows(engine), stored_rows(undisturbed))


@settings(max_examples=8)
@given(sent=streams())
def test_counts_of_repeats_and_late_events_are_the_oracle_s(
    versions: dict[str, Version], sent: list[Happening]
) -> None:
    oracle = Oracle(versions["gru"])
    for offset, one in enumerate(sent):
        oracle.apply(one, offset)
    engine = new_engine(versions["gru"])
    outcomes = [engine.apply([batch(sent[i : i + 50], range(i, i + 50))]) for i in range(0, len(sent), 50)]
    for name in ("applied", "repeats", "late", "too_late"):
        ours = sum(getattr(outcome, name) for outcome in outcomes)
        assert ours == sum(getattr(user, name) for user in oracle.users.values()), name


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_resent_and_shuffled_events_inside_the_window_leave_the_states_of_the_clean_stream(
    versions: dict[str, Version], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    clean = [
        Happening(
            f"user-{rng.integers(4)}", item_id(int(rng.integers(200))), START + i * 1000, event_id=f"e-{i}"
        )
        for i in range(400)
    ]
    dirty = list(clean)
    for i in rng.choice(len(clean), 20, replace=False):  # 5 % moved by less than W / 2 of their user's events
        dirty.remove(clean[i])
        own = [k for k, one in enumerate(dirty) if one.user == clean[i].user and one.time > clean[i].time]
        dirty.insert(own[min(int(rng.integers(0, 6)), len(own) - 1)] + 1 if own else len(dirty), clean[i])
    for i in rng.choice(len(clean), 20, replace=False):  # 5 % sent again
        at = dirty.index(clean[i])
        own = [k for k, one in enumerate(dirty) if one.user == clean[i].user and k > at]
        dirty.insert(own[min(int(rng.integers(0, 10)), len(own) - 1)] + 1 if own else len(dirty), clean[i])
    engines = []
    for sent in (clean, dirty):
        engine = new_engine(versions["gru"])
        run(engine, sent, cut(rng, len(sent)))
        engines.append(engine)
    rows: list[Rows] = [stored_rows(engine) for engine in engines]
    np.testing.assert_array_equal(rows[0].applied, rows[1].applied)
    # Late events may move the anchor at another event; the state is the same.
    np.testing.assert_allclose(rows[0].hidden, rows[1].hidden, rtol=0, atol=TOLERANCE)


def test_the_anchor_is_the_state_half_a_window_before_and_the_older_half_is_dropped(
    versions: dict[str, Version],
) -> None:
    engine = new_engine(versions["gru"])
    sent = [Happening("u", item_id(i), START + i) for i in range(WINDOW)]
    run(engine, sent, [(0, WINDOW - 1)])
    before = stored_rows(engine)
    assert (int(before.length[0]), int(before.anchor_time[0])) == (WINDOW - 1, NO_TIME)
    assert not before.anchor.any()
    middle = new_engine(versions["gru"])
    run(middle, sent, [(0, WINDOW // 2)])
    run(engine, sent, [(WINDOW - 1, WINDOW)])
    row = stored_rows(engine)
    assert (row.length[0], row.anchor_time[0]) == (WINDOW // 2, START + WINDOW // 2 - 1)
    np.testing.assert_allclose(row.anchor, stored_rows(middle).hidden, rtol=0, atol=TOLERANCE)


def test_older_items_are_those_that_left_the_window_once_each_latest_first_and_no_disliked_one(
    versions: dict[str, Version],
) -> None:
    # Many more items than a row remembers, each of them twice or more but for those that are disliked.
    rng = np.random.default_rng(3)
    items = rng.permutation(np.repeat(np.arange(OLDER + 150), 2))
    sent = [
        Happening("u", item_id(i), START + at, "rating", 1.0 if i % 10 == 0 else 9.0)
        for at, i in enumerate(items.tolist())
    ]
    engine = new_engine(versions["gru"])
    run(engine, sent, cut(rng, len(sent)))
    row = stored_rows(engine)
    left = items[: len(items) - int(row.length[0])][::-1].tolist()
    expected = [item_hash(item_id(i)) for i in dict.fromkeys(i for i in left if i % 10)][:OLDER]
    assert row.older[0].tolist() == expected
    assert len(expected) == OLDER


def test_rows_of_another_epoch_are_encoded_anew_from_their_window_alone(
    versions: dict[str, Version], tmp_path: Path
) -> None:
    engine = new_engine(versions["gru"])
    sent = [Happening(f"u-{i % 3}", item_id(i % 50), START + i) for i in range(250)]
    run(engine, sent, [(0, 250)])
    other = random_version(tmp_path, "lstm", hidden=8, seed=5)
    switch(engine, other, 2)
    reencode_all(engine)
    rows = stored_rows(engine)
    assert set(rows.epoch.tolist()) == {2}
    assert not rows.anchor.any()
    assert invariant_error(engine) < TOLERANCE
    windows = Oracle(other)
    for i, name in enumerate(rows.user):
        mine = [one for one in sent if one.user.encode() == name][-int(rows.length[i]) :]
        for at, one in enumerate(mine):
            windows.apply(one, at)
    np.testing.assert_allclose(rows.hidden, windows.rows().hidden, rtol=0, atol=TOLERANCE)
