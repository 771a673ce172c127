"""The demo on the screen: a live picture in a terminal, plain lines everywhere else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eddy.demo.board import Board

LINE_EVERY_S = 10.0


@contextmanager
def display(board: Board, console: Console) -> Iterator[None]:
    """Show the board while the block runs."""
    if console.is_terminal:
        with Live(
            get_renderable=lambda: picture(board), console=console, refresh_per_second=4, transient=True
        ):
            yield
        return
    ended = threading.Event()
    lines = threading.Thread(target=_print_lines, args=(board, console, ended), daemon=True)
    lines.start()
    try:
        yield
    finally:
        ended.set()
        lines.join()


def picture(board: Board) -> RenderableType:
    """The board as one screen."""
    parts: list[RenderableType] = [_head(board)]
    if board.page:
        parts.append(Text(f"Watch it live: {board.page}", "bold cyan"))
    if board.quality or board.epoch:
        parts.append(_figures(board))
    watched = board.watched
    if watched is not None and watched.shown:
        text = Text()
        for number, title in enumerate(watched.shown, 1):
            text.append(f"{number:2}. {title}\n", "bold green" if title in watched.new else "")
        parts.append(Panel(text, title=f"user {watched.user}: what next?", title_align="left"))
    if board.url:
        parts.append(Text(f"Open {board.url}", "cyan"))
    return Group(*parts)


def _head(board: Board) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    seconds = time.monotonic() - board.started
    table.add_row(Text(f"{int(seconds // 60)}:{int(seconds % 60):02}"), Text(board.phase, "bold"))
    if board.of:
        table.add_row("", ProgressBar(board.of, board.done, width=60))
    table.add_row("", Text(board.note, "dim"))
    return table


def _figures(board: Board) -> RenderableType:
    table = Table(box=None, header_style="dim")
    for name in ("events/s", "waiting", "applied", "model", "Recall@20", "MRR@20"):
        table.add_column(name, justify="right")
    quality = board.quality
    model = f"epoch {board.epoch}" + (f", {board.stale_rows} rows to go" if board.stale_rows else "")
    table.add_row(
        f"{board.rate:,.0f}", f"{board.lag:,}", f"{board.applied:,}", model,
        _share(quality, "recall_at_20"), _share(quality, "mrr_at_20"),
    )  # fmt: skip
    table.add_row(
        "", "", "", Text("decayed popularity", "dim"),
        Text(_share(quality, "popularity_recall_at_20"), "dim"),
        Text(_share(quality, "popularity_mrr_at_20"), "dim"),
    )  # fmt: skip
    return table if not board.refresh else Group(table, Text(f"second version: {board.refresh}", "magenta"))


def _share(quality: dict[str, float], name: str) -> str:
    return f"{quality[name]:.4f}" if name in quality else "–"


def line(board: Board) -> str:
    """The board as one line."""
    seconds = time.monotonic() - board.started
    parts = [f"[{int(seconds // 60)}:{int(seconds % 60):02}] {board.phase}"]
    if board.of:
        parts.append(f"{min(100, 100 * board.done / board.of):.0f} %")
    if board.note:
        parts.append(board.note)
    if board.epoch:
        parts.append(f"{board.rate:,.0f} events/s, {board.lag:,} waiting, epoch {board.epoch}")
    if board.quality:
        ours, theirs = (_share(board.quality, f"{who}recall_at_20") for who in ("", "popularity_"))
        parts.append(f"Recall@20 {ours} (decayed popularity {theirs})")
    if board.refresh:
        parts.append(f"second version: {board.refresh}")
    if board.watched is not None and board.watched.shown:
        parts.append(f"user {board.watched.user}: {'; '.join(board.watched.shown[:3])} …")
    return " · ".join(parts)


def _print_lines(board: Board, console: Console, ended: threading.Event) -> None:
    last_phase, last_page, printed_at = "", "", 0.0
    while not ended.wait(0.2):
        if board.page != last_page:
            console.out(f"watch it live: {board.page}", highlight=False)
            last_page = board.page
        if board.phase != last_phase or time.monotonic() - printed_at >= LINE_EVERY_S:
            console.out(line(board), highlight=False)
            last_phase, printed_at = board.phase, time.monotonic()
