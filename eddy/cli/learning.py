"""The work of `eddy train`, `eddy evaluate` and `eddy compare`: read files, show progress, report figures."""

from pathlib import Path

import typer

from eddy.cli.terminal import make_live, of_training, progress_bar, require_figures_file, write_figures
from eddy.models.config import configs
from eddy.models.errors import EddyError
from eddy.models.evaluation.compare import compare
from eddy.models.evaluation.evaluate import evaluate
from eddy.models.logs.column_store import bounded_store
from eddy.models.logs.events import read_events
from eddy.models.logs.item_features import read_features
from eddy.models.logs.log_share import LogShare
from eddy.models.registry import latest, publish, require_writable
from eddy.models.storage import located
from eddy.models.training.distributed import process_group
from eddy.models.training.resume import require_checkpoint
from eddy.models.training.train import train
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings


def train_and_publish(
    settings: Settings,
    events: str,
    time_unit: str,
    items: str | None,
    cell: str,
    assignments: list[str],
    checkpoint: Path | None,
    figures: Path | None,
    announce: bool,
) -> None:
    """Train a version of these events, publish it in the settings' registry and print where it is.

    assignments: `name=value` of the model or its training. checkpoint, figures: files to write, if any.
    """
    # 1. Check the settings and where results go, and read what is known of items.
    model, training = configs(cell, assignments)
    require_figures_file(figures)
    require_checkpoint(checkpoint)
    require_writable(settings.registry)
    features = read_features(items) if items else None
    store = bounded_store(settings.training_memory_gb, settings.cache_dir)
    with process_group(training.device) as group:
        if announce and group.first:
            prepare_topics(settings, "announce")
        # 2. Read the events, and train, together with the other processes that torchrun has started: each has
        # the events of users of its own.
        share = LogShare(group.rank, group.size)
        log = read_events(events, time_unit, store, event_ids=False, share=share)
        if group.first and not log.clock:
            _warn(f"{log.source} has no column timestamp: the order of its rows is taken for that of time")
        if not share.is_whole:
            typer.echo(f"process {group.rank} of {group.size} has {len(log)} events", err=True)
        with progress_bar(silent=not group.first) as show:
            trained = train(
                log, model, training, settings.rules, of_training(show), checkpoint, group, features
            )
        # 3. The first process publishes; the others stay, since torchrun ends all when one ends.
        if group.first:
            lineage = {
                "events": str(located(events).absolute()),
                "rows": trained.metrics["events"],
                "training": training.to_dict(),
            }
            if items:
                lineage["items"] = str(located(items).absolute())
            version = publish(settings.registry, trained, lineage)
            path = str(version.location.absolute())
            write_figures(figures, {"version": version.id, "path": path, **trained.metrics})
            typer.echo(version.location)
            _warn(trained.metrics.get("gradients", {}).get("warning"))
            if announce:
                make_live(settings, [(version, 100)])
        group.wait_for_first()


def judge(
    events: str,
    time_unit: str,
    items: str | None,
    protocol: str,
    mode: str,
    cell: str | None,
    assignments: list[str],
    registry: str | None,
    figures: Path | None,
) -> None:
    """Evaluate a cell that is trained first, or the newest version of a registry, beside the baselines."""
    if (cell is None) == (registry is None):
        raise EddyError("give one of --cell (train first) and --registry (judge the newest version there)")
    if registry and (items or assignments):
        raise EddyError("--items and --set go with --cell; a version in the registry has its own")
    model, training = configs(cell, assignments) if cell else (None, None)
    require_figures_file(figures)
    version = latest(registry) if registry else None
    with progress_bar() as show:
        report = evaluate(
            read_events(events, time_unit), protocol, mode, version, model, training,  # type: ignore[arg-type]
            training=of_training(show), ranking=lambda done, of: show("ranking", done, of),
            features=read_features(items) if items else None,
        )  # fmt: skip
    typer.echo(report.table())
    _warn(report.warning)
    write_figures(figures, report.to_dict())


def compare_cells(
    events: str, time_unit: str, protocol: str, mode: str, assignments: list[str], figures: Path | None
) -> None:
    """Train every cell on these events and print a table of them beside the baselines."""
    model, training = configs("gru", assignments)
    require_figures_file(figures)
    with progress_bar() as show:
        comparison = compare(
            read_events(events, time_unit), protocol, model, training, mode=mode,  # type: ignore[arg-type]
            progress=lambda cell: of_training(lambda what, done, of: show(f"{cell}: {what}", done, of)),
        )  # fmt: skip
    typer.echo(comparison.table())
    rows = [row.to_dict() for row in comparison.rows]
    write_figures(figures, {"rows": rows, "best_baseline": comparison.best_baseline()})


def _warn(warning: str | None) -> None:
    if warning:
        typer.echo(f"Take care: {warning}", err=True)
