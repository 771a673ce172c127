"""The record of decisions about versions: which went live, which were refused or taken back, and why.

    decisions/000001.json     in the registry's folder, one file per decision, numbered in order
    decisions/000001-1a2b3c4d.json     on object storage, where two machines may take one number at once

A record is never changed. It is there whole or not at all (eddy.models.atomic_files), and its number is taken
under the registry's lock, so that processes which decide at once do not overwrite each other's record.
"""

import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from eddy.models.errors import EddyError
from eddy.models.locks import REGISTRY_LOCK, locked
from eddy.models.plain_json import plain
from eddy.models.storage import Location, Place, located, one_line
from eddy.models.untrusted import Unreadable, decoded

FOLDER = "decisions"
MAX_BYTES = 1 << 20
"""A record with more bytes is not read: what decides writes a few thousand."""

log = logging.getLogger("eddy.decisions")

_NAME = re.compile(r"^(\d{6,12})(-[0-9a-f]{8})?\.json$")

Kind = Literal["went live", "refused", "canary began", "promoted", "taken back", "rolled back", "overtaken"]


MADE_LIVE = frozenset[Kind](("went live", "promoted", "rolled back"))
"""Kinds of decisions after which all users have the version."""


@dataclass(frozen=True)
class Decision:
    """One decision about a version."""

    kind: Kind
    version: str
    """id of the version that was decided about; empty when it was never published"""
    live: str
    """id of the version that was live before; empty when there was none"""
    epoch: int | None
    """of the announcement that carries the decision out; None when nothing was announced"""
    reason: str
    """one sentence"""
    figures: dict[str, Any]
    """what the decision rests on, as JSON"""
    decided_by: str
    """the command that decided: refresh, watch, rollback or announce"""
    decided_at: str = ""
    """ISO 8601 in UTC, to the second; `record_decision` fills it in when it is empty"""


_decode = msgspec.json.Decoder(Decision).decode


def record_decision(registry: Place, decision: Decision) -> Location:
    """Write a record with the next number and return where it is. The folder `registry` is made if missing;
    the caller must not hold its lock.

    Errors: EddyError when it cannot be written.
    """
    if not decision.decided_at:
        decision = replace(decision, decided_at=datetime.now(UTC).isoformat(timespec="seconds"))
    content = msgspec.json.format(msgspec.json.encode(decision, enc_hook=plain), indent=1)
    location = located(registry)
    folder = location / FOLDER
    try:
        folder.make_folder()
        location.work_folder.mkdir(parents=True, exist_ok=True)
        with locked(location.work_folder / REGISTRY_LOCK, "another process to write to the registry"):
            number = max((number for number, _ in _numbered(folder)), default=0) + 1
            record = folder / f"{number:06d}{_suffix(location)}.json"
            record.write(content)
    except OSError as error:
        raise EddyError(
            f"{folder}: cannot write a decision ({one_line(error)}); check {location.advice}"
        ) from None
    return record


def _suffix(registry: Location) -> str:
    return f"-{secrets.token_hex(4)}" if registry.is_remote else ""


def _pass_over(unreadable: EddyError) -> None:
    log.warning("%s; passed over", unreadable)


def read_decisions(
    registry: Place, version: str | None = None, on_unreadable: Callable[[EddyError], None] = _pass_over
) -> list[Decision]:
    """All decisions that can be read, oldest first; empty when there are none.

    version: only those that name this version, as the one decided about or as the one that was live.
    on_unreadable: called for each record that cannot be read, with an error that names its file and says why.

    Errors: EddyError when the folder cannot be listed.
    """
    folder = located(registry) / FOLDER
    try:
        records = _numbered(folder)
    except OSError as error:
        raise EddyError(f"{folder}: cannot be listed ({one_line(error)}); check {folder.advice}") from None
    decisions = []
    for _, record in records:
        try:
            decision = _read(record)
        except EddyError as error:
            on_unreadable(error)
            continue
        if version is None or version in (decision.version, decision.live):
            decisions.append(decision)
    return decisions


def _numbered(folder: Location) -> list[tuple[int, Location]]:
    """The records in order, with their numbers; the draft of a killed process is none of them."""
    names = [(int(match[1]), name) for name in folder.children() if (match := _NAME.match(name))]
    return [(number, folder / name) for number, name in sorted(names)]


def _read(file: Location) -> Decision:
    """Errors: EddyError naming the file."""
    try:
        content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Unreadable(f"more than {MAX_BYTES} bytes")
        decision = decoded(_decode, content)
        if datetime.fromisoformat(decision.decided_at).utcoffset() is None:
            raise Unreadable("decided_at has no time zone")
    except (OSError, ValueError, Unreadable) as error:
        raise EddyError(
            f"{file}: not a decision that can be read ({error}); move the file out of the folder, or restore "
            "it from a copy"
        ) from None
    return decision


__all__ = ["FOLDER", "MADE_LIVE", "Decision", "Kind", "read_decisions", "record_decision"]
