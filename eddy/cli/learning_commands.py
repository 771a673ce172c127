"""The commands that train, judge and draw models, and make them live, one short function each;
`eddy/__main__.py` adds them to the others.
"""

from pathlib import Path
from typing import Annotated

import typer

from eddy.cli.options import EventsFile, ItemsFile, Json, Mode, Protocol, Registry, Set, TimeUnit
from eddy.models.errors import EddyError


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


def refresh(
    registry: Registry = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A log that another tool writes, as for `eddy train` [default: Eddy's own, exported first]",
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
        str,
        typer.Option(
            "--for",
            help="How long they try it at most; then all get it, unless it is worse or too few events tell.",
        ),
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
    ok_if_none_live: Annotated[
        bool,
        typer.Option(
            "--ok-if-none-live", help="Exit code 0 instead of 3: to a scheduler every other code is a fault."
        ),
    ] = False,
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
    from eddy.refresh.endings import NOT_LIVE
    from eddy.refresh.options import RefreshOptions, gate_rule, metric_of
    from eddy.stream.records.settings import load_settings

    settings = load_settings(registry=registry)
    set_up_logging(settings.log_format)
    options = RefreshOptions(
        events=events, time_unit=time_unit, items=items, cell=cell, assignments=tuple(set_ or ()),
        from_scratch=from_scratch, gate=gate_rule(gate), metric=metric_of(metric), candidate=candidate,
        canary_percent=read_percent(canary, "--canary") if canary is not None else None,
        canary_s=read_duration(for_, "--for"), least_events=least_events,
    )  # fmt: skip
    code = run_refresh(settings, options, every, on_drift, metrics_file)
    raise typer.Exit(0 if ok_if_none_live and code == NOT_LIVE else code)


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


def evaluate(
    events: EventsFile,
    protocol: Protocol,
    cell: Annotated[str | None, typer.Option(help="Train this cell on the protocol's training part.")] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="PATH", help="Judge the newest version in this folder instead.")
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


def figures(
    folder: Annotated[Path, typer.Argument(help="Where SVG and PNG files go.")] = Path("figures"),
    registry: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Also measure the newest version in this folder, on --events."),
    ] = None,
    events: Annotated[
        str | None, typer.Option(metavar="PATH", help="The log to measure on, as for `eddy train`.")
    ] = None,
    items: Annotated[
        str | None, typer.Option(metavar="PATH", help="Names for that figure: item_id and title.")
    ] = None,
    time_unit: TimeUnit = "auto",
) -> None:
    """Draw how the networks work.

    The network unrolled through time, and the cells side by side: paths of state and gradient. With
    --registry and --events also what a version does on your events: how far its gradients reach, how long an
    event matters, how one user's hidden state moves.

    Example: eddy figures pictures --registry registry --events events.parquet
    """
    from eddy.models.atomic_files import try_writing
    from eddy.models.figures.diagrams import draw_diagrams, draw_measured
    from eddy.models.logs.events import read_events, read_items
    from eddy.models.registry import latest

    if (registry is None) != (events is None):
        raise EddyError("give both --registry and --events (measure the newest version there), or neither")
    try:
        try_writing(folder)
    except OSError as error:
        raise EddyError(
            f"{folder}: no file could be written there ({error}); check the path and permissions"
        ) from None
    for path in draw_diagrams(folder):
        typer.echo(path)
    if registry and events:
        titles = read_items(items).title if items else {}
        for path in draw_measured(folder, latest(registry), read_events(events, time_unit), titles):
            typer.echo(path)
