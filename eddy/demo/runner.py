"""`eddy demo`: sets up a run and reports at its end; flow.py holds the run itself."""

import asyncio
import os

from rich.console import Console

from eddy.demo.board import Board
from eddy.demo.children import Children
from eddy.demo.data import EVENTS_FILE, ITEMS_FILE
from eddy.demo.display import display
from eddy.demo.feed import MALFORMED
from eddy.demo.flow import Flow
from eddy.demo.inherited import environment, left_out
from eddy.demo.plan import FULL, QUICK
from eddy.demo.resources import run_folder, run_topics
from eddy.demo.summary import FILE, Summary
from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events, read_items
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.local_kafka.disk import require_disk
from eddy.stream.records.settings import Settings, variable_of

_FREE_BYTES = 2 << 30
"""So much room the cache's disk must have."""


def run_demo(settings: Settings, keep: bool = False, quick: bool = False) -> None:
    """Run the demo to its end; every process that it starts ends with it.

    keep: stay up after the report, or after a failure with what still runs, until Ctrl-C. quick: the short
    form for tests. Errors: EddyError when something fails, and when the demo ran to its end but a promise
    does not hold; with `keep` only when no process is left.
    """
    plan = QUICK if quick else FULL
    console, board = Console(), Board()
    events, items = read_events(EVENTS_FILE), read_items(ITEMS_FILE)
    require_disk(settings.cache_dir, _FREE_BYTES)
    if unused := left_out(settings):
        names = ", ".join(variable_of(name) for name in unused)
        console.print(
            f"The demo has settings of its own in place of {names}", soft_wrap=True, highlight=False
        )

    def report(summary: Summary, paced: int) -> None:
        console.print(summary.table())
        console.print(f"These figures: {FILE.absolute()}", soft_wrap=True, highlight=False)
        failures = summary.failures(len(MALFORMED), paced)
        if failures:
            raise EddyError(f"the demo ran to its end, but: {'; '.join(failures)}")

    def tell(failure: str) -> None:
        console.print(f"Failed: {failure}", soft_wrap=True, highlight=False, markup=False)

    with (
        run_folder(settings.cache_dir) as folder,
        display(board, console),
        broker_or_local(settings, board.say) as servers,
        run_topics(settings, servers, folder) as run_settings,
        Children(folder, environment(settings, run_settings, os.environ)) as children,
    ):
        asyncio.run(Flow(run_settings, plan, board, children, events, items).run(report, keep, tell))
