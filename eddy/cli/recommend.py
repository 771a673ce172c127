"""The work of `eddy recommend`: which users are meant, progress, and what was made."""

import asyncio
from pathlib import Path

import typer
from pydantic import ValidationError

from eddy.cli.terminal import progress_bar
from eddy.models.errors import EddyError
from eddy.models.logs.columns import read_columns
from eddy.models.logs.formats.cells import Kind
from eddy.serving.bulk.run import make_lists
from eddy.serving.json_documents import first_fault
from eddy.serving.routes.recommendations import PostedList, question_of
from eddy.stream.records.settings import Settings

_ALL = "all"

_PARQUET = ("", ".parquet", ".pq")
"""How the name of a file of lists may end: under another one, its reader would take it for something else."""


def recommend_many(
    settings: Settings, users: str, out: Path | None, topic: str | None, question: str | None
) -> None:
    """Make a list for each of the users and print how many there are.

    users: "all", or a file that names them. question: the body of a posted question. Errors: EddyError when
    not exactly one of `out` and `topic` is given, for a file whose name says another kind, for a question
    that cannot be understood, and as `make_lists`.
    """
    if (out is None) == (topic is None):
        raise EddyError("say where the lists go: either --out FILE.parquet or --topic TOPIC")
    if out is not None and out.suffix.lower() not in _PARQUET:
        raise EddyError(f"--out {out}: lists are written as Parquet; name a file that ends in .parquet")
    try:
        posted = PostedList.model_validate_json(question or "{}")
    except ValidationError as error:
        raise EddyError(f"--question: {first_fault(error)}") from None
    wanted = question_of("", posted, settings)
    named = None if users == _ALL else read_users(users)
    with progress_bar() as show:
        try:
            count = asyncio.run(make_lists(settings, named, wanted, out, topic, show))
        except OSError as error:
            raise EddyError(
                f"{out or topic}: cannot be written ({error}); check space and permissions"
            ) from None
    typer.echo(f"{count} lists in {out or topic}")


def read_users(file: str) -> list[str]:
    """The users that a file names, each once: a file of events or users with a column user_id, or text with
    one id a line. Errors: EddyError when it cannot be read.
    """
    if file.endswith(".txt"):
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise EddyError(f"{file}: cannot be read ({error})") from None
        return list(dict.fromkeys(line for line in lines if line))
    names = read_columns(file, {"user_id": Kind.NAME}, ["user_id"]).names["user_id"].names
    return [user for user in names.to_pylist() if user]
