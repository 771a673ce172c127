"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

# Texts, not paths: a Path makes s3:/bucket of s3://bucket.
EventsFile = Annotated[
    str,
    typer.Option(
        "--events",
        metavar="PATH",
        help="Parquet, CSV or JSON, or a folder of such files, here or on s3://, gs:// or abfs://, with "
        "user_id, item_id, timestamp and, where there are any, event_type, value, event_id.",
    ),
]
TimeUnit = Annotated[
    str,
    typer.Option(
        "--time-unit",
        help="Unit of timestamps that are numbers: s, ms or auto (the one that fits all; small ones are s).",
    ),
]
ItemsFile = Annotated[
    str | None,
    typer.Option(
        "--items",
        metavar="PATH",
        help="Metadata of items: Parquet, CSV or JSON with item_id and any columns such as title, genres, "
        "brand. New items are scored by it at once.",
    ),
]
Registry = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Folder of versions [default: EDDY_REGISTRY or ./registry]"),
]
Protocol = Annotated[str, typer.Option(help="leave-one-out, temporal or prequential")]
Mode = Annotated[
    str, typer.Option(help="all: rank all items; unseen: leave out the items that the user has had.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of the model or its training (models/config.py), for example hidden=64; repeatable.",
    ),
]
