"""Lists of a server, and in bulk, are the offline evaluator's ranking of the same events: items and order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from eddy.models.evaluation.protocols import make_trial
from eddy.models.logs.events import Events
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.models.scoring import approximate_products
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.item_matrix import AUTO_ITEMS
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query
from eddy.models.training.log_replay import Replay
from eddy.serving import view as view_module
from eddy.serving.bulk.columns import lists_of
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import encode_rows
from tests.support.engines import Happening, batch, new_engine, stored_rows
from tests.support.views import put_version
from tests.unit.engine.test_parity import CONFIG
from tests.unit.evaluation.test_evaluate import stream, untrained

USERS, K = 1000, 20
LONG_AFTER = 10**13
NEARLY = 2e-3
"""Of two scores that differ by less, either may come first: after a first pass in int8, those of the users'
own items have the log Z of that pass.
"""


@dataclass(frozen=True)
class Ranked:
    """What the evaluator makes of a log, and a server that has followed the same events."""

    view: MaterialisedView
    users: list[str]
    items: list[str]
    scores: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[USERS, items] of the evaluator"""


def with_a_question_of_each_user(events: Events) -> Events:
    """The log with one more event of each user at its end, all at one moment: these the evaluator ranks."""
    n, last = len(events.users), events.timestamp[-1]
    return replace(
        events,
        user=np.concatenate([events.user, np.arange(n, dtype=np.int32)]),
        item=np.concatenate([events.item, np.zeros(n, np.int32)]),
        timestamp=np.concatenate([events.timestamp, np.full(n, last)]),
        type=np.concatenate([events.type, np.zeros(n, np.int16)]),
        value=np.concatenate([events.value, np.full(n, np.nan, np.float32)]),
    )


def evaluators_scores(
    version: Version, events: Events
) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Users, and exact scores of all items for them after all events."""
    asked = with_a_question_of_each_user(events)
    replay = Replay(version.recommender, version.vocabulary, asked, EventRules(), len(events))
    (chunk,) = replay.chunks(len(asked), learns=False)
    scorer = Scorer(version.recommender, version.vocabulary, replay.catalogue, replay.statistics)
    scorer.update_statistics(float(events.timestamp[-1]))
    query = version.recommender.query_of_output(chunk.output, chunk.idle_ms)
    with torch.inference_mode():
        scores = scorer.scores(Query(*query), chunk.window).numpy().copy()
    index = replay.catalogue.find(version.vocabulary.hashes)
    return [events.users[user] for user in chunk.user.tolist()], scores[:, index]


def following_view(version: Version, events: Events) -> MaterialisedView:
    """A server's view of what a worker would have written."""
    engine = new_engine(version, wall=LONG_AFTER)
    columns = zip(events.user, events.item, events.timestamp, strict=True)
    happened = [Happening(events.users[u], events.items[i], int(time)) for u, i, time in columns]
    for begin in range(0, len(happened), 500):
        part = happened[begin : begin + 500]
        engine.apply([batch(part, range(begin, begin + len(part)))])
    engine.statistics_buffer.flush()
    view, journal, rows = MaterialisedView(lambda: LONG_AFTER), Journal(0, -1, -1), stored_rows(engine)
    put_version(view, version, 1)
    journal.rewrite()
    assert view.take_statistics(0, journal.drain_records(engine.statistics, engine.names.catalogue)()) == []
    assert view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True))) == []
    return view


@pytest.fixture(scope="module", params=["float32", "auto"])
def ranked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranked:
    """More items than those from which on a server makes a first pass in reduced precision."""
    precision: Precision = request.param
    events = stream(events=24_000, users=USERS, items=6_000)
    assert len(events.items) > AUTO_ITEMS
    assert len(make_trial(events, "prequential", EventRules()).events) == len(events)
    version = publish(tmp_path_factory.mktemp("ranked"), untrained(events, CONFIG), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_module, "PRECISION", precision)
        # "auto" takes what is fastest at this moment. Here few users always have the pass over int8 rows, and
        # many the product in float32: in reduced precision their log Z can differ by more than NEARLY.
        patch.setattr(approximate_products, "fastest_precision", lambda rows: "float32")
        view = following_view(version, events)
    users, scores = evaluators_scores(version, events)
    return Ranked(view, users, list(version.vocabulary.items), scores)


def assert_ranked_alike(ranked: Ranked, lists: dict[str, list[str]]) -> None:
    """Every list is the evaluator's; places may be exchanged only where scores nearly tie."""
    number = {name: i for i, name in enumerate(ranked.items)}
    same = 0
    for user, scores in zip(ranked.users, ranked.scores, strict=True):
        found = np.array([number[name] for name in lists[user]])
        wanted = np.argsort(-scores, kind="stable")[:K]
        assert len(set(found.tolist())) == K
        np.testing.assert_allclose(scores[found], scores[wanted], rtol=0, atol=NEARLY, err_msg=user)
        same += found.tolist() == wanted.tolist()
    assert same >= 0.95 * len(ranked.users)


@pytest.mark.parametrize("together", [1, 64])
def test_a_servers_lists_are_the_evaluators(ranked: Ranked, together: int) -> None:
    assert len(ranked.users) == USERS
    lists: dict[str, list[str]] = {}
    for begin in range(0, USERS, together):
        questions = [Question(user, k=K) for user in ranked.users[begin : begin + together]]
        for one in answer(ranked.view, questions):
            assert one.known
            lists[str(one.user_id)] = [item.item_id for item in one.items]
    assert_ranked_alike(ranked, lists)


def test_lists_in_bulk_are_the_evaluators(ranked: Ranked) -> None:
    rows = lists_of(ranked.view, ranked.users, Question("", k=K)).to_pylist()
    assert_ranked_alike(ranked, {row["user_id"]: [item["item_id"] for item in row["items"]] for row in rows})
