"""How a question is read from a URL, and where the server can listen."""

from __future__ import annotations

import re

import pytest
from starlette.datastructures import QueryParams

from models.errors import EddyError
from serving.app import QuestionError, listen, parse_question
from serving.recommend import Question
from stream.settings import load_settings


def parse(query: str, user_id: str = "u") -> Question:
    return parse_question(user_id, QueryParams(query), load_settings(k=7, exclude_seen=True))


def test_what_is_not_asked_for_comes_from_the_settings() -> None:
    assert parse("") == Question("u", 7, True, ())


def test_all_filters() -> None:
    asked = parse("k=1000&exclude_seen=FALSE&exclude=a&exclude=b%2Fc")
    assert asked == Question("u", 1000, False, ("a", "b/c"))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("k=0", "k must be a whole number from 1 to 1000, not '0'"),
        ("k=1001", "from 1 to 1000"),
        ("k=-1", "from 1 to 1000"),
        ("k=ten", "not 'ten'"),
        ("k=", "not ''"),
        ("k=" + "9" * 5000, "from 1 to 1000"),
        ("k=²", "from 1 to 1000"),
        ("exclude_seen=perhaps", "exclude_seen must be true or false, not 'perhaps'"),
        ("exlude=a", "unknown parameter 'exlude'; there are k, exclude_seen, exclude"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(query: str, why: str) -> None:
    with pytest.raises(QuestionError, match=re.escape(why)) as refused:
        parse(query)
    assert "\n" not in str(refused.value)


def test_an_empty_user_is_refused() -> None:
    with pytest.raises(QuestionError, match="user_id is empty"):
        parse("", user_id="")


def test_a_taken_port_is_one_line_that_names_the_setting() -> None:
    with listen(load_settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(EddyError, match=f"port {port}: .*EDDY_PORT"):
            listen(load_settings(port=port))
