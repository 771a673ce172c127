"""Filters and boosts as callers write them: flat parameters in a URL, conditions in the body of a POST.

| URL | body |
| --- | --- |
| `category=Drama&category=Comedy` | `{"attribute": "category", "any_of": ["Drama", "Comedy"]}` |
| `not_category=Horror` | `{"attribute": "category", "none_of": ["Horror"]}` |
| `min_price=5&max_price=20` | `{"attribute": "price", "min": 5, "max": 20}` |
| `where=brand:acme&where_not=colour:red` | `{"attribute": "brand", "any_of": ["acme"]}, …` |
| `min=year:1990` | `{"attribute": "year", "min": 1990}` |
| `boost=country:at` | `{"attribute": "country", "any_of": ["at"], "factor": 2}` |

Values of one attribute are alternatives; conditions on several attributes must all hold.
"""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from eddy.serving.catalogue.adjustments import Boost
from eddy.serving.catalogue.attributes import MAX_TEXT, attribute_name
from eddy.serving.catalogue.filters import Condition, Filter
from eddy.serving.routes.ids import encodable

MAX_CONDITIONS, MAX_ALTERNATIVES = 16, 100
"""Conditions of a filter, and values of a condition."""

DEFAULT_FACTOR, MAX_FACTOR = 2.0, 1000.0

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(encodable)]
Values = Annotated[list[Text], Field(max_length=MAX_ALTERNATIVES)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=MAX_FACTOR, allow_inf_nan=False)]


def _pair(text: str) -> str:
    name, colon, value = text.partition(":")
    if not (name and colon and value):
        raise ValueError("must be ATTRIBUTE:VALUE")
    return text


def _bound(text: str) -> str:
    _, _, value = _pair(text).partition(":")
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        finite = False
    if not finite:
        raise ValueError("must be ATTRIBUTE:NUMBER")
    return text


Pairs = Annotated[
    list[Annotated[str, Field(max_length=2 * MAX_TEXT), AfterValidator(encodable), AfterValidator(_pair)]],
    Field(max_length=MAX_ALTERNATIVES),
]
Bounds = Annotated[
    list[Annotated[str, Field(max_length=2 * MAX_TEXT), AfterValidator(_bound)]],
    Field(max_length=MAX_CONDITIONS),
]


class AttributeCondition(BaseModel):
    """What an attribute of an item must be; everything that is given must hold. Texts are compared without
    regard to case. An item without the attribute fulfils `none_of` alone.
    """

    model_config = ConfigDict(extra="forbid")

    attribute: Text
    any_of: Values = []
    none_of: Values = []
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "AttributeCondition":
        if not self.any_of and not self.none_of and self.min is None and self.max is None:
            raise ValueError("give any_of, none_of, min or max")
        return self

    def condition(self) -> Condition:
        """The condition."""
        return Condition(
            attribute_name(self.attribute),
            frozenset(map(str.casefold, self.any_of)),
            frozenset(map(str.casefold, self.none_of)),
            -math.inf if self.min is None else self.min,
            math.inf if self.max is None else self.max,
        )


Conditions = Annotated[list[AttributeCondition], Field(max_length=MAX_CONDITIONS)]


class AttributeBoost(AttributeCondition):
    """Items that fulfil a condition count as `factor` times as likely."""

    factor: Factor = DEFAULT_FACTOR

    def boost(self) -> Boost:
        """The boost."""
        return Boost((self.condition(),), self.factor)


def filter_of(conditions: list[AttributeCondition]) -> Filter:
    """Conditions that must all hold."""
    return tuple(condition.condition() for condition in conditions)


class FlatFilter(BaseModel):
    """Filters and boosts as parameters of a URL."""

    model_config = ConfigDict(extra="forbid")

    category: Annotated[Values, Field(description="One of these categories (`category` or `genres`).")] = []
    not_category: Annotated[Values, Field(description="None of these categories.")] = []
    min_price: Annotated[Number | None, Field(description="The least `price`.")] = None
    max_price: Annotated[Number | None, Field(description="The greatest `price`.")] = None
    where: Annotated[
        Pairs, Field(description="`ATTRIBUTE:VALUE`; of one attribute's values one is enough.")
    ] = []
    where_not: Annotated[Pairs, Field(description="`ATTRIBUTE:VALUE` that the items must not have.")] = []
    min: Annotated[Bounds, Field(description="`ATTRIBUTE:NUMBER`, at least.")] = []
    max: Annotated[Bounds, Field(description="`ATTRIBUTE:NUMBER`, at most.")] = []
    boost: Annotated[Pairs, Field(description="Items with this `ATTRIBUTE:VALUE` count as more likely.")] = []
    boost_factor: Annotated[Factor, Field(description="How many times as likely.")] = DEFAULT_FACTOR

    def conditions(self) -> Filter:
        """The conditions, one for each attribute."""
        any_of: dict[str, set[str]] = {}
        none_of: dict[str, set[str]] = {}
        for target, values, pairs in (
            (any_of, self.category, self.where), (none_of, self.not_category, self.where_not),
        ):  # fmt: skip
            for name, value in (*(("category", each) for each in values), *map(_split, pairs)):
                target.setdefault(name, set()).add(value.casefold())
        least = {name: float(value) for name, value in map(_split, self.min)}
        most = {name: float(value) for name, value in map(_split, self.max)}
        if self.min_price is not None:
            least["price"] = self.min_price
        if self.max_price is not None:
            most["price"] = self.max_price
        return tuple(
            Condition(
                name, frozenset(any_of.get(name, ())), frozenset(none_of.get(name, ())),
                least.get(name, -math.inf), most.get(name, math.inf),
            )
            for name in sorted({*any_of, *none_of, *least, *most})
        )  # fmt: skip

    def boosts(self) -> tuple[Boost, ...]:
        """The boosts."""
        return tuple(
            Boost((Condition(name, frozenset((value.casefold(),))),), self.boost_factor)
            for name, value in map(_split, self.boost)
        )


def _split(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition(":")
    return attribute_name(name), value
