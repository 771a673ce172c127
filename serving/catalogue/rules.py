"""Business rules: one JSON document, the record on `items` under RULES_KEY.

    {"rules": [
      {"name": "spring sale", "boost": 2, "where": [{"attribute": "tag", "any_of": ["sale"]}],
       "start": "2026-03-01", "end": "2026-04-01"},
      {"name": "last season", "bury": 10, "where": [{"attribute": "year", "max": 2020}]},
      {"name": "home page", "pin": ["item-9", "item-3"]},
      {"name": "variety", "cap": 3, "attribute": "category"}]}

| rule | what it does |
| --- | --- |
| boost | items that fulfil `where` count as so many times as likely |
| bury | items that fulfil `where` count as so many times less likely |
| pin | these items stand at the top of every list, in this order, where the caller's filters let them |
| cap | a list has at most so many items of one value of `attribute` |

A rule holds from `start` on until before `end`, by the server's clock.
"""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID
from eddy.serving.catalogue.adjustments import Boost
from eddy.serving.catalogue.attributes import attribute_name
from eddy.serving.catalogue.filter_language import MAX_FACTOR, Conditions, Text, filter_of
from eddy.serving.json_documents import first_fault

MAX_RULES, MAX_PINS, MAX_BYTES = 100, 50, 1 << 20
"""Rules of a document, items of a rule that pins, and bytes of a document."""


def _moment(value: Any) -> Any:
    """A date without an hour begins at midnight; without a zone it is in UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("is no date such as 2026-03-01 or 2026-03-01T08:00:00Z") from None
    elif not isinstance(value, date):
        raise ValueError("is no date such as 2026-03-01 or 2026-03-01T08:00:00Z")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


Moment = Annotated[datetime, BeforeValidator(_moment)]
Times = Annotated[float, Field(gt=1, le=MAX_FACTOR, allow_inf_nan=False)]


class Rule(BaseModel):
    """One rule: exactly one of boost, bury, pin and cap."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    boost: Times | None = None
    bury: Times | None = None
    pin: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_ID)]] | None,
        Field(min_length=1, max_length=MAX_PINS),
    ] = None
    cap: Annotated[int | None, Field(ge=1, le=1000)] = None
    attribute: Text = "category"
    where: Conditions = []
    start: Moment | None = None
    end: Moment | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Rule":
        given = [name for name in ("boost", "bury", "pin", "cap") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of boost, bury, pin and cap")
        by_attributes = given[0] in ("boost", "bury")
        if by_attributes and not self.where:
            raise ValueError("give `where`: which items?")
        if self.where and not by_attributes:
            raise ValueError("only boost and bury have `where`")
        if self.start and self.end and self.start >= self.end:
            raise ValueError("start must be before end")
        return self

    @property
    def start_ms(self) -> float:
        """ms from which on it holds."""
        return -math.inf if self.start is None else self.start.timestamp() * 1000

    @property
    def end_ms(self) -> float:
        """ms from which on it holds no more."""
        return math.inf if self.end is None else self.end.timestamp() * 1000


class RulesDocument(BaseModel):
    """All rules."""

    model_config = ConfigDict(extra="forbid")

    rules: Annotated[list[Rule], Field(max_length=MAX_RULES)]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "RulesDocument":
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules have the name {name!r}")
        return self


def decode_rules(value: bytes) -> RulesDocument:
    """Rules out of a record or a file. Errors: EddyError, one line that says what is wrong where."""
    if len(value) > MAX_BYTES:
        raise EddyError(f"the rules have more than {MAX_BYTES} bytes")
    try:
        return RulesDocument.model_validate_json(value)
    except ValidationError as error:
        raise EddyError(f"the rules cannot be used: {first_fault(error)}") from None


@dataclass(frozen=True)
class ActiveRules:
    """The rules that hold at a moment, each with its name."""

    boosts: tuple[tuple[str, Boost], ...] = ()
    """those that bury have a factor below 1"""
    pins: tuple[tuple[str, str], ...] = ()
    """item ids in the order of their places"""
    caps: tuple[tuple[str, str, int], ...] = ()
    """attribute, and the most items of one of its values"""


class Rules:
    """The rules of a document, and which of them hold when."""

    def __init__(self, document: RulesDocument) -> None:
        self._rules = document.rules
        self._active = ActiveRules()
        self._from = self._until = -math.inf

    def at(self, wall: int) -> ActiveRules:
        """The rules that hold at `wall` (ms)."""
        if not self._from <= wall < self._until:
            dates = [each for rule in self._rules for each in (rule.start_ms, rule.end_ms)]
            self._from = max((each for each in dates if each <= wall), default=-math.inf)
            self._until = min((each for each in dates if each > wall), default=math.inf)
            self._active = _active([rule for rule in self._rules if rule.start_ms <= wall < rule.end_ms])
        return self._active


def _active(rules: list[Rule]) -> ActiveRules:
    boosts, caps = [], []
    pins: dict[str, str] = {}
    for rule in rules:
        factor = rule.boost or (1 / rule.bury if rule.bury else None)
        if factor is not None:
            boosts.append((rule.name, Boost(filter_of(rule.where), factor)))
        for item in rule.pin or ():
            pins.setdefault(item, rule.name)
        if rule.cap is not None:
            caps.append((rule.name, attribute_name(rule.attribute), rule.cap))
    return ActiveRules(tuple(boosts), tuple((name, item) for item, name in pins.items()), tuple(caps))
