"""The plainest form of what the stream must do: it takes one user and one event at a time, and keeps the
whole history.

No slab, no waves, no offsets to skip: `eddy.stream.engine.move_rows` and `eddy.stream.engine.engine` must
give the same rows, however the stream was cut, repeated or restored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy.models.hashing import event_id_hash, item_hash, type_hash
from eddy.models.registry import Version
from eddy.models.tensors import Inputs
from eddy.stream.state.rows import NO_TIME, OLDER, TIME_SPAN, WINDOW, Rows
from tests.support.engines import TOPIC_ID, Happening

_MASK = (1 << 64) - 1


def splitmix64(offset: int) -> int:
    """Steele, Lea, Flood 2014, with Python's integers."""
    z = (offset + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@dataclass
class User:
    """One user's whole history in row order, the state after each of its events, and where the window
    begins.
    """

    history: list[Happening] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    window_from: int = 0
    offset: int = -1
    applied: int = 0
    digest: int = 0
    repeats: int = 0
    late: int = 0
    too_late: int = 0


def is_negative(happening: Happening) -> bool:
    """Whether the default rule, rating<3,dislike,remove, calls the event negative."""
    if happening.type in ("dislike", "remove"):
        return True
    return happening.type == "rating" and happening.value is not None and happening.value < 3


class Oracle:
    """All users of one version."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.recommender = version.recommender
        self.users: dict[str, User] = {}

    def _step(self, happening: Happening, gap: float, state: Tensor) -> Tensor:
        vocabulary = self.version.vocabulary
        with torch.inference_mode():
            return self.recommender.step(
                Inputs(
                    item=torch.from_numpy(
                        vocabulary.input_index(np.array([item_hash(happening.item)], np.uint64))
                    ),
                    type=torch.from_numpy(
                        vocabulary.type_index(np.array([type_hash(happening.type)], np.uint64))
                    ),
                    negative=torch.tensor([is_negative(happening)]),
                    gap_ms=torch.tensor([gap], dtype=torch.float32),
                ),
                state,
            )

    def apply(self, happening: Happening, offset: int) -> None:
        user = self.users.setdefault(happening.user, User())
        user.offset = offset
        start = user.window_from
        recent = [earlier.event_id for earlier in user.history[start:]]
        if happening.event_id is not None and happening.event_id in recent:
            user.repeats += 1
            return
        time, index = happening.time, len(user.history)
        if user.times and time < user.times[-1]:
            if start and time < user.times[start - 1]:
                user.too_late += 1
                time = user.times[-1]
            else:
                user.late += 1
                index = start + sum(t <= time for t in user.times[start:])
        user.history.insert(index, happening)
        user.times.insert(index, time)
        first = user.times[start]
        user.times[start:] = [min(t, first + TIME_SPAN) for t in user.times[start:]]
        del user.states[index:]
        for i in range(index, len(user.history)):
            gap = user.times[i] - user.times[i - 1] if i else -1
            before = user.states[i - 1] if i else self.recommender.initial(1)
            user.states.append(self._step(user.history[i], gap, before))
        if len(user.history) - start == WINDOW:
            user.window_from += WINDOW // 2
        user.applied += 1
        user.digest = (user.digest + splitmix64(offset)) & _MASK

    def rows(self, epoch: int = 1, partition: int = 0) -> Rows:
        names = sorted(self.users)
        users = [self.users[name] for name in names]
        n, size = len(users), self.recommender.state_size
        windows = [list(zip(u.history, u.times, strict=True))[u.window_from :] for u in users]

        def column(dtype: str, values: list[list[Any]], width: int = WINDOW) -> np.ndarray:
            out = np.zeros((n, width), dtype)
            for i, row in enumerate(values):
                out[i, : len(row)] = row
            return out

        zero = torch.zeros(1, size)
        older = [
            list(dict.fromkeys(item_hash(event.item) for event in before if not is_negative(event)))[:OLDER]
            for before in (u.history[: u.window_from][::-1] for u in users)
        ]
        return Rows(
            user=[name.encode() for name in names],
            epoch=np.full(n, epoch, np.uint32),
            version=np.full(n, item_hash(self.version.id), np.uint64),
            topic_id=TOPIC_ID,
            partition=np.full(n, partition, np.int32),
            offset=np.array([u.offset for u in users], np.int64),
            applied=np.array([u.applied for u in users], np.uint32),
            digest=np.array([u.digest for u in users], np.uint64),
            anchor_time=np.array(
                [u.times[u.window_from - 1] if u.window_from else NO_TIME for u in users], np.int64
            ),
            hidden=torch.cat([u.states[-1] for u in users]).numpy(),
            anchor=torch.cat([u.states[u.window_from - 1] if u.window_from else zero for u in users]).numpy(),
            length=np.array([len(window) for window in windows], np.uint8),
            item=column("u8", [[item_hash(event.item) for event, _ in w] for w in windows]),
            time=column("i8", [[time for _, time in w] for w in windows]),
            type=column("u8", [[type_hash(event.type) for event, _ in w] for w in windows]),
            value=column(
                "f2", [[np.nan if event.value is None else event.value for event, _ in w] for w in windows]
            ),
            event_id=column(
                "u8",
                [[event_id_hash(event.event_id) if event.event_id else 0 for event, _ in w] for w in windows],
            ),
            older=column("u8", older, max(map(len, older))),
        )
