"""The commands of the HTTP server and of its lists, one short function each; `eddy/__main__.py` adds them to
the others.
"""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="So many on one port, for several cores. Each holds all rows in memory."
        ),
    ] = 1,
) -> None:
    """Answer over HTTP.

    Ask with GET /v1/users/USER/recommendations?k=20

    Example: EDDY_BOOTSTRAP_SERVERS=localhost:9092 EDDY_PORT=8000 eddy serve --processes 2
    """
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    set_up_logging(settings.log_format)
    if processes > 1:
        from eddy.serving.processes import run_processes

        run_processes(settings, processes, set_up_logging)
    else:
        from eddy.serving.server import run_server, run_with_fast_loop

        run_with_fast_loop(run_server(settings))


def api_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for your file; it is no secret.")],
    scope: Annotated[
        list[str], typer.Option(help="read, write, erase or operate; may be given several times.")
    ],
) -> None:
    """Make a key for callers of the HTTP API.

    The key is on the first line, and is shown only now; the second line belongs into the file that
    EDDY_API_KEYS_FILE names. A server reads the file again when it changes.

    Example: eddy api-key shop --scope read --scope write
    """
    from eddy.serving.api_keys import new_key

    key, line = new_key(name, scope)
    typer.echo(key)
    typer.echo(line)


def recommend(
    users: Annotated[
        str,
        typer.Option(help="all (who have rows), or a file: one id a line (.txt), or a column user_id."),
    ] = "all",
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    topic: Annotated[str | None, typer.Option(help="Or a topic of yours, as JSON.")] = None,
    question: Annotated[
        str | None,
        typer.Option(help="What is wanted, as POST /v1/users/USER/recommendations takes it: '{\"k\": 10}'."),
    ] = None,
) -> None:
    """Make lists for many users at once, for mail and push.

    They are those that the endpoint would give now. Killed, the same command goes on where it was, if
    it comes within an hour; later it begins anew.

    Example: eddy recommend --users all --out lists.parquet
    """
    from eddy.cli.recommend import recommend_many
    from eddy.cli.terminal import set_up_logging
    from eddy.stream.records.settings import load_settings

    settings = load_settings()
    set_up_logging(settings.log_format)
    recommend_many(settings, users, out, topic, question)


def rules(
    file: Annotated[Path, typer.Argument(help='JSON: {"rules": [{"name": "home", "pin": ["item-9"]}]}')],
) -> None:
    """Put business rules into force.

    Rules boost, bury, pin and cap items, between two dates if you like. Those of the file replace the ones
    before on every server within a second; a file that cannot be used changes nothing.

    Example: eddy rules rules.json
    """
    from eddy.cli.rules import publish_rules
    from eddy.stream.records.settings import load_settings

    typer.echo(f"rules in force: {publish_rules(load_settings(), file)}")
