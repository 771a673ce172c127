"""The commands of `eddy models`, one short function each; `eddy/__main__.py` adds them to the others."""

from typing import Annotated

import typer

from eddy.cli.options import Json, Registry, TimeUnit

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Look at model versions, compare them, go back to one, and remove those that nothing needs.",
)


@commands.command("list")
def list_(registry: Registry = None, json_: Json = None) -> None:
    """List the versions in the registry.

    The table shows cell and size, the data that a version was trained on, its parent, and what was decided
    about it last; with a cluster (EDDY_BOOTSTRAP_SERVERS) also the share of the users that have it.

    Example: eddy models list --registry registry
    """
    from eddy.cli.models import list_versions
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings

    set_up_logging()
    list_versions(load_settings(registry=registry), json_)


@commands.command()
def show(
    version: Annotated[str, typer.Argument(help="A version's id.")],
    registry: Registry = None,
    json_: Json = None,
) -> None:
    """Show one version in full.

    Settings, metrics, what it was trained on, and every decision about it with its figures.

    Example: eddy models show v000007-1a2b3c4d
    """
    from eddy.cli.models import show_version
    from eddy.stream.records.settings import load_settings

    show_version(load_settings(registry=registry), version, json_)


@commands.command()
def compare(
    first: Annotated[str, typer.Argument(help="A version's id.")],
    second: Annotated[str, typer.Argument(help="Another one's.")],
    events: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="A log, as for `eddy train` [default: EDDY_EVENT_LOG or ./event-log]"
        ),
    ] = None,
    time_unit: TimeUnit = "auto",
    metric: Annotated[str, typer.Option(help="Whose difference gets an interval.")] = "mrr@20",
    registry: Registry = None,
    json_: Json = None,
) -> None:
    """Compare two versions on events that neither has seen.

    Both rank the last events of the log, each from what came before it, beside decayed popularity; the
    difference comes with an interval. This is how a refresh judges its candidate.

    Example: eddy models compare v000007-1a2b3c4d v000008-5e6f7a8b --events event-log
    """
    from eddy.cli.models_compare import compare as compare_versions
    from eddy.refresh.options import metric_of
    from eddy.stream.records.settings import load_settings

    settings = load_settings(registry=registry)
    compare_versions(settings, first, second, events, time_unit, metric_of(metric), json_)


@commands.command()
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="A version's id [default: the one that all users had before]")
    ] = None,
    registry: Registry = None,
) -> None:
    """Go back to the version that was live before.

    It is announced for all users, and workers and servers move to it without stopping. A version whose files
    cannot be loaded is refused. A second rollback leads back to the version that all users have now.

    Example: eddy models rollback
    """
    from eddy.cli.live_models import go_back
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings

    set_up_logging()
    go_back(load_settings(registry=registry), version)


@commands.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest versions stay.")] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen, also with --yes.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it instead of only saying what would happen.")
    ] = False,
    registry: Registry = None,
) -> None:
    """Remove versions that nothing needs.

    A version stays that is live, that a user's row names, or that a rollback would lead to. This reads the
    rows of the installation that the settings name: where several share a registry, remove nothing. If the
    command is killed, run it again.

    Example: eddy models prune --keep 5 --yes
    """
    from eddy.cli.live_models import prune as prune_versions
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings

    set_up_logging()
    prune_versions(load_settings(registry=registry), keep, yes and not dry_run)


@commands.command()
def watch(
    for_: Annotated[
        str, typer.Option("--for", help="How long a canary is tried at most, such as 90s, 30m, 2h or 1d.")
    ] = "2h",
    events: Annotated[
        int | None,
        typer.Option(min=1, help="And for how many ranked events of all its versions [default: any number]"),
    ] = None,
    registry: Registry = None,
) -> None:
    """Take back canaries that are worse, and let the others go live.

    A canary is a version with a smaller share of the users (eddy announce LIVE=90 CANARY=10). It is taken
    back as soon as its live ranks are worse beyond noise, and goes live for all as soon as they are better,
    or at the end unless they are worse. Each decision is an announcement, and is recorded in the registry
    with its interval and its reason. Ctrl-C ends the watch; the next one goes on with the same canary.

    Example: eddy models watch --for 2h
    """
    import signal
    from threading import Event

    from eddy.cli.quantities import read_duration
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.canary.trial import Limit
    from eddy.stream.canary.watch import watch as watch_canaries
    from eddy.stream.kafka.topics import prepare_topics
    from eddy.stream.records.settings import load_settings

    limit = Limit(read_duration(for_, "--for"), events)
    settings = load_settings(registry=registry)
    set_up_logging(settings.log_format)
    prepare_topics(settings, "models watch")
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    watch_canaries(
        settings,
        limit,
        stop,
        lambda decision: typer.echo(
            f"epoch {decision.epoch}: {decision.version} {decision.kind}. {decision.reason}"
        ),
    )
