"""The command line: one short function per command, the table of contents of the program.

Guarantee: an error that a user can cause is one line on standard error and exit code 1; Ctrl-C is exit
code 130. Each command imports the heavy packages that it needs, so that the others start fast.
"""

import asyncio
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from eddy.cli.acls import acls
from eddy.cli.ending import end_process
from eddy.cli.error_lines import line_for_user
from eddy.cli.models_commands import commands as models
from eddy.cli.options import EventsFile, ItemsFile, Json, Mode, Protocol, Registry, Set, TimeUnit
from eddy.cli.serving_commands import api_key, recommend, rules, serve
from eddy.models.errors import EddyError

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


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up after the summary, until Ctrl-C.")] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Run a short form with few events (for tests), whose figures say little."
        ),
    ] = False,
) -> None:
    """Run the whole system here, live.

    This takes about five minutes. It starts a real Kafka, trains a recommender, replays real events, shows
    freshness, quality and throughput, exchanges the model while it runs, and writes demo-summary.json.

    Example: eddy demo
    """
    from eddy.demo.runner import run_demo
    from eddy.stream.records.settings import load_settings

    run_demo(load_settings(), keep=keep, quick=quick)


@app.command()
def broker(
    port: Annotated[int, typer.Option(help="The port where clients connect.")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="The folder for its data [default: in your cache folder]")
    ] = None,
) -> None:
    """Run a real Kafka here, for development.

    It needs neither Docker nor Java. Ctrl-C ends it; its data stays.

    Example: eddy broker --port 9092
    """
    import signal

    from eddy.stream.local_kafka.broker import LocalBroker
    from eddy.stream.records.settings import load_settings

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = data or load_settings().cache_dir / "broker"
    with LocalBroker(folder, port, progress=lambda line: typer.echo(line, err=True)) as running:
        typer.echo(
            f"Kafka answers. In other terminals: export EDDY_BOOTSTRAP_SERVERS={running.bootstrap_servers}"
        )
        running.wait()


@app.command()
def topics() -> None:
    """Create the topics that are missing, and check the others.

    Workers do so as well when they start; this is for a deployment in which only an administrator may create
    topics.

    Example: EDDY_PARTITIONS=64 EDDY_REPLICATION=3 eddy topics
    """
    from eddy.stream.kafka.topics import prepare_topics, topic_specs
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    prepare_topics(settings)
    for spec in topic_specs(settings):
        typer.echo(f"{spec.name}: {spec.partitions} partitions")


@app.command()
def worker() -> None:
    """Follow `events` and answer on `recommendations`.

    A worker keeps the state of every user of its partitions; start more workers to share the work.

    Example: EDDY_BOOTSTRAP_SERVERS=localhost:9092 eddy worker
    """
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings
    from eddy.stream.worker.app import run_worker

    settings = load_settings()
    set_up_logging(settings.log_format)
    asyncio.run(run_worker(settings))


app.command()(serve)
app.command()(recommend)
app.command()(rules)
app.command("api-key")(api_key)
app.command()(acls)


@app.command()
def train(
    events: EventsFile,
    registry: Registry = None,
    cell: Annotated[str, typer.Option(help="rnn, lstm, gru, esn or mingru")] = "gru",
    items: ItemsFile = None,
    set_: Set = None,
    time_unit: TimeUnit = "auto",
    announce: Annotated[bool, typer.Option("--announce", help="Make it live afterwards.")] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Save every epoch to this file, from which the same command goes on after a kill."),
    ] = None,
    json_: Json = None,
) -> None:
    """Train a model version on an event log.

    It learns by backpropagation through time. The version is a new folder in the registry; its path is
    printed. On several GPUs or machines: torchrun --nproc-per-node 4 -m eddy train …

    Example: eddy train --events events.parquet --registry registry --cell gru
    """
    from eddy.cli.learning import train_and_publish
    from eddy.stream.records.settings import load_settings

    settings = load_settings(registry=registry)
    train_and_publish(
        settings, events, time_unit, items, cell, set_ or [], checkpoint, figures=json_, announce=announce
    )


