"""What each setting may be at its extremes, read from the class of settings: a new one is covered at once."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings, load_settings

FIELDS = Settings.model_fields
LONGEST_TRIED = 300


def kinds(field: FieldInfo) -> list[Any]:
    """The types of a field, without None."""
    types = get_args(field.annotation) if get_origin(field.annotation) is not Literal else (field.annotation,)
    return [kind for kind in types or (field.annotation,) if kind is not type(None)]


def is_number(field: FieldInfo) -> bool:
    return any(kind in (int, float) for kind in kinds(field))


def bounds(field: FieldInfo) -> list[int | float]:
    """The least and the greatest number that a field allows; fewer where it is not bounded."""
    whole = int in kinds(field)

    def beside(limit: Any, towards: float) -> int | float:
        return int(limit + math.copysign(1, towards)) if whole else math.nextafter(limit, towards)

    found: list[int | float] = []
    for limit in field.metadata:
        if isinstance(limit, Ge):
            found.append(limit.ge)  # type: ignore[arg-type]
        elif isinstance(limit, Gt):
            found.append(beside(limit.gt, math.inf))
        elif isinstance(limit, Le):
            found.append(limit.le)  # type: ignore[arg-type]
        elif isinstance(limit, Lt):
            found.append(beside(limit.lt, -math.inf))
    return sorted(found)


def longest_name(name: str) -> str:
    """The longest name of letters that a setting takes."""
    for length in range(LONGEST_TRIED, 0, -1):
        try:
            load_settings(**{name: "a" * length})
        except EddyError:
            continue
        return "a" * length
    raise AssertionError(f"{name} takes no name of letters")


def extremes(name: str) -> list[Any]:
    """Numbers at their bounds, every choice, the longest of names with a pattern; nothing of free text."""
    field = FIELDS[name]
    if is_number(field):
        return list(bounds(field))
    chosen: list[Any] = []
    for kind in kinds(field):
        if kind is bool:
            chosen += [False, True]
        elif get_origin(kind) is Literal:
            chosen += get_args(kind)
        elif kind is str and any(getattr(one, "pattern", None) for one in field.metadata):
            chosen += ["cpu"] if name == "device" else [longest_name(name)]
    return chosen
