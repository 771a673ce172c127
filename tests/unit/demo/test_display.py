"""The demo tells where its live page is, on a screen and in plain lines."""

from __future__ import annotations

import io

from rich.console import Console

from eddy.demo.board import Board
from eddy.demo.display import display, picture
from tests.support.waiting import eventually

ADDRESS = "http://127.0.0.1:8000/"


def test_the_page_s_address_is_shown_as_soon_as_it_is_known() -> None:
    board, shown = Board(), Console(file=io.StringIO(), width=100)
    shown.print(picture(board))
    assert "live" not in shown.file.getvalue()  # type: ignore[attr-defined]
    board.page = ADDRESS
    shown.print(picture(board))
    assert ADDRESS in shown.file.getvalue()  # type: ignore[attr-defined]


def test_where_there_is_no_screen_it_is_a_line_of_its_own() -> None:
    board, written = Board(), io.StringIO()
    with display(board, Console(file=written, width=100)):
        board.page = ADDRESS
        eventually(lambda: f"watch it live: {ADDRESS}\n" in written.getvalue())
    assert written.getvalue().count(ADDRESS) == 1
