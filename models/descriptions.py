"""What the versions in a registry say of themselves, read without their weights: a table of them needs no
torch, and takes no time.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from eddy.models.config import ModelConfig
from eddy.models.errors import EddyError
from eddy.models.event_limits import LATEST_MS
from eddy.models.rules import EventRules
from eddy.models.storage import Location, Place, located, one_line
from eddy.models.untrusted import FAILURES

FORMAT = 2
UNTIL = "until_ms"
"""In a version's metrics: the time of the last event it was trained on, by which evaluation knows a version
that has seen its events. Absent where the log has no times. Read it with `until_of`.
"""

PARENT = "parent"
"""In a version's lineage: the id of the version whose weights its training began with, or that it was to
replace.
"""

DESCRIPTION = "version.json"
MAX_BYTES = 64 << 20
"""A longer description is not read."""

ID_PATTERN = r"v([0-9]{6,})-[0-9a-f]{8}"
"""What a version's id looks like; the group is its number."""

_NAME = re.compile(ID_PATTERN)


@dataclass(frozen=True)
class Description:
    """What the file version.json of a version says; its other files were not read."""

    id: str
    location: Location
    config: ModelConfig
    items: int
    """ids in the vocabulary"""
    types: list[str]
    rules: EventRules
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    created: str
    digests: dict[str, str]
    """SHA-256 of the other files, by name; empty in a version of an earlier commit"""


def number_of(name: str) -> int | None:
    """The number of a version, from its id; None for a name that is none."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def numbered(registry: Place) -> dict[str, int]:
    """The number of each version in the folder, by id. Errors: OSError."""
    location = located(registry)
    names = _described(location) if location.is_remote else location.children()
    return {name: number for name in names if (number := number_of(name)) is not None}


def _described(registry: Location) -> list[str]:
    """On object storage a version is there when its description is, which is written last."""
    return [
        file.folders[0]
        for file in registry.files()
        if len(file.folders) == 1 and file.location.name == DESCRIPTION
    ]


def versions(registry: Place) -> list[str]:
    """Ids of all versions, oldest first; empty when there is no such folder. Those of one number, which two
    machines publish to object storage at once, are ordered by their random suffix.

    Errors: EddyError when the registry cannot be listed.
    """
    try:
        numbers = numbered(registry)
    except OSError as error:
        location = located(registry)
        raise EddyError(
            f"registry {location}: cannot be listed ({one_line(error)}); check {location.advice}"
        ) from None
    return sorted(numbers, key=lambda name: (numbers[name], name))


def describe(place: Place) -> Description:
    """Read and check a version's version.json. Errors: EddyError saying why it cannot be read."""
    location = located(place)
    if number_of(location.name) is None:
        raise EddyError(f"{location}: not a version's folder (a name like v000001-1a2b3c4d)")
    try:
        about = json.loads((location / DESCRIPTION).read(MAX_BYTES))
        if about["format"] != FORMAT:
            raise EddyError(
                f"{location}: format {about['format']!r}, but this program reads format {FORMAT}; train it "
                "anew"
            )
        return Description(
            id=location.name,
            location=location,
            config=ModelConfig.from_dict(about["config"]),
            items=int(about["items"]),
            types=[str(name) for name in about["types"]],
            rules=EventRules(**about["rules"]),
            metrics=dict(about["metrics"]),
            lineage=dict(about["lineage"]),
            created=str(about["created"]),
            digests=_digests(about.get("files", {})),
        )
    except FileNotFoundError:
        raise EddyError(
            f"{location}: no version is there ({DESCRIPTION} is missing); eddy models list shows which "
            "there are"
        ) from None
    except (OSError, KeyError, TypeError, *FAILURES) as error:
        raise EddyError(
            f"{location / DESCRIPTION}: unreadable ({type(error).__name__}: {one_line(error)})"
        ) from None


def until_of(metrics: Mapping[str, Any]) -> int | None:
    """The time (ms) up to which a version with these metrics has seen events; None where that is not known,
    also when anybody has written something else there.
    """
    until = metrics.get(UNTIL)
    return until if type(until) is int and 0 <= until < LATEST_MS else None


def _digests(files: dict[str, Any]) -> dict[str, str]:
    """Errors: ValueError for a name that leads elsewhere."""
    for name in files:
        if PurePosixPath(name).name != name:
            raise ValueError(f"files names {name!r}, which is not a file of the version")
    return {str(name): str(digest) for name, digest in files.items()}
