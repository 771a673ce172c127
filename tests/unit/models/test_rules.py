"""Event rules: which events move the state, which are targets, which are negative."""

import numpy as np
import pytest

from eddy.models.errors import EddyError
from eddy.models.rules import EVERY_EVENT, MOVES, NEGATIVE, TARGET, EventRules, Flags

NONE = float("nan")


def flags(rules: EventRules, *events: tuple[str, float]) -> Flags:
    types = sorted({name for name, _ in events})
    index = np.array([types.index(name) for name, _ in events], np.int16)
    return rules.flags(types, index, np.array([value for _, value in events], np.float32))


def test_by_default_every_event_moves_the_state_and_low_ratings_and_removals_are_negative() -> None:
    said = flags(EventRules(), ("view", NONE), ("rating", 2), ("rating", 3), ("remove", NONE), ("dislike", 1))
    assert said.moves.all()
    assert said.negative.tolist() == [False, True, False, True, True]
    assert said.target.tolist() == [True, False, True, False, False]


def test_a_rating_without_value_is_not_a_low_rating() -> None:
    assert not flags(EventRules(), ("rating", NONE)).negative.any()


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("rating<3", [True, False, False]),
        ("rating <= 3", [True, True, False]),
        ("rating>3", [False, False, True]),
        ("rating>=3.0", [False, True, True]),
    ],
)
def test_comparisons(clause: str, expected: list[bool]) -> None:
    events = [("rating", 2.0), ("rating", 3.0), ("rating", 4.0)]
    assert flags(EventRules(negative=clause), *events).negative.tolist() == expected


def test_types_may_contain_spaces_and_only_named_ones_are_targets() -> None:
    rules = EventRules(target="clickout item", state="*", negative="")
    assert flags(rules, ("clickout item", NONE), ("view", NONE)).target.tolist() == [True, False]


def test_any_type_is_a_star_and_no_type_the_empty_rule() -> None:
    said = flags(EventRules(state="", target="*>=2", negative=""), ("a", 1), ("b", 2))
    assert said.moves.tolist() == [False, False]
    assert said.target.tolist() == [False, True]


def test_for_plain_logs_every_event_counts() -> None:
    said = flags(EVERY_EVENT, ("rating", 1), ("remove", NONE))
    assert said.target.all()
    assert said.moves.all()
    assert not said.negative.any()


@pytest.mark.parametrize(
    ("rules", "types"),
    [
        (EventRules(), "rating dislike remove"),
        (EVERY_EVENT, ""),
        (
            EventRules(state="view,rating>=-1", target="*<=2,view", negative="rating<3,hide"),
            "view rating hide",
        ),
        (EventRules(target="like,love,buy>1", negative="hide,no,buy<0"), "like love buy hide no"),
    ],
)
def test_the_table_says_of_every_value_of_16_bits_what_the_rules_say(rules: EventRules, types: str) -> None:
    value = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    table, row_of = rules.table()
    assert set(row_of) == set(types.split())
    for name in [*row_of, "something else"]:
        row = table[row_of.get(name, -1)]
        expected = rules.flags([name], np.zeros(len(value), np.int16), value)
        assert ((row & MOVES) > 0).tolist() == expected.moves.tolist()
        assert ((row & TARGET) > 0).tolist() == expected.target.tolist()
        assert ((row & NEGATIVE) > 0).tolist() == expected.negative.tolist()


@pytest.mark.parametrize("number", ["4.2", "9.99", "2049", "-0.1", "1e-9", "1e6", "1e400"])
@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">="])
def test_a_value_that_a_rule_names_is_judged_in_training_as_in_the_stream(
    comparison: str, number: str
) -> None:
    """Logs have values as float32 or with more digits, rows as float16."""
    rules = EventRules(negative=f"rating{comparison}{number}")
    value = np.float32(min(float(number), 65_504.0))
    table, row_of = rules.table()
    of_row = table[row_of["rating"], value.astype(np.float16).view(np.uint16)]
    (in_training,) = flags(rules, ("rating", float(value))).negative.tolist()
    assert in_training == ((of_row & NEGATIVE) > 0)
    if float(number) <= 65_504.0:
        assert in_training == ("=" in comparison), "a value is neither below nor above itself"
    else:
        assert in_training == ("<" in comparison)


def test_types_of_which_the_rules_say_the_same_share_a_row_of_the_table() -> None:
    pages = [f"page_{i}" for i in range(2_000)]
    table, row_of = EventRules(target=",".join(pages), negative="page_7<3,page_9<3,dislike").table()
    assert len(table) == 4, "pages, pages with a comparison, dislike, every other type"
    assert len(row_of) == 2_001
    assert row_of["page_7"] == row_of["page_9"] != row_of["page_8"] == row_of["page_0"]


@pytest.mark.parametrize("wrong", ["rating<", "<5", "rating<low", "rating=5", "rating<1<2"])
def test_a_rule_that_cannot_be_read_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(EddyError, match=f"'negative'.*{wrong}"):
        EventRules(negative=wrong)
