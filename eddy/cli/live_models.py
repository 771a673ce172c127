"""The work of `eddy models rollback` and `eddy models prune`, which change what is live or what is kept."""

import typer
from rich.filesize import decimal

from eddy.cli.terminal import progress_bar
from eddy.stream.prune import plan_prune
from eddy.stream.prune import prune as prune_versions
from eddy.stream.records.settings import Settings
from eddy.stream.rollback import roll_back


def go_back(settings: Settings, id_: str | None) -> None:
    """Announce the version that was live before, or another one, and say so. Errors: EddyError."""
    decision = roll_back(settings, id_)
    typer.echo(f"{decision.version} is live for all users again, as epoch {decision.epoch}", err=True)


def prune(settings: Settings, keep: int, yes: bool) -> None:
    """Say which versions nothing needs any more, and with `yes` remove them. Errors: EddyError."""
    with progress_bar() as show:
        plan = plan_prune(settings, keep, lambda done, of: show("reading rows", done, of))
    for id_, size in plan.removed.items():
        typer.echo(f"{id_}  {decimal(size):>9}  nothing needs it")
    for id_, reason in plan.kept.items():
        typer.echo(f"{id_}  {'stays':>9}  {reason}")
    if not yes:
        typer.echo(f"{len(plan.removed)} versions would go, {decimal(sum(plan.removed.values()))} freed.")
        typer.echo("Nothing was changed; to do it, add --yes.")
        return
    gone = prune_versions(settings, plan)
    typer.echo(f"{len(gone)} versions removed, {decimal(sum(plan.removed[id_] for id_ in gone))} freed.")
    if announced := sorted(plan.removed.keys() - set(gone)):
        typer.echo(f"Announced meanwhile, and kept: {', '.join(announced)}", err=True)
