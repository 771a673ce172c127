"""Training that begins from a version's weights: what is taken over, what is new, what may be held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eddy.models.config import TrainConfig
from eddy.models.descriptions import UNTIL
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hashes
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures, bags
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT
from eddy.models.trained import Trained
from eddy.models.training.distributed import ALONE
from eddy.models.training.feature_phase import FEATURE_WEIGHT
from eddy.models.training.group_log import GroupLog
from eddy.models.training.train import _held_out, extend, train
from eddy.models.training.trainer import Progress
from eddy.models.training.warm_start import grown, may_begin_from, unseen_row
from eddy.models.vocabulary import Vocabulary
from tests.support.training import FAST, SMALL, random_log, same
from tests.support.walks import in_a_row, walks

pytestmark = pytest.mark.unit

LEARNS = replace(FAST, epochs=4, learning_rate=0.02, sampled=0)
BEFORE = walks(20, 20)
AFTER = walks(20, 20, steps=(2, 3, 11), first_round=20)


def random_parent(features: int = 0) -> Trained:
    """Random weights of five items, two types and, if wanted, features."""
    torch.manual_seed(0)
    config = replace(SMALL, features=features)
    recommender = Recommender(config, 5, 2).eval()
    with torch.no_grad():
        for parameter in recommender.parameters():
            parameter.copy_(torch.randn_like(parameter))
        if features:
            recommender.feature_centre.normal_()
    vocabulary = Vocabulary(list("abcde"), ["view", "buy"], SMALL.item_buckets, range(100, 100 + features))
    return Trained(recommender, vocabulary, EVERY_EVENT)


def test_rows_of_items_and_types_follow_their_names() -> None:
    parent = random_parent()
    vocabulary = Vocabulary(list("xeca"), ["buy", "like", "view"], SMALL.item_buckets)
    child = grown(parent, vocabulary, SMALL, ItemFeatures())
    old, new = parent.recommender, child
    places = [list("abcde").index(name) for name in "eca"]
    assert torch.equal(new.item_vectors[1:4], old.item_vectors[places])
    assert torch.equal(new.item_bias[1:], old.item_bias[places])
    # Buckets are at the end of both.
    assert torch.equal(new.item_vectors[4:], old.item_vectors[5:])
    # A new item is scored as the parent scores new items; a new type is as an unknown one.
    assert torch.equal(new.item_vectors[0], old.new_vector)
    assert torch.equal(new.item_bias[0], old.new_bias)
    for name in ("type_vectors", "mixture.kind", "mixture.last_kind"):
        assert torch.equal(new.get_parameter(name), old.get_parameter(name)[[1, 2, 0, 2]])
    # All else is as it was.
    for name, weight in old.named_parameters():
        if not name.startswith(("item_", "type_", "mixture.kind", "mixture.last_kind")):
            assert torch.equal(new.get_parameter(name), weight), name


def test_a_new_item_with_metadata_begins_where_the_parent_would_score_it() -> None:
    parent = random_parent(features=3)
    features = ItemFeatures()
    (new,) = item_hashes(["x"]).tolist()
    features.put(new, np.array([102, 100], np.uint64))
    vocabulary = Vocabulary(list("abcdex"), ["view", "buy"], SMALL.item_buckets, [102, 555])
    child = grown(parent, vocabulary, replace(SMALL, features=2), features)
    of_new = parent.recommender.of_features(bags(features.of(item_hashes(["x"])), parent.vocabulary.features))
    torch.testing.assert_close(child.item_vectors[5], parent.recommender.new_vector + of_new[0, :-1])
    torch.testing.assert_close(child.item_bias[5], parent.recommender.new_bias + of_new[0, -1])
    # Features that are known go on from what was learned, before it was weighed down.
    torch.testing.assert_close(
        child.feature_vectors[0], parent.recommender.feature_vectors[2] / FEATURE_WEIGHT
    )
    assert not child.feature_vectors[1].any()
    assert not child.feature_centre.any()


def test_another_dropout_is_no_other_model_and_another_size_is() -> None:
    assert may_begin_from(SMALL, replace(SMALL, dropout=0.3, features=9))
    assert not may_begin_from(SMALL, replace(SMALL, hidden=8))
    assert not may_begin_from(SMALL, replace(SMALL, half_lives_ms=(1000,)))
    with pytest.raises(EddyError, match="train from scratch"):
        grown(
            random_parent(), Vocabulary(list("ab"), ["view"], 4), replace(SMALL, cell="rnn"), ItemFeatures()
        )


def test_a_warm_start_begins_with_the_loss_where_its_parent_ended() -> None:
    parent = train(BEFORE, SMALL, LEARNS, EVERY_EVENT)

    def first_loss(parent: Trained | None) -> float:
        losses: list[float] = []

        def note(at: Progress) -> None:
            losses.append(at.loss)

        events = in_a_row(BEFORE, walks(20, 10, first_round=20))
        train(events, SMALL, replace(LEARNS, epochs=1), EVERY_EVENT, note, parent=parent)
        return losses[0]

    assert first_loss(parent) < 0.7 * first_loss(None)


def first_held_out(events: Events, share: float, unseen: int | None = None) -> int:
    return _held_out(GroupLog(events, ALONE), share, unseen)[1]


def test_only_what_the_parent_has_not_seen_is_held_out_and_at_most_half_of_it() -> None:
    events = random_log(n=1000)
    assert first_held_out(events, 0.1) == 900
    assert first_held_out(events, 0.1, unseen=500) == 900
    assert first_held_out(events, 0.1, unseen=950) == 975
    assert first_held_out(events, 0.1, unseen=1000) == 1000


def test_a_log_without_a_clock_cannot_tell_what_the_parent_has_seen() -> None:
    parent = random_parent()
    with pytest.raises(EddyError, match="train from scratch"):
        unseen_row(random_log(), parent)
    parent.metrics[UNTIL] = int(BEFORE.timestamp[-1])
    with pytest.raises(EddyError, match="train from scratch"):
        unseen_row(replace(BEFORE, clock=False), parent)
    assert unseen_row(in_a_row(BEFORE, AFTER), parent) == len(BEFORE)


def test_an_extended_version_has_learned_from_all_events_and_keeps_its_gates() -> None:
    parent = train(BEFORE, SMALL, LEARNS, EVERY_EVENT)
    events = in_a_row(BEFORE, AFTER)
    extended = extend(parent, events, LEARNS)
    assert extended.metrics[UNTIL] == int(AFTER.timestamp[-1])
    assert extended.metrics["events"] == len(events)
    assert parent.metrics["events"] == len(BEFORE)
    for name, weight in extended.recommender.named_parameters():
        is_gate = name.startswith(("gate_", "mixture", "trend", "new_"))
        if is_gate or name.startswith(("item_", "project", "cell")):
            assert is_gate == torch.equal(weight, parent.recommender.get_parameter(name)), name
    # What cannot be learned from leaves the weights as they are.
    unchanged = extend(parent, BEFORE, TrainConfig.from_dict({**LEARNS.to_dict(), "whole": 0.0}))
    assert same(unchanged, parent)
