"""What several commands do: write log lines, show progress (plain lines where nobody watches), write
figures to a file, and make a version live.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from eddy.models.errors import EddyError
from eddy.models.plain_json import lines_of_json

if TYPE_CHECKING:
    from eddy.models.registry import Version
    from eddy.models.training.trainer import Progress as Training
    from eddy.stream.records.settings import Settings

LINE_EVERY_S = 2.0
"""Where nobody watches, progress is a line at most this often."""

_FAUST_S_TRANSPORT = "eddy.stream.worker.transport"
"""Faust logs under the name of the module that its consumer comes from."""

_QUIET = ("aiokafka", "asyncio", "faust", "httpx", "kafka", "mode", "uvicorn.access", _FAUST_S_TRANSPORT)

Show = Callable[[str, int, int], None]
"""(what, done, of)"""


def set_up_logging(log_format: str = "line") -> None:
    """Log Eddy's news and all packages' warnings, one line each, to standard error.

    log_format: "line" for people, or "json" for tools.
    """
    from eddy.cli.log_lines import new_handler

    logging.basicConfig(level=logging.WARNING, handlers=[new_handler(log_format)])
    logging.getLogger("eddy").setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def progress_bar(silent: bool = False) -> Iterator[Show]:
    """A bar that shows one task after the other; in a file or a pipe, lines instead. silent: neither."""
    if silent:
        yield lambda what, done, of: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda what, done, of: bars.update(bar, description=what, completed=done, total=of)


def _lines() -> Show:
    printed_at, last_line = -LINE_EVERY_S, ""

    def show(what: str, done: int, of: int) -> None:
        nonlocal printed_at, last_line
        line = f"{what} ({100 * done // max(of, 1)} %)"
        if line != last_line and (time.monotonic() - printed_at >= LINE_EVERY_S or done >= of):
            print(line, file=sys.stderr, flush=True)
            printed_at, last_line = time.monotonic(), line

    return show


def of_training(show: Show) -> "Callable[[Training], None]":
    """A callback for the trainer that shows its progress on a bar."""
    return lambda at: show(at.text, at.done, at.total)


def require_figures_file(path: Path | None) -> None:
    """Check that figures could be written to a file, if one is given, before the work that they tell of.

    Errors: EddyError when its folder is missing or refuses files, or when it is a folder.
    """
    if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise EddyError(f"{path}: no file could be written there; check the path and permissions")


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Figures as JSON, if a file is given for them. Errors: EddyError when it cannot be written."""
    if path is None:
        return
    try:
        path.write_text(lines_of_json(figures), encoding="utf-8")
    except OSError as error:
        raise EddyError(f"{path}: cannot be written ({error}); check space and permissions") from None


def make_live(settings: "Settings", versions: Sequence[tuple["Version", int]]) -> None:
    """Make versions live, each for its percent of the users, and print their epoch to standard error. Errors:
    EddyError.
    """
    from eddy.stream import announce

    announcement = announce.make_live(settings, versions)
    named = ", ".join(
        share.version if share.percent == 100 else f"{share.version} ({share.percent} %)"
        for share in announcement.every_share
    )
    print(
        f"{named} {'are' if announcement.shares else 'is'} live as epoch {announcement.epoch}",
        file=sys.stderr,
    )


def read_shares(arguments: Sequence[str]) -> list[tuple[str, int]]:
    """Version ids and percents from arguments of the form VERSION=PERCENT, or from one VERSION alone.

    Errors: EddyError naming the argument.
    """
    if len(arguments) == 1 and "=" not in arguments[0]:
        return [(arguments[0], 100)]
    shares = []
    for argument in arguments:
        version, _, percent = argument.partition("=")
        if not version or not (percent.isascii() and percent.isdigit() and 1 <= int(percent) <= 100):
            raise EddyError(
                f"announce: {argument!r} is not VERSION=PERCENT with a whole percent of 1 to 100; several "
                "versions need a share each"
            )
        shares.append((version, int(percent)))
    return shares
