"""Conditions and boosts in JSON, as bodies of requests and the rules document have them."""

import math
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from eddy.serving.catalogue.adjustments import Boost
from eddy.serving.catalogue.attributes import attribute_name
from eddy.serving.catalogue.field_values import MAX_TEXT
from eddy.serving.catalogue.filters import Condition, Filter

MAX_CONDITIONS, MAX_ALTERNATIVES = 16, 100
"""Conditions of a filter, and values of a condition."""

DEFAULT_FACTOR, MAX_FACTOR = 2.0, 1000.0


def encodable(text: str) -> str:
    """The text itself. Errors: ValueError when it cannot be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no Unicode text") from None
    return text


encodable_field = AfterValidator(encodable)

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), encodable_field]
Values = Annotated[list[Text], Field(max_length=MAX_ALTERNATIVES)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=1 / MAX_FACTOR, le=MAX_FACTOR, allow_inf_nan=False)]


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
