"""Which events move a user's state, which are targets of ranking and training, and which are negative.

A rule is a list of clauses, "rating<5,remove,dislike": an event type, or a type compared with the event's
value (<, <=, >, >=); "*" is every type, the empty string none. A clause with a comparison is false for an
event without value. A negative event still moves the state (the cell sees that it was negative) but is never
a target.

Rows keep values as float16, while a log may have more digits of them. So both sides of a comparison are
rounded to float16, and training judges an event as the stream does: 4.2 is not below 4.2.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError

ANY = "*"
_CLAUSE = re.compile(r"^(?P<type>[^<>=,]*?[^<>=,\s])\s*(?:(?P<op><=|>=|<|>)\s*(?P<number>[-+0-9.eE]+))?$")
_COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


MOVES, TARGET, NEGATIVE = 1, 2, 4
"""Bits of an entry of `EventRules.table`."""


@dataclass(frozen=True)
class Flags:
    """What the rules say of n events: three bool[n] arrays."""

    moves: NDArray[np.bool_]
    target: NDArray[np.bool_]
    negative: NDArray[np.bool_]


@dataclass(frozen=True)
class _Clause:
    type: str
    op: str | None
    number: float

    def matches(
        self, types: Sequence[str], type_index: NDArray[Any], value: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        if self.type == ANY:
            matches = np.ones(len(value), np.bool_)
        elif self.type in types:
            matches = np.asarray(type_index == types.index(self.type), np.bool_)
        else:
            matches = np.zeros(len(value), np.bool_)
        if self.op is not None:
            matches &= _COMPARE[self.op](value, self.number)  # NaN (no value) compares false
        return matches


def _as_in_rows(value: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Values as rows keep them: rounded to float16, NaN where there is none."""
    with np.errstate(over="ignore"):  # a rule may name a number above all values
        return np.asarray(value).astype(np.float16).astype(np.float32)


def _parse(rule: str, setting: str) -> tuple[_Clause, ...]:
    clauses = []
    for text in filter(None, (part.strip() for part in rule.split(","))):
        match = _CLAUSE.match(text)
        try:
            if match is None:
                raise ValueError
            number = float(_as_in_rows(float(match["number"]))) if match["op"] else 0.0
        except ValueError:
            raise EddyError(
                f"event rule '{setting}': cannot read {text!r}; write types, as in rating<5,remove"
            ) from None
        clauses.append(_Clause(match["type"], match["op"], number))
    return tuple(clauses)


@dataclass(frozen=True)
class EventRules:
    """Rules written as text (see the module), checked when they are made.

    Errors: EddyError naming the clause that cannot be read.
    """

    state: str = ANY
    target: str = ANY
    negative: str = "rating<3,dislike,remove"
    _clauses: dict[str, tuple[_Clause, ...]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for setting in ("state", "target", "negative"):
            self._clauses[setting] = _parse(getattr(self, setting), setting)

    def to_dict(self) -> dict[str, str]:
        """The rules as text: what `EventRules(**...)` takes."""
        return {"state": self.state, "target": self.target, "negative": self.negative}

    def flags(self, types: Sequence[str], type_index: NDArray[Any], value: NDArray[np.float32]) -> Flags:
        """The rules on n events: `type_index` int[n] into `types`, `value` float32[n] (NaN = absent)."""
        value, by_setting = _as_in_rows(value), {}
        for setting, clauses in self._clauses.items():
            by_setting[setting] = np.zeros(len(value), np.bool_)
            for clause in clauses:
                by_setting[setting] |= clause.matches(types, type_index, value)
        return Flags(
            by_setting["state"], by_setting["target"] & ~by_setting["negative"], by_setting["negative"]
        )

    def table(self) -> tuple[NDArray[np.uint8], dict[str, int]]:
        """The rules as a table for events whose values are float16, and its row of each type that a
        clause names.

        A row holds the sum of MOVES, TARGET and NEGATIVE for each value by its 16 bits: uint8[R, 65536].
        Types that the rules treat alike share a row; the last row is for every type that no clause names.
        """
        clauses_of: dict[str, set[tuple[str, str | None, float]]] = {}
        for setting, clauses in self._clauses.items():
            for clause in clauses:
                if clause.type != ANY:
                    clauses_of.setdefault(clause.type, set()).add((setting, clause.op, clause.number))
        rows: dict[frozenset[tuple[str, str | None, float]], int] = {}
        row_of = {
            name: rows.setdefault(frozenset(clauses), len(rows)) for name, clauses in clauses_of.items()
        }
        first = {row: name for name, row in reversed(row_of.items())}
        named = [first[row] for row in range(len(rows))]
        bits = np.arange(1 << 16, dtype=np.uint16)
        value = np.tile(bits.view(np.float16).astype(np.float32), len(named) + 1)
        flags = self.flags(named, np.repeat(np.arange(len(named) + 1), len(bits)), value)
        weighed = (flags.moves * MOVES + flags.target * TARGET + flags.negative * NEGATIVE).astype(np.uint8)
        return np.asarray(weighed.reshape(len(named) + 1, len(bits))), row_of


EVERY_EVENT = EventRules(negative="")
"""Every event moves the state and is a target: what benchmarks on plain interaction logs suppose."""