@app.command()
def refresh(
    registry: Registry = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="A log that another tool writes, as for `eddy train` [default: Eddy's own, exported first]"
        ),
    ] = None,
    items: ItemsFile = None,
    time_unit: TimeUnit = "auto",
    cell: Annotated[str | None, typer.Option(help="[default: that of the live version]")] = None,
    set_: Set = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Do not begin from the live version's weights.")
    ] = False,
    candidate: Annotated[
        str | None, typer.Option(help="Judge this version of the registry instead of training one.")
    ] = None,
    gate: Annotated[
        str,
        typer.Option(
            help="not-worse: than the live version, beyond noise; better: than it, beyond noise. Either way "
            "it has to be better than decayed popularity."
        ),
    ] = "not-worse",
    metric: Annotated[str, typer.Option(help="What it has to be better by, such as recall@20.")] = "mrr@20",
    least_events: Annotated[
        int, typer.Option(min=1, help="With fewer new events there is nothing to do yet.")
    ] = 1_000,
    canary: Annotated[
        str | None, typer.Option(help="Let so many of the users try it first, for example 10%.")
    ] = None,
    for_: Annotated[
        str, typer.Option("--for", help="How long they try it at most; then it stays unless it is worse.")
    ] = "2h",
    every: Annotated[
        str | None, typer.Option(help="Go on, with a refresh every 6h (or 90s, 15m, 2d), until Ctrl-C.")
    ] = None,
    on_drift: Annotated[
        bool, typer.Option("--on-drift", help="Go on, with a refresh when live MRR@20 has fallen for good.")
    ] = False,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write what Prometheus' textfile collector reads (NAME.prom).")
    ] = None,
) -> None:
    """Train a version on the newest events, and make it live if it is good enough.

    It is judged beside the live version on events that neither has seen. Killed, the same command goes on
    where it was. Exit code 0: a new version is live; 3: it was not good enough, or too little is new.

    Example: eddy refresh --every 6h

    Example: eddy refresh --canary 10% --for 2h

    Example: eddy refresh --events event-log --set hidden=256 --gate better
    """
    from eddy.cli.quantities import read_duration, read_percent
    from eddy.cli.refresh import run_refresh
    from eddy.cli.terminal import set_up_logging
    from eddy.refresh.options import RefreshOptions, gate_rule, metric_of
    from eddy.stream.records.settings import load_settings

    settings = load_settings(registry=registry)
    set_up_logging(settings.log_format)
    options = RefreshOptions(
        events=events, time_unit=time_unit, items=items, cell=cell, assignments=tuple(set_ or ()),
        from_scratch=from_scratch, gate=gate_rule(gate), metric=metric_of(metric), candidate=candidate,
        canary_percent=read_percent(canary, "--canary") if canary else None,
        canary_s=read_duration(for_, "--for"), least_events=least_events,
    )  # fmt: skip
    raise typer.Exit(run_refresh(settings, options, every, on_drift, metrics_file))


@app.command()
def announce(
    versions: Annotated[
        list[str] | None,
        typer.Argument(help="A version's id [default: the newest], or VERSION=PERCENT of several"),
    ] = None,
    registry: Registry = None,
) -> None:
    """Make a version the live one, or give shares of the users to several.

    Workers and servers move to it without stopping. This is also the way back to an older version.

    Example: eddy announce v000007-1a2b3c4d

    Example: eddy announce v000007-1a2b3c4d=90 v000008-5e6f7a8b=10
    """
    from eddy.cli.terminal import make_live, read_shares
    from eddy.models.registry import latest, load
    from eddy.stream.records.settings import load_settings

    settings = load_settings(registry=registry)
    shares = [(load(settings.registry / id_), percent) for id_, percent in read_shares(versions or [])]
    make_live(settings, shares or [(latest(settings.registry), 100)])


