"""The command line: the table of contents of the program. Each command is one short function, here or in a
file `…_commands.py` of `eddy/cli/`.

Guarantee: an error that a user can cause is one line on standard error and exit code 1; Ctrl-C is exit
code 130. Each command imports the heavy packages that it needs, so that the others start fast.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from eddy.cli.acls import acls
from eddy.cli.ending import end_process
from eddy.cli.error_lines import line_for_user
from eddy.cli.learning_commands import announce, compare, evaluate, figures, refresh, train
from eddy.cli.models_commands import commands as models
from eddy.cli.serving_commands import api_key, recommend, rules, serve
from eddy.cli.standard_streams import open_missing_streams
from eddy.cli.stream_commands import erase, export, ingest, repartition, replay, topics, worker
from eddy.models.openmp import let_waiting_threads_sleep

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="One recurrent hidden state per user, moved forward by every event on Kafka: "
    "what next, for whom, now.\n\n"
    "Start with `eddy demo`. Settings come from the environment (EDDY_*), for example "
    "EDDY_BOOTSTRAP_SERVERS=host:9092 to use your Kafka.",
)
app.add_typer(models, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eddy {version('eddy-streams')}")
        raise typer.Exit


@app.callback()
def every_command(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Options that need no command; the help of the program is above."""
    if not any(name.startswith("EDDY_") for name in os.environ):
        return
    from eddy.stream.records.settings import misspelt_settings  # takes half a second

    for variable, meant in misspelt_settings(os.environ).items():
        typer.echo(f"eddy: {variable} is no setting and has no effect; is {meant} meant?", err=True)


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up after the summary, or a failure, until Ctrl-C.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Run a short form with few events (for tests), whose figures say little."
        ),
    ] = False,
) -> None:
    """Run the whole system here, live.

    This takes some minutes. It starts a real Kafka, trains a recommender, replays real events, shows
    freshness, quality and throughput, exchanges the model while it runs, and writes demo-summary.json.

    Example: eddy demo
    """
    from eddy.demo.runner import run_demo
    from eddy.stream.records.settings import load_settings

    run_demo(load_settings(), keep=keep, quick=quick)


@app.command()
def broker(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port where clients connect.")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="The folder for its data [default: in your cache folder]")
    ] = None,
) -> None:
    """Run a real Kafka here, for development.

    It needs neither Docker nor Java. Ctrl-C ends it; its data stays.

    Example: eddy broker --port 9092
    """
    import signal

    from eddy.models.errors import EddyError
    from eddy.stream.local_kafka.broker import LocalBroker
    from eddy.stream.records.settings import load_settings

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = data or load_settings().cache_dir / "broker"
    if folder.exists() and not folder.is_dir():
        raise EddyError(f"{folder}: is no folder; the broker keeps its data in one")
    with LocalBroker(folder, port, progress=lambda line: typer.echo(line, err=True)) as running:
        typer.echo(
            f"Kafka answers. In other terminals: export EDDY_BOOTSTRAP_SERVERS={running.bootstrap_servers}"
        )
        running.wait()


app.command()(topics)
app.command()(worker)
app.command()(serve)
app.command()(recommend)
app.command()(rules)
app.command("api-key")(api_key)
app.command()(acls)
app.command()(train)
app.command()(refresh)
app.command()(announce)
app.command()(replay)
app.command()(ingest)
app.command()(repartition)
app.command()(export)
app.command()(erase)
app.command()(evaluate)
app.command()(compare)
app.command()(figures)


def run() -> NoReturn:
    """Run the command that `sys.argv` names; ends with SystemExit."""
    let_waiting_threads_sleep()
    try:
        app()
    except Exception as error:
        if (line := line_for_user(error)) is None:
            raise
        print(f"eddy: {line}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def main() -> NoReturn:
    """The console script: run a command, then end this process."""
    open_missing_streams()
    try:
        run()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            end_process(ended.code or 0)
        raise


if __name__ == "__main__":
    main()
