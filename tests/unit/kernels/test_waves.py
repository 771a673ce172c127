"""Waves: every event once, each user's in order, and each step's users a prefix of the step's before."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from eddy.stream.kernels.waves import pack


@given(count=st.lists(st.integers(1, 30), max_size=40))
def test_packing_is_torch_s_packed_sequence(count: list[int]) -> None:
    length = np.array(count, np.int64)
    start = np.cumsum(length) - length
    waves = pack(start, length)
    if not count:
        assert len(waves.event) == len(waves.batch_sizes) == 0
        return
    columns = [torch.arange(first, first + n) for first, n in zip(start.tolist(), count, strict=True)]
    packed = torch.nn.utils.rnn.pack_sequence([columns[i] for i in waves.user.tolist()])
    assert waves.event.tolist() == packed.data.tolist()
    assert waves.batch_sizes.tolist() == packed.batch_sizes.tolist()


@given(count=st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_previous_is_the_same_user_s_event_before(count: list[int]) -> None:
    length = np.array(count, np.int64)
    start = np.cumsum(length) - length
    waves = pack(start, length)
    later = waves.rank > 0
    assert (waves.previous[~later] == -1).all()
    assert (waves.event[waves.previous[later]] == waves.event[later] - 1).all()
    assert (waves.user[waves.lane[waves.previous[later]]] == waves.user[waves.lane[later]]).all()
    assert (waves.length == length[waves.user]).all()
    assert (waves.first == start[waves.user]).all()
