"""The popularity of items over time, as a server has looked at it since it started."""

from collections import OrderedDict, deque
from dataclasses import dataclass

INTERVAL_S = 15.0
"""The time between two looks."""

KEPT_LOOKS = 240
"""An hour."""

MOST_POPULAR = MOST_ASKED = 200
"""So many items are looked at, each: those that are popular, and those that somebody asked for last."""


@dataclass(frozen=True, slots=True)
class PopularityAt:
    """A decayed count of events."""

    time: int
    """ms since 1970, by the server's clock"""
    count: float


class PopularityHistory:
    """Counts by item, look by look; of bounded size."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, dict[str, float]]] = deque(maxlen=KEPT_LOOKS)
        self._asked: OrderedDict[str, None] = OrderedDict()

    def ask(self, item_id: str) -> list[PopularityAt]:
        """The counts of an item, oldest first; from now on it is looked at."""
        self._asked[item_id] = None
        self._asked.move_to_end(item_id)
        if len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)
        return [PopularityAt(time, counts[item_id]) for time, counts in self._looks if item_id in counts]

    def asked(self) -> list[str]:
        """The items that somebody asked for last."""
        return list(self._asked)

    def note(self, time: int, counts: dict[str, float]) -> None:
        """What a look at a time (ms) has found."""
        self._looks.append((time, counts))
