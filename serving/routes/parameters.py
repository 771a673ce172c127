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

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eddy.serving.catalogue.adjustments import Boost
from eddy.serving.catalogue.attributes import attribute_name
from eddy.serving.catalogue.field_values import MAX_TEXT
from eddy.serving.catalogue.filter_language import (
    DEFAULT_FACTOR,
    MAX_ALTERNATIVES,
    MAX_CONDITIONS,
    Factor,
    Number,
    Values,
    encodable_field,
)
from eddy.serving.catalogue.filters import Condition, Filter


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
    list[Annotated[str, Field(max_length=2 * MAX_TEXT), encodable_field, AfterValidator(_pair)]],
    Field(max_length=MAX_ALTERNATIVES),
]
Bounds = Annotated[
    list[Annotated[str, Field(max_length=2 * MAX_TEXT), encodable_field, AfterValidator(_bound)]],
    Field(max_length=MAX_CONDITIONS),
]


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
