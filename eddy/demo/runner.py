"""`eddy demo`: what is set up around a run, and the report at its end; flow.py is what lies between."""

import asyncio

from rich.console import Console

from eddy.demo.board import Board
from eddy.demo.children import Children
from eddy.demo.data import EVENTS_FILE, ITEMS_FILE
from eddy.demo.display import display
from eddy.demo.feed import MALFORMED
from eddy.demo.flow import Flow
from eddy.demo.place import environment, own_topics, run_folder
from eddy.demo.plan import FULL, QUICK
from eddy.demo.summary import FILE, Summary
from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events, read_items
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.local_kafka.disk import require_disk
from eddy.stream.records.settings import Settings

_FREE_BYTES = 2 << 30


def run_demo(settings: Settings, keep: bool = False, quick: bool = False) -> None:
    """Run the demo to its end; every process that it starts ends with it.

    Errors: EddyError when something fails, or when the demo ran to its end but a promise does not hold.
    """
    plan = QUICK if quick else FULL
    console, board = Console(), Board()
    events, items = read_events(EVENTS_FILE), read_items(ITEMS_FILE)
    require_disk(settings.cache_dir, _FREE_BYTES)

    def report(summary: Summary, paced: int) -> None:
        console.print(summary.table())
        console.print(f"These figures: {FILE.absolute()}", soft_wrap=True, highlight=False)
        failures = summary.failures(len(MALFORMED), paced)
        if failures:
            raise EddyError(f"the demo ran to its end, but: {'; '.join(failures)}")

    with (
        run_folder(settings.cache_dir) as folder,
        display(board, console),
        broker_or_local(settings, board.say) as servers,
        own_topics(settings, servers, folder) as own,
        Children(folder, environment(own)) as children,
    ):
        asyncio.run(Flow(own, plan, board, children, events, items).run(report, keep))
