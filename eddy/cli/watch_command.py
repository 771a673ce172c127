"""`eddy models watch`: canaries that are decided about without anybody looking."""

from typing import Annotated

import typer

from eddy.cli.options import Registry


def add_watch(models: typer.Typer) -> None:
    """Add the command `watch`."""
    models.command()(watch)


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
    set_up_logging()
    prepare_topics(settings)
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
