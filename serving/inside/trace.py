"""A user's hidden state through their recent window, by the version of their row or any other that is loaded.

What the view holds is copied on its thread; the cell reads the copy on another one; then the view makes the
list that the state at the end gives. Each turn on the view's thread takes about as long as a question.
"""

from dataclasses import dataclass

import numpy as np
import torch

from eddy.models.errors import EddyError
from eddy.models.network.inside import Inside, look_inside
from eddy.models.network.recommender import Recommender
from eddy.serving.inside.answers import Step, Trace
from eddy.serving.inside.windows import window_of
from eddy.serving.lists.answers import Explained, Recommended
from eddy.serving.lists.compose import Place
from eddy.serving.lists.entries import explained_items
from eddy.serving.lists.explain import ExplainedRow
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import Group, best_scores
from eddy.serving.stored_user import StoredUser, stored_user
from eddy.serving.threads import Threads
from eddy.serving.view import MaterialisedView, VersionAt
from eddy.stream.engine.cell_windows import CellWindow
from eddy.stream.engine.ranker import Ranker

DECIMALS = 3

LIST_LENGTH = 10


class NotHere(EddyError):
    """There is no such user, or no such version is loaded."""


@dataclass(frozen=True)
class _Copied:
    """What is read of a user."""

    at: VersionAt
    version: str
    recommender: Recommender
    window: CellWindow
    user: StoredUser


async def trace_user(threads: Threads, user: str, version: str | None) -> Trace:
    """The trace; version: None = the one that has made the row, or else the newest one that is loaded.

    Errors: NotHere.
    """
    copied = await threads.look_up(lambda view: _copy(view, user, version))
    inside, state = await threads.beside(lambda: _read(copied))
    listed = await threads.look_up(lambda view: _list(view, user, copied.at, state))
    return _told(copied, inside, listed)


def ranker_of(view: MaterialisedView, version: str) -> tuple[VersionAt, Ranker]:
    """The version's ranker, of its newest epoch. Errors: NotHere."""
    found = [(at, ranker) for at, ranker in view.rankers.items() if ranker.live.version.id == version]
    if not found:
        raise NotHere(f"version {version} is not loaded here; GET /v1/versions says which are")
    return max(found, key=lambda entry: entry[0].epoch)


def _copy(view: MaterialisedView, user: str, version: str | None) -> _Copied:
    row, stored = view.find_row(user), stored_user(view, user)
    if row is None or stored is None:
        raise NotHere("nothing is stored of this user")
    if version is not None:
        at, ranker = ranker_of(view, version)
        if row.at in view.rankers and view.rankers[row.at].live.version.id == version:
            at, ranker = row.at, view.rankers[row.at]  # the row's own state, whichever epoch is newest
    elif view.newest_at is not None:
        at = row.at if row.at in view.rankers else view.newest_at
        ranker = view.rankers[at]
    else:
        raise NotHere("no version is loaded here yet")
    live = ranker.live
    return _Copied(at, live.version.id, live.recommender, window_of(view, live, row), stored)


@torch.inference_mode()
def _read(copied: _Copied) -> tuple[Inside, torch.Tensor]:
    """What the cell shows, and the state[S] after the window."""
    recommender, window = copied.recommender, copied.window
    x = recommender.inputs(window.inputs)
    state = window.state
    if len(x):
        _, after = recommender.cell.sequence(x[None], state[None], torch.tensor([len(x)]))
        state = after[0]
    return look_inside(recommender.cell, x, window.state), state


def _list(
    view: MaterialisedView, user: str, at: VersionAt, state: torch.Tensor
) -> list[Recommended | Explained]:
    """The list that the state gives now; none when row or version have left meanwhile."""
    row, ranker = view.find_row(user), view.rankers.get(at)
    if row is None or ranker is None:
        return []
    moment = Moment.of(view)
    ranker.update_statistics(moment.now, moment.wall)
    slots, numbers = np.array([row.slot]), np.zeros(1, np.int64)
    group = Group(ranker, view.slabs[row.at], slots, state[None], numbers)
    question = Question(user, LIST_LENGTH)
    rows, best = best_scores(moment, group, [question])
    listed = best.item.numpy()[0] >= 0
    item, score = best.item.numpy()[0][listed], best.score.numpy()[0][listed]
    places = [Place(each, "score") for each in item.tolist()]
    explained = ExplainedRow(ranker, rows, window_of(view, ranker.live, row))
    return [*explained_items(moment, question, places, score, explained)]


def _told(copied: _Copied, inside: Inside, listed: list[Recommended | Explained]) -> Trace:
    config = copied.recommender.config
    steps = [
        Step(each.item_id, each.title, each.event_type, each.timestamp, None if gap < 0 else int(gap))
        for each, gap in zip(copied.user.events, copied.window.gap_ms.tolist(), strict=True)
    ]
    return Trace(
        user_id=copied.user.user_id,
        version=copied.version,
        cell=config.cell,
        layers=config.layers,
        hidden=config.hidden,
        steps=steps,
        states=rounded(inside.states),
        gates={name: rounded(gate) for name, gate in inside.gates.items()},
        kept=rounded(inside.kept.mean(dim=1)),
        overwritten=rounded(inside.overwritten.mean(dim=1)),
        horizon=rounded(inside.horizon),
        list=listed,
    )


def rounded(part: torch.Tensor) -> list:  # type: ignore[type-arg]  # as deep as the tensor
    """Numbers as they are told."""
    values: list = np.round(part.double().numpy(), DECIMALS).tolist()  # type: ignore[type-arg]
    return values


__all__ = ["NotHere", "ranker_of", "rounded", "trace_user"]
