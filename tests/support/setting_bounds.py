"""The extreme values of each setting, read from the class of settings, so that a new setting is covered at
once.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings, load_settings

FIELDS = Settings.model_fields
LONGEST_TRIED = 300


def types_of(field: FieldInfo) -> list[Any]:
    """The types of a field, without None."""
    types = get_args(field.annotation) if get_origin(field.annotation) is not Literal else (field.annotation,)
    return [type_ for type_ in types or (field.annotation,) if type_ is not type(None)]


def is_number(field: FieldInfo) -> bool:
    return any(type_ in (int, float) for type_ in types_of(field))


def bounds(field: FieldInfo) -> list[int | float]:
    """The least and the greatest number that a field allows; fewer where it is not bounded."""
    whole = int in types_of(field)

    def beside(limit: Any, towards: float) -> int | float:
        return int(limit + math.copysign(1, towards)) if whole else math.nextafter(limit, towards)

    limits: list[int | float] = []
    for limit in field.metadata:
        if isinstance(limit, Ge):
            limits.append(limit.ge)  # type: ignore[arg-type]
        elif isinstance(limit, Gt):
            limits.append(beside(limit.gt, math.inf))
        elif isinstance(limit, Le):
            limits.append(limit.le)  # type: ignore[arg-type]
        elif isinstance(limit, Lt):
            limits.append(beside(limit.lt, -math.inf))
    return sorted(limits)


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
    """The extreme values of a setting: numbers at their bounds, every choice, the longest name where names
    have a pattern, and none for free text.
    """
    field = FIELDS[name]
    if is_number(field):
        return list(bounds(field))
    values: list[Any] = []
    for type_ in types_of(field):
        if type_ is bool:
            values += [False, True]
        elif get_origin(type_) is Literal:
            values += get_args(type_)
        elif type_ is str and any(getattr(constraint, "pattern", None) for constraint in field.metadata):
            values += ["cpu"] if name == "device" else [longest_name(name)]
    return values
