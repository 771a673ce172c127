"""The record of decisions about versions: which went live, which were refused or taken back, and why.

    decisions/000001.json     in the registry's folder, one file per decision, numbered in order

A record is never changed. It is there whole or not at all (eddy.models.atomic_files), and its number is taken
under the registry's lock, so that processes which decide at once do not overwrite each other's record.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from eddy.models.atomic_files import atomic_write, sync
from eddy.models.errors import EddyError
from eddy.models.locks import locked
from eddy.models.registry import LOCK, plain
from eddy.models.untrusted import Unreadable, decoded

FOLDER = "decisions"
MAX_BYTES = 1 << 20
"""A record with more bytes is not read: what decides writes a few thousand."""

_NAME = re.compile(r"^(\d{6,12})\.json$")

Kind = Literal["went live", "refused", "canary began", "promoted", "taken back", "rolled back", "overtaken"]


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


def record_decision(registry: Path, decision: Decision) -> Path:
    """Write a record with the next number and return its path. The folder `registry` is made if missing; the
    caller must not hold its lock.

    Errors: EddyError when it cannot be written.
    """
    if not decision.decided_at:
        decision = replace(decision, decided_at=datetime.now(UTC).isoformat(timespec="seconds"))
    content = msgspec.json.format(msgspec.json.encode(decision, enc_hook=plain), indent=1)
    folder = registry / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sync(registry)
        with locked(registry / LOCK, "another process to write to the registry"):
            path = folder / f"{max(_numbered(folder), default=0) + 1:06d}.json"
            with atomic_write(path) as draft:
                draft.write_bytes(content)
    except OSError as error:
        raise EddyError(f"{folder}: cannot write a decision ({error}); check space and permissions") from None
    return path


def read_decisions(registry: Path, version: str | None = None) -> list[Decision]:
    """All decisions, oldest first; empty when there are none.

    version: only those that name this version, as the one decided about or as the one that was live.
    Errors: EddyError naming the file that cannot be read.
    """
    folder = registry / FOLDER
    if not folder.is_dir():
        return []
    numbered = _numbered(folder)
    decisions = [_read(numbered[number]) for number in sorted(numbered)]
    if version is None:
        return decisions
    return [decision for decision in decisions if version in (decision.version, decision.live)]


def _numbered(folder: Path) -> dict[int, Path]:
    """The records by number; the draft of a killed process is none of them."""
    return {int(match[1]): entry for entry in folder.iterdir() if (match := _NAME.match(entry.name))}


def _read(file: Path) -> Decision:
    """Errors: EddyError naming the file."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
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


__all__ = ["FOLDER", "Decision", "Kind", "read_decisions", "record_decision"]