@app.command()
def replay(
    events: EventsFile,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Events per second [default: as fast as it goes]")
    ] = None,
    time_unit: TimeUnit = "auto",
) -> None:
    """Write an event log into `events`.

    The events are written in time order. This needs a running Kafka.

    Example: eddy replay --events events.csv --rate 100
    """
    from eddy.cli.terminal import progress_bar
    from eddy.models.logs.events import read_events
    from eddy.stream.feed import feed
    from eddy.stream.kafka.topics import prepare_topics
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    log = read_events(events, time_unit)
    prepare_topics(settings, "replay")
    with progress_bar() as show:
        sent = asyncio.run(feed(settings, log, rate, lambda done: show("replaying", done, len(log))))
    typer.echo(f"{sent} events written to {settings.topics.events}")


@app.command()
def ingest(
    topic: Annotated[str, typer.Option(help="Your topic of JSON objects, whatever its keys and partitions.")],
    fields: Annotated[
        str, typer.Option("--map", help="user_id=…,item_id=…,timestamp=…[,event_type=…,value=…,event_id=…]")
    ],
    event_type: Annotated[str, typer.Option("--type", help="Type of records without one.")] = "interaction",
    time_unit: Annotated[str, typer.Option(help="The timestamp's unit: ms, s or iso (ISO 8601).")] = "ms",
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop where the topic ends now.")] = False,
) -> None:
    """Bring a topic of yours onto `events`.

    No record is lost, and a crash writes none twice. Dots in field names lead into nested objects.

    Example: eddy ingest --topic clicks --map user_id=user.id,item_id=sku,timestamp=ts --type view
    """
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.ingest.ingest import ingest as ingest_topic
    from eddy.stream.ingest.mapping import parse_map
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    set_up_logging(settings.log_format)
    mapping = parse_map(fields, time_unit, event_type, settings.earliest_event)
    counts = asyncio.run(ingest_topic(settings, topic, mapping, until_end))
    typer.echo(f"{counts.written} events written, {counts.rejected} dead letters, {counts.known} known")


@app.command()
def repartition(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="The new number of partitions.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it instead of only saying what would happen.")
    ] = False,
) -> None:
    """Change the partition count of `events`.

    Stop all workers first. States, statistics and unread events are moved along. If the command is killed,
    run it again.

    Example: eddy repartition --partitions 8 --yes
    """
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings
    from eddy.stream.repartition.repartition import preview
    from eddy.stream.repartition.repartition import repartition as repartition_topics

    settings = load_settings()
    set_up_logging(settings.log_format)
    typer.echo(str(asyncio.run(preview(settings, partitions))))
    if not yes:
        typer.echo("Nothing was changed; to do it, add --yes.")
        return
    moved = asyncio.run(repartition_topics(settings, partitions))
    typer.echo(f"{moved.rows} users and {moved.unread_moved} unread events moved.")
    typer.echo(f"Now start workers and servers with EDDY_PARTITIONS={partitions}, and your writers.")


