"""The work of `eddy models list` and `eddy models show`, without torch and, offline, without a Kafka client.

What they print comes from folders that anybody may have written, and goes through `printable`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from eddy.cli.printable import printable
from eddy.cli.terminal import write_figures
from eddy.models.decisions import MADE_LIVE, Decision, read_decisions
from eddy.models.descriptions import PARENT, Description, describe, until_of, versions
from eddy.models.errors import EddyError
from eddy.models.storage import Location
from eddy.stream.records.settings import Settings

_CELL = 40  # characters of a cell of a table

Row = dict[str, Any]


def list_versions(settings: Settings, figures: Path | None) -> None:
    """Print a table of all versions in the registry, oldest first, and write it to a file, if one is given.

    Errors: EddyError when the registry has no version, or the file cannot be written.
    """
    ids = versions(settings.registry)
    if not ids:
        raise EddyError(
            f"registry {settings.registry}: no version in it; make one with: "
            f"eddy train --registry {settings.registry}"
        )
    live = _live(settings)
    decisions = _decisions(settings.registry)
    rows = [_row(settings.registry, id_, live, decisions) for id_ in ids]
    typer.echo(_table(rows))
    for row in rows:
        if "problem" in row:
            typer.echo(printable(f"{row['version']}: {row['problem']}"))
    for id_, share in (live or {}).items():
        if id_ not in ids:
            typer.echo(printable(f"{id_}: live for {share}, and not in the registry {settings.registry}"))
    write_figures(figures, {"registry": str(settings.registry), "versions": rows})


def _row(
    registry: Location, id_: str, live: Mapping[str, str] | None, decisions: Sequence[Decision] | None
) -> Row:
    """One version's row of the table; one that cannot be read has a problem instead of its settings."""
    row: Row = {"version": id_}
    try:
        about = describe(registry / id_)
    except EddyError as error:
        row |= {"created": "damaged", "cell": "", "hidden": "", "items": "", "data_until": "", "parent": ""}
        row["problem"] = str(error)
    else:
        row |= {
            "created": about.created,
            "cell": about.config.cell,
            "hidden": about.config.hidden,
            "items": about.items,
            "data_until": _until(about),
            "parent": str(about.lineage.get(PARENT) or ""),
        }
    if live is not None:
        row["live"] = live.get(id_, "")
    row["last_decision"] = "unreadable" if decisions is None else _last_decision(id_, decisions)
    return row


def _live(settings: Settings) -> dict[str, str] | None:
    """By version: the share of the users that have it, and since which epoch. None where no cluster is named
    or none answers, of which a line on standard error tells.
    """
    if not settings.bootstrap_servers:
        return None
    from kafka.errors import KafkaError, KafkaTimeoutError

    from eddy.stream.kafka.clients import admin_client
    from eddy.stream.kafka.security.granted import require_permissions
    from eddy.stream.kafka.versions import live_announcement

    try:
        with admin_client(settings) as admin:
            require_permissions(admin, settings, "models list")
            there = settings.topics.model_versions in admin.list_topics()
        announcement = live_announcement(settings) if there else None
    except (EddyError, KafkaError, KafkaTimeoutError, OSError) as error:
        typer.echo(f"Which version is live is not known: {printable(error)}", err=True)
        return None
    if announcement is None:
        return {}
    return {
        share.version: f"{share.percent} % (epoch {announcement.epoch})" for share in announcement.every_share
    }


def _decisions(registry: Location, version: str | None = None) -> list[Decision] | None:
    """The decisions about a version, or all; None where their folder cannot be listed. A line on standard
    error tells of that, and of each record that cannot be read.
    """
    try:
        return read_decisions(
            registry,
            version,
            lambda error: typer.echo(f"A decision is not shown: {printable(error)}", err=True),
        )
    except EddyError as error:
        typer.echo(f"Decisions are not shown: {printable(error)}", err=True)
        return None


def _last_decision(id_: str, decisions: Sequence[Decision]) -> str:
    """What was decided about a version last, and on which day."""
    for decision in reversed(decisions):
        if decision.version == id_:
            kind = "rolled back to" if decision.kind == "rolled back" else decision.kind
            return f"{kind} {decision.decided_at[:10]}"
        if decision.live == id_ and decision.kind in MADE_LIVE:
            return f"replaced {decision.decided_at[:10]}"
    return ""


def _until(about: Description) -> str:
    """When the data ends that a version was trained on; empty where it has no times."""
    until = until_of(about.metrics)
    if until is None:
        return ""
    return datetime.fromtimestamp(until / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _table(rows: Sequence[Row]) -> str:
    """Rows with the same columns as aligned text, under the columns' names; numbers to the right."""
    names = [name for name in rows[0] if name != "problem"]
    header = [name.replace("_", " ") for name in names]
    cells = [[printable(row[name], _CELL) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [any(isinstance(row[name], int) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [header, *cells]
    )


def show_version(settings: Settings, id_: str, figures: Path | None) -> None:
    """Print what is known of a version, and write it to a file, if one is given. Of a version that was
    removed or cannot be read, the decisions are left.

    Errors: EddyError when nothing is known of it, or the file cannot be written.
    """
    registry = settings.registry
    decisions = _decisions(registry, id_)
    about, problem = None, f"{id_} is not in the registry {registry}"
    if id_ in versions(registry):
        try:
            about = describe(registry / id_)
        except EddyError as error:
            problem = str(error)
    if about is None and not decisions:
        raise EddyError(f"{problem}; eddy models list shows what is there")
    shown: dict[str, Any] = {"version": id_}
    if about is None:
        shown["problem"] = problem
    else:
        shown |= {
            "folder": str(about.location),
            "created": about.created,
            "parent": str(about.lineage.get(PARENT) or ""),
            "data_until": _until(about),
            "items": about.items,
            "event_types": about.types,
            "config": about.config.to_dict(),
            "rules": about.rules.to_dict(),
            "metrics": about.metrics,
            "lineage": about.lineage,
        }
    for line in _indented({name: value for name, value in shown.items() if value != ""}):
        typer.echo(line)
    none = "unreadable" if decisions is None else "none"
    typer.echo("decisions" if decisions else f"decisions: {none}")
    for decision in decisions or ():
        typer.echo(f"  {_sentence(decision)}")
        for line in _indented(decision.figures, "    "):
            typer.echo(line)
    write_figures(figures, shown | {"decisions": [asdict(decision) for decision in decisions or ()]})


def _sentence(decision: Decision) -> str:
    """A decision in one line."""
    words = [decision.decided_at, decision.version or "a version that was not published"]
    words += [decision.kind if decision.kind != "rolled back" else "was rolled back to"]
    notes = [f"by {decision.decided_by}"]
    if decision.epoch is not None:
        notes.append(f"epoch {decision.epoch}")
    if decision.live:
        notes.append(f"live before: {decision.live}")
    return printable(f"{' '.join(words)} ({', '.join(notes)}): {decision.reason}")


def _indented(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line for each value, names aligned; a mapping has its values below it, and one in it is JSON."""
    width = min(max((len(name) for name in values), default=0), _CELL)
    for name, value in values.items():
        label = indent + printable(name.replace("_", " ") if not indent else name, _CELL).ljust(width)
        if isinstance(value, Mapping) and not indent:
            yield label.rstrip()
            yield from _indented(value, "  ")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{label}  {printable(text)}".rstrip()
