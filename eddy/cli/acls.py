"""`eddy acls`: what a secured cluster must allow each command."""

from typing import Annotated

import typer

from eddy.models.errors import EddyError


def acls(
    for_: Annotated[
        list[str] | None,
        typer.Option("--for", help="A command, such as worker or 'models prune'; may be repeated."),
    ] = None,
    principal: Annotated[
        str | None, typer.Option(help="Who runs it, as User:NAME [default: the user of EDDY_SASL_USERNAME]")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="The topic that `eddy ingest` or `eddy recommend` is given.")
    ] = None,
) -> None:
    """Print the ACLs that commands need on a secured cluster.

    They are commands for Kafka's own kafka-acls, which an administrator runs, with --command-config for the
    login. They allow no more than is needed, for the topics and the group of the settings here.

    Example: eddy acls --principal User:eddy-worker --for worker

    Example: eddy acls --principal User:operator --for announce --for 'models rollback' --for erase
    """
    from eddy.stream.kafka.security.permissions import COMMANDS, acl_commands, needed_by, principal_of
    from eddy.stream.records.settings import load_settings

    if not for_:
        raise EddyError(f"acls: name commands by --for; these need permissions: {', '.join(COMMANDS)}")
    settings = load_settings()
    principal = principal or principal_of(settings)
    if principal is None:
        raise EddyError(
            "acls: say who runs it by --principal: User:NAME, or for a client certificate User: and its "
            "subject, such as User:CN=eddy-worker"
        )
    if ":" not in principal:
        raise EddyError(f"acls: --principal {principal} is not of the form User:NAME")
    needed = {each for command in for_ for each in needed_by(command, settings, topic)}
    for line in acl_commands(needed, principal):
        typer.echo(line)
