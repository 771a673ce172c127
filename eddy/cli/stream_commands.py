"""The commands of the stream: of its topics, its workers and its events, one short function each;
`eddy/__main__.py` adds them to the others.
"""

import asyncio
import math
from typing import Annotated

import typer

from eddy.cli.options import EventsFile, TimeUnit
from eddy.models.errors import EddyError


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

    if rate is not None and not math.isfinite(rate):
        raise EddyError(
            f"--rate {rate}: give a number of events per second; without it, it is as fast as it goes"
        )
    settings = load_settings()
    log = read_events(events, time_unit)
    prepare_topics(settings, "replay")
    with progress_bar() as show:
        sent = asyncio.run(feed(settings, log, rate, lambda done: show("replaying", done, len(log))))
    typer.echo(f"{sent} events written to {settings.topics.events}")


def ingest(
    topic: Annotated[str, typer.Option(help="Your topic of JSON objects, whatever its keys and partitions.")],
    fields: Annotated[
        str,
        typer.Option(
            "--map",
            help="Your fields by Eddy's: user_id=…,item_id=…,timestamp=… and, where you have them, "
            "event_type=…,value=…,event_id=…",
        ),
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


def repartition(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="The new number of partitions.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it instead of only saying what would happen.")
    ] = False,
) -> None:
    """Change the partition count of `events`.

    Stop workers, servers, `eddy ingest` and `eddy export --follow` first, also for a look without --yes.
    States, statistics and unread events are moved along; what was applied is no longer in `events`, so run
    `eddy export` before. If the command is killed, run it again; never run two at once.

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
    typer.echo(f"Now start workers and servers with EDDY_PARTITIONS={partitions}, and your producers.")


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