@app.command()
def export(
    folder: Annotated[
        str | None, typer.Argument(metavar="PATH", help="[default: EDDY_EVENT_LOG or ./event-log]")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new events, until Ctrl-C.")] = False,
    share: Annotated[
        str, typer.Option(help="The partitions of this process: 1/4, 2/4, 3/4 and 4/4 are all of them.")
    ] = "1/1",
) -> None:
    """Keep `events` as Parquet files, to train on.

    This brings the event log (each event once, by day and partition) up to where the topic ends now. Several
    processes, on one machine or many, can share the partitions.

    Example: eddy export event-log && eddy train --events event-log

    Example: eddy export s3://bucket/event-log --follow --share 1/4
    """
    from eddy.cli.quantities import read_share
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.event_log.export import Share
    from eddy.stream.event_log.export import export as export_events
    from eddy.stream.records.settings import load_settings

    settings = load_settings(event_log=folder)
    set_up_logging(settings.log_format)
    added = export_events(
        settings, settings.event_log, until_end=not follow, share=Share(*read_share(share, "--share"))
    )
    typer.echo(f"{added} events added to {settings.event_log}")


@app.command()
def erase(
    user: Annotated[str, typer.Argument(help="The user_id to forget.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for a worker to apply it.")] = 15,
) -> None:
    """Forget a user.

    Their state and lists are removed at once, and you are told by when nothing of them is left anywhere.

    Example: eddy erase user-42
    """
    from eddy.stream.erase import erase as erase_user
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    erased = erase_user(settings, user, wait)
    state = "removed" if erased.applied else "will be removed when a worker reads the tombstone"
    typer.echo(f"state and lists of {user}: {state} (partition {erased.partition}, offset {erased.offset})")
    typer.echo("event log: their events are removed by the next `eddy export`, or soon by one that follows")
    typer.echo(f"last copies in Kafka's topics: gone by {erased.gone_by:%Y-%m-%d %H:%M} UTC")


@app.command()
def evaluate(
    events: EventsFile,
    protocol: Protocol,
    cell: Annotated[str | None, typer.Option(help="Train this cell on the protocol's training part.")] = None,
    registry: Annotated[
        str | None, typer.Option(help="Judge the newest version in this folder instead.")
    ] = None,
    mode: Mode = "all",
    items: ItemsFile = None,
    set_: Set = None,
    time_unit: TimeUnit = "auto",
    json_: Json = None,
) -> None:
    """Judge a recommender beside all baselines.

    All rank the same events, among the same candidates, at the same moments.

    Example: eddy evaluate --events events.parquet --protocol temporal --cell gru
    """
    from eddy.cli.learning import judge

    judge(events, time_unit, items, protocol, mode, cell, set_ or [], registry, figures=json_)


@app.command()
def compare(
    events: EventsFile,
    protocol: Protocol = "prequential",
    mode: Mode = "all",
    set_: Set = None,
    time_unit: TimeUnit = "auto",
    json_: Json = None,
) -> None:
    """Train every cell on the same events and compare them.

    The table shows accuracy, reach of the gradient, bytes of state, parameters of the cell, and events per
    second in training and in the stream. It takes minutes for each cell.

    Example: eddy compare --events events.parquet --set epochs=5
    """
    from eddy.cli.learning import compare_cells

    compare_cells(events, time_unit, protocol, mode, set_ or [], figures=json_)


@app.command()
def figures(
    folder: Annotated[Path, typer.Argument(help="Where SVG and PNG files go.")] = Path("figures"),
    registry: Annotated[
        str | None, typer.Option(help="Also measure the newest version in this folder, on --events.")
    ] = None,
    events: Annotated[str | None, typer.Option(help="The log to measure on, as for `eddy train`.")] = None,
    items: Annotated[str | None, typer.Option(help="Names for that figure: item_id and title.")] = None,
    time_unit: TimeUnit = "auto",
) -> None:
    """Draw how the networks work.

    The network unrolled through time, and the cells side by side: paths of state and gradient. With
    --registry and --events also what a version does on your events: how far its gradients reach, how long an
    event matters, how one user's hidden state moves.

    Example: eddy figures pictures --registry registry --events events.parquet
    """
    from eddy.models.figures.diagrams import draw_diagrams, draw_measured
    from eddy.models.logs.events import read_events, read_items
    from eddy.models.registry import latest

    if (registry is None) != (events is None):
        raise EddyError("give both --registry and --events (measure the newest version there), or neither")
    for path in draw_diagrams(folder):
        typer.echo(path)
    if registry and events:
        titles = read_items(items).title if items else {}
        for path in draw_measured(folder, latest(registry), read_events(events, time_unit), titles):
            typer.echo(path)


def run() -> NoReturn:
    """Run the command that `sys.argv` names; ends with SystemExit."""
    try:
        app()
    except (EddyError, ModuleNotFoundError) as error:
        if (line := line_for_user(error)) is None:
            raise
        print(f"eddy: {line}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def main() -> NoReturn:
    """The console script: run a command, then end this process."""
    try:
        run()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            end_process(ended.code or 0)
        raise


if __name__ == "__main__":
    main()
