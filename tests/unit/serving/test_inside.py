"""A person's hidden state through time, and the dynamics of versions, from a view."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from eddy.models.config import CELLS
from eddy.serving.inside.answers import Trace
from eddy.serving.inside.dynamics import MeasuredDynamics
from eddy.serving.inside.trace import LIST_LENGTH, NotHere, trace_user
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView
from tests.support.engines import random_version
from tests.support.serving_views import DESCRIBED, described_view
from tests.support.views import AtOnce, put_version


def traced(view: MaterialisedView, user: str, version: str | None = None) -> Trace:
    return asyncio.run(trace_user(AtOnce(view), user, version))


@pytest.mark.parametrize("cell", CELLS)
def test_a_trace_ends_with_the_state_and_the_list_of_the_row(tmp_path: Path, cell: str) -> None:
    version = random_version(tmp_path, items=DESCRIBED, half_lives_ms=(86_400_000,), cell=cell, hidden=16)
    view = described_view(version)
    trace = traced(view, "user-0")
    row = view.find_row("user-0")
    assert row is not None
    stored = view.slabs[row.at].hidden[row.slot].numpy()
    layers = version.recommender.config.layers
    last_layer = stored[16 * (layers - 1) : 16 * layers]
    assert np.allclose(trace.states[-1], last_layer, atol=1e-3)
    assert len(trace.states) == len(trace.steps) + 1 == int(view.slabs[row.at].length[row.slot]) + 1
    assert [step.gap_ms for step in trace.steps][:1] == [None]
    assert all(step.gap_ms == 8000 for step in trace.steps[1:])
    assert (trace.version, trace.cell, len(trace.horizon)) == (version.id, cell, 16)
    assert len(trace.kept) == len(trace.overwritten) == len(trace.steps)
    listed = answer(view, [Question("user-0", LIST_LENGTH)])[0].items
    assert [item.item_id for item in trace.list] == [item.item_id for item in listed]


def test_another_version_reads_the_same_window_from_zeros(tmp_path: Path) -> None:
    view = described_view(random_version(tmp_path, items=DESCRIBED, half_lives_ms=(86_400_000,)))
    other = random_version(
        tmp_path, items=DESCRIBED, half_lives_ms=(86_400_000,), cell="lstm", hidden=8, seed=9
    )
    put_version(view, other, 2)
    own, others = traced(view, "user-1"), traced(view, "user-1", other.id)
    assert [step.item_id for step in own.steps] == [step.item_id for step in others.steps]
    assert (others.cell, others.hidden, sorted(others.gates)) == ("lstm", 8, ["forget", "input", "output"])
    assert others.states[0] == [0.0] * 8
    assert len(others.list) == LIST_LENGTH
    with pytest.raises(NotHere, match="not loaded"):
        traced(view, "user-1", "v000099-00000000")
    with pytest.raises(NotHere, match="nothing is stored"):
        traced(view, "nobody")


def test_dynamics_are_measured_on_stored_windows_and_again_only_while_users_are_few(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=DESCRIBED, half_lives_ms=(86_400_000,), cell="rnn", hidden=16)
    view = described_view(version)
    measured = MeasuredDynamics(AtOnce(view))
    first = asyncio.run(measured.of(version.id))
    assert (first.users, first.window, first.cell) == (8, 8, "rnn")
    assert len(first.gradient_flow) == 8
    assert all(0 < value < 1 for value in first.gradient_flow)
    assert first.gradient_flow[-1] < first.gradient_flow[0]
    assert len(first.horizon) == 16
    assert first.spectral_radius is not None
    assert asyncio.run(measured.of(version.id)) is first
    with pytest.raises(NotHere):
        asyncio.run(measured.of("v000099-00000000"))


def test_before_anybody_has_a_row_nothing_can_be_measured(tmp_path: Path) -> None:
    view = MaterialisedView(lambda: 0)
    version = random_version(tmp_path, items=DESCRIBED)
    put_version(view, version, 1)
    dynamics = asyncio.run(MeasuredDynamics(AtOnce(view)).of(version.id))
    assert (dynamics.users, dynamics.gradient_flow, dynamics.horizon) == (0, [], [])
