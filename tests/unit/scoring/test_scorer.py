"""Scores, top-k and ranks over the whole catalogue: exact, and the same however they are asked for."""

import gc
import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch

from eddy.models.config import DAY_MS, ModelConfig
from eddy.models.kernels.topk import topk
from eddy.models.network.recommender import Recommender
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.backend import Adjust, Exclude
from eddy.models.scoring.cpu_backend import CpuBackend
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query, Window
from eddy.models.vocabulary import Catalogue, Vocabulary

pytestmark = pytest.mark.unit

USERS, WIDTH = 9, 6
NOW = 1_370_000_000_000


def expected_topk(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """By sorting everything, stably; -inf is not chosen."""
    index = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :k]
    score = scores.gather(1, index)
    return torch.where(score > -torch.inf, index, -1), score


@pytest.mark.parametrize("on_any_device", [False, True])
@pytest.mark.parametrize("items", [0, 1, 19, 64, 1000, 5003, 6400])
@pytest.mark.parametrize(
    "values", ["distinct", "few", "equal", "infinite", "nearly all infinite", "negative"]
)
def test_topk_is_exact_with_ties_to_the_lower_index(
    items: int, values: str, on_any_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_any_device:  # what a GPU runs, on the CPU
        monkeypatch.setattr("eddy.models.kernels.topk._on_cpu", lambda _: False)
    torch.manual_seed(items)
    scores = {
        "distinct": torch.randn(5, items),
        "few": torch.randint(-2, 3, (5, items)).float(),
        "equal": torch.zeros(5, items),
        "infinite": torch.randn(5, items).masked_fill(torch.rand(5, items) < 0.9, -torch.inf),
        "nearly all infinite": torch.randn(5, items).masked_fill(torch.rand(5, items) < 0.999, -torch.inf),
        "negative": -torch.rand(5, items) * 1e-3,
    }[values]
    index, value = topk(scores, 20)
    wanted, wanted_value = expected_topk(scores, 20)
    torch.testing.assert_close(index, wanted)
    torch.testing.assert_close(value, wanted_value)


def test_minus_zero_ties_with_zero() -> None:
    assert topk(torch.tensor([[-0.0, 0.0]]), 2)[0].tolist() == [[0, 1]]


@pytest.mark.parametrize("on_any_device", [False, True])
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_first_pass_in_reduced_precision_finds_the_exact_list(
    precision: Precision, on_any_device: bool
) -> None:
    """Most of it: recall@20 >= .99. What it finds has its exact score but for log Z, of the first pass;
    nothing that was left out is recommended.
    """
    exact, fast = large_scorer("float32"), large_scorer(precision)
    if on_any_device:
        as_on_any_device(fast)
    query, window = random_users(exact)
    exclude = Exclude(torch.tensor([2, 6]), torch.tensor([0, 30]), everywhere=torch.tensor([5]))
    wanted, wanted_score = exact.topk(query, window, 20, exclude)
    index, score = fast.topk(query, window, 20, exclude)
    recall = (index[:, :, None] == wanted[:, None, :]).any(dim=2).float().mean()
    assert recall >= 0.99
    same = index == wanted
    spread = float(exact.scores(query, window).std())
    torch.testing.assert_close(score[same], wanted_score[same], atol=0.02 * spread, rtol=0)
    assert not (index == 5).any()
    target = wanted[:, 3]
    assert fast.ranks(query, window, target)[1].tolist() == exact.ranks(query, window, target)[1].tolist()


@pytest.mark.parametrize("users", [1, 3, USERS])
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_first_pass_keeps_nothing_from_the_list_that_its_error_may_have_hidden(
    precision: Precision, users: int
) -> None:
    """All items score nearly alike, so that it is chance what the first pass puts first."""
    exact, fast = large_scorer("float32", alike=True), large_scorer(precision, alike=True)
    query, window = random_users(exact)
    query = Query(*(part[:users] for part in query))
    query.vector[:, exact.recommender.config.dim + 1 :] = 0  # neither does popularity tell them apart
    window = Window(*(part[:users] for part in window))
    assert fast.topk(query, window, 20)[0].tolist() == exact.topk(query, window, 20)[0].tolist()


def test_compiled_loops_score_as_any_device_does() -> None:
    """Of items that users have, that transitions lead to, and of all others."""
    compiled, elsewhere = large_scorer("float32"), large_scorer("float32")
    as_on_any_device(elsewhere)
    query, window = random_users(compiled)
    exclude = Exclude(torch.tensor([7, 2, 2]), torch.tensor([30, 0, 7]), everywhere=torch.tensor([5, 2999]))
    expected = elsewhere.scores(query, window, exclude)
    torch.testing.assert_close(compiled.scores(query, window, exclude), expected, atol=1e-4, rtol=1e-5)
    for found, wanted in zip(
        compiled.topk(query, window, 30, exclude), elsewhere.topk(query, window, 30, exclude), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("on_any_device", [False, True])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_columns_are_added_to_the_scores_of_their_users_and_filter_where_they_are_infinite(
    precision: Precision, on_any_device: bool
) -> None:
    scorer = large_scorer(precision)
    if on_any_device:
        as_on_any_device(scorer)
    query, window = random_users(scorer)
    plain = scorer.scores(query, window).clone()
    added = torch.stack([torch.randn(scorer.items), torch.full((scorer.items,), -torch.inf)])
    added[1, [7, 30, 2999]] = 0.5
    adjust = Adjust(torch.tensor([-1, 0, 1] * (USERS // 3)), added)
    expected = plain.clone()
    expected[1::3] += added[0]
    expected[2::3] += added[1]
    torch.testing.assert_close(scorer.scores(query, window, adjust=adjust), expected)
    index, score = scorer.topk(query, window, 5, adjust=adjust)
    assert {frozenset(row) for row in index[2::3].tolist()} == {frozenset((7, 30, 2999, -1))}
    wanted, wanted_score = expected_topk(expected, 5)
    if precision == "float32":
        torch.testing.assert_close((index, score), (wanted, wanted_score), atol=1e-4, rtol=1e-5)
    else:
        assert (index == wanted).float().mean() > 0.9


def test_a_column_for_another_number_of_items_is_refused() -> None:
    scorer = large_scorer("float32")
    with pytest.raises(ValueError, match="columns of 5 items for 3000"):
        scorer.scores(*random_users(scorer), adjust=Adjust(torch.zeros(USERS).long(), torch.zeros(1, 5)))


def large_scorer(precision: Precision, threads: int = 1, alike: bool = False) -> Scorer:
    """3,000 items in tiles, with all parts of the score, counted in two partitions. `alike`: item vectors
    that hardly differ, and dense scores alone.
    """
    torch.manual_seed(1)
    items = 3000
    sparse: dict[str, Any] = {"pointer": not alike, "transition_lags": 0 if alike else 3}
    config = ModelConfig(hidden=16, dim=32, recent_window=WIDTH, **sparse)
    vocabulary = Vocabulary([f"item-{i}" for i in range(items)], ["view"], config.item_buckets)
    recommender = Recommender(config, items, 1).eval().requires_grad_(False)
    for parameter in recommender.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.3)
    if alike:
        vectors = recommender.item_vectors
        vectors.copy_(vectors.mean(dim=0) + 0.01 * (vectors - vectors.mean(dim=0)) + 0.3)
        recommender.item_bias.zero_()
    statistics = Statistics(config.half_lives_ms, config.successors)
    rng = np.random.default_rng(2)
    for partition in range(2):
        item, earlier = rng.integers(items, size=5000), rng.integers(-1, 60, (5000, 3))
        statistics.count_events(partition, item, np.full(5000, NOW - DAY_MS), earlier)
    scorer = Scorer(recommender, vocabulary, Catalogue(vocabulary.hashes), statistics, precision, threads)
    scorer.update_statistics(NOW)
    return scorer


def test_what_is_being_scored_is_not_changed_by_later_counts_and_refreshes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The threads that score are held back until all of it is changed."""
    scorer = large_scorer("float32", threads=2)
    query, window = random_users(scorer)
    many = Query(*(part.repeat(40, *[1] * (part.ndim - 1)) for part in query))
    windows = Window(*(part.repeat(40, *[1] * (part.ndim - 1)) for part in window))
    expected = scorer.topk(many, windows, 10)
    begun, go_on, scores = threading.Event(), threading.Event(), CpuBackend.topk

    def held_back(*arguments: Any, **named: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return scores(*arguments, **named)

    monkeypatch.setattr(CpuBackend, "topk", held_back)
    result = scorer.start_topk(many, windows, 10, torch.zeros(0, dtype=torch.int64))
    assert begun.wait(30)
    items = np.arange(3000)
    scorer.statistics.count_events(0, items, np.full(3000, NOW + DAY_MS), np.roll(items, 1)[:, None])
    scorer.catalogue.add(np.arange(1, 2000, dtype=np.uint64))
    scorer.update_statistics(NOW + 100 * DAY_MS)
    go_on.set()
    for found, before in zip(result()[:2], expected, strict=True):
        torch.testing.assert_close(found, before, atol=0, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_was_scored_is_freed_without_the_cycle_collector(precision: Precision) -> None:
    """Workers let it run rarely; a batch's tensors in a cycle were 3 KB an event under a backlog."""
    scorer = large_scorer(precision, threads=2)
    query, window = random_users(scorer)
    scorer.start_topk(query, window, 5, torch.zeros(1, dtype=torch.int64))()  # what is compiled leaves cycles
    gc.collect()
    gc.disable()
    try:
        scorer.start_topk(query, window, 5, torch.zeros(1, dtype=torch.int64))()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        data = torch.Tensor, np.ndarray
        assert not [garbage for garbage in gc.garbage if isinstance(garbage, data) or callable(garbage)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_tiles_of_items_do_not_change_the_scores(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = large_scorer("float32")
    query, window = random_users(whole)
    expected = whole.scores(query, window).clone()
    monkeypatch.setattr("eddy.models.scoring.item_matrix.ITEM_TILE", 1024)
    tiled = large_scorer("float32")
    torch.testing.assert_close(tiled.scores(query, window), expected, atol=1e-4, rtol=1e-4)
    index, _ = tiled.topk(query, window, 10)
    assert index.tolist() == expected_topk(expected, 10)[0].tolist()


@pytest.fixture(params=["everything", "no sparse parts", "no popularity", "everything, on any device"])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    """A recommender with random weights, 60 items of which 40 in the vocabulary, and counted statistics."""
    choices: dict[str, dict[str, object]] = {
        "everything": {},
        "no sparse parts": {"pointer": False, "transition_lags": 0},
        "no popularity": {"half_lives_ms": ()},
    }
    name, *device = request.param.split(", ")
    parts = choices[name]
    torch.manual_seed(1)
    config = ModelConfig.from_dict(
        {"hidden": 16, "dim": 8, "recent_window": WIDTH, "transition_lags": 3, **parts}
    )
    vocabulary = Vocabulary([f"item-{i}" for i in range(40)], ["view"], config.item_buckets)
    recommender = Recommender(config, 40, 1).eval().requires_grad_(False)
    for parameter in recommender.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.3)
    catalogue = Catalogue(np.concatenate([vocabulary.hashes, np.arange(1, 21, dtype=np.uint64)]))
    statistics = Statistics(config.half_lives_ms, config.successors)
    rng = np.random.default_rng(2)
    item, earlier = rng.integers(60, size=500), rng.integers(-1, 60, (500, 3))
    statistics.count_events(0, item[:300], np.full(300, NOW - DAY_MS), earlier[:300])
    statistics.count_events(1, item[300:], np.full(200, NOW - 1000), earlier[300:])
    scorer = Scorer(recommender, vocabulary, catalogue, statistics)
    if device:
        as_on_any_device(scorer)
    scorer.update_statistics(NOW)
    return scorer


def as_on_any_device(scorer: Scorer) -> None:
    """What a GPU runs, on the CPU."""
    scorer.compiled = False
    scorer.update_statistics(NOW)


def random_users(scorer: Scorer) -> tuple[Query, Window]:
    torch.manual_seed(4)
    length = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6, 6])
    filled = torch.arange(WIDTH) < length[:, None]
    item = torch.where(filled, torch.randint(60, (USERS, WIDTH)), -1)
    item[8] = 7  # one user who only ever took one item
    time = torch.where(filled, NOW - torch.arange(WIDTH, 0, -1) * 60_000, 0)
    state = torch.randn(USERS, scorer.recommender.state_size) * 0.5
    state[0] = 0
    first = item[:, :1]  # is both in the window and before it
    others = torch.stack([torch.randperm(60)[:4] for _ in range(USERS)])
    older = torch.cat([first, torch.where(others == first, -1, others)], dim=1)
    older = torch.where(torch.arange(5) < (length[:, None] - 1), older, -1)
    types = torch.zeros(USERS, WIDTH, dtype=torch.int64)
    window = Window(item, time, types, torch.zeros_like(filled), length, older)
    idle = torch.where(length > 0, 60_000, -1)
    return scorer.recommender.query(state, idle), window


def formula(scorer: Scorer, query: Query, window: Window) -> torch.Tensor:
    """The mixture's formula in float64, item by item, without tricks."""
    recommender = scorer.recommender
    mixture, matrix = recommender.mixture, scorer.matrix.double()
    dense = query.vector.double() @ matrix.T
    scores = dense.clone()
    damping = boost = torch.zeros(len(matrix), dtype=torch.float64)
    if scorer.recommender.config.half_lives_ms and mixture.lags:
        log_share = matrix[:, recommender.config.dim + 1 + 5]  # the longest half-life is the last
        damping, boost = mixture.damping * (-7 - log_share), mixture.boost * (log_share + 7)
    for user in range(USERS):
        items = window.item[user, : window.length[user]].tolist()[::-1]
        times = window.timestamp[user, : window.length[user]].tolist()[::-1]
        gates = query.gates[user].clone()
        if mixture.pointer and items:
            repeats = [item in items[place + 1 :] for place, item in enumerate(items)]
            follows = [item == before for item, before in itertools.pairwise(items)]
            run = len(next(list(same) for _, same in itertools.groupby(items)))
            habits = [np.log1p(len(items)) / 4, np.mean(repeats), sum(follows) / len(items), repeats[0]]
            habits.append(np.log1p(run) / 2)
            gates += mixture.habit.weight @ torch.tensor(habits, dtype=torch.float32) + mixture.last_kind[0]
        t, p, shift = (torch.zeros(len(matrix), dtype=torch.float64) for _ in range(3))
        for place, (item, time) in enumerate(zip(items, times, strict=True)):
            age = times[0] - time + float(query.idle_ms[user])
            bucket = min(33, 1 + int(np.log2(1 + age / 1000)))
            if mixture.pointer:
                table = mixture.place[place] + mixture.age[bucket] + mixture.kind[0]
                again = item in items[:place]
                stays = gates[3] if item == items[0] else 0
                p[item] += torch.exp(table[0] + gates[1] + stays + (mixture.earlier if again else 0))
                if not again:
                    shift[item] = table[1] + gates[2]
            if place < mixture.lags:
                index, share = scorer.statistics.transitions(np.array([[item]]), NOW)
                weight = torch.exp(mixture.lag[place] + mixture.lag_age[bucket] + gates[0] + boost[item])
                for successor, mass in zip(index[0, 0], share[0, 0], strict=True):
                    if successor >= 0:
                        t[successor] += weight * float(mass)
        for place, item in enumerate(window.older[user].tolist(), start=1):
            if mixture.pointer and item >= 0 and item not in items:
                table = mixture.older[int(np.log2(place))]
                p[item] = torch.exp(table[0] + gates[1])
                shift[item] = table[1] + gates[2]
        z = dense[user].exp().sum()
        scores[user] = torch.log((dense[user].exp() + z * t * damping.exp()) * shift.exp() + z * p)
    return scores


def test_scores_follow_the_formula(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    torch.testing.assert_close(
        scorer.scores(query, window).double(), formula(scorer, query, window), atol=1e-3, rtol=1e-3
    )


def test_scoring_twice_gives_the_same_scores(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    first = scorer.scores(query, window).clone()
    torch.testing.assert_close(scorer.scores(query, window), first, atol=0, rtol=0)


def test_warming_up_leaves_nothing_behind(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    before = scorer.scores(query, window).clone()
    scorer.update_statistics(NOW + DAY_MS)
    scorer.warm_up()
    scorer.update_statistics(NOW)
    torch.testing.assert_close(scorer.scores(query, window), before, atol=0, rtol=0)
    assert not scorer.catalogue.hashes[60:].size


def test_topk_and_ranks_agree_with_the_scores(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    query, window = random_users(scorer)
    scores = scorer.scores(query, window).clone()
    monkeypatch.setattr(
        "eddy.models.scoring.scorer.TILE_FLOATS", 60 * 4
    )  # four users per tile: the last tile is smaller
    index, value = scorer.topk(query, window, 10)
    wanted, wanted_value = expected_topk(scores, 10)
    torch.testing.assert_close(value, wanted_value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(index, wanted)
    target = torch.randint(60, (USERS,))
    own, above = scorer.ranks(query, window, target)
    torch.testing.assert_close(own, scores.gather(1, target[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    assert above.tolist() == [
        int((scores[u] >= scores[u, t]).sum()) - 1 for u, t in enumerate(target.tolist())
    ]


@pytest.mark.parametrize("k", [1, 15, 16, 17, 59, 60, 100])
def test_lists_may_be_as_long_as_the_catalogue(scorer: Scorer, k: int) -> None:
    """16 is a quarter of the padded catalogue, as many as there are maxima; one of them is -inf."""
    query, window = random_users(scorer)
    nothing = torch.zeros(0, dtype=torch.int64)
    exclude = Exclude(nothing, nothing, everywhere=torch.tensor([3, 19, 35, 51]))
    index, score = scorer.topk(query, window, k, exclude)
    wanted, wanted_score = expected_topk(scorer.scores(query, window, exclude), k)
    assert index[:, : wanted.shape[1]].tolist() == wanted.tolist()
    torch.testing.assert_close(score[:, : wanted.shape[1]], wanted_score, atol=1e-5, rtol=1e-5)


def test_ties_count_against_the_target(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    nothing = Query(torch.zeros_like(query.vector), torch.full_like(query.gates, -100.0), query.idle_ms)
    empty = Window(*(part.clone() for part in window))
    empty.length.zero_()
    empty.older.fill_(-1)
    _, above = scorer.ranks(nothing, empty, torch.arange(1, 1 + USERS))
    assert above.tolist() == [59] * USERS


def test_disliked_and_excluded_items_are_never_recommended(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    window.negative[5, 0] = True
    exclude = Exclude(torch.tensor([2, 2, 6]), torch.tensor([0, 59, 30]))
    index, score = scorer.topk(query, window, 60, exclude)
    assert window.item[5, 0] not in index[5][score[5] > -torch.inf]
    assert not {0, 59} & set(index[2].tolist())
    assert 30 not in index[6]
    assert (index[2] >= 0).sum() == 58
    assert index[2, 58:].tolist() == [-1, -1]


def test_an_item_never_trained_on_can_be_recommended(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    assert (scorer.topk(query, window, 60)[0] >= 40).any()


def test_items_that_arrive_are_ranked_after_a_refresh(scorer: Scorer) -> None:
    query, window = random_users(scorer)
    before = scorer.scores(query, window).shape[1]
    scorer.catalogue.add(np.array([999, 1000], np.uint64))
    assert scorer.scores(query, window).shape[1] == before
    scorer.update_statistics(NOW)
    assert scorer.scores(query, window).shape[1] == before + 2
