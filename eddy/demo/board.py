"""The state of the running demo: flow.py and scrape.py write it, display.py shows it."""

import time
from dataclasses import dataclass, field

from eddy.stream.records.schema import Recommendation

SHOWN = 8
"""So many titles of the watched user's list are shown."""

_RATE_OVER_S = 5.0
"""The rate is taken over so many seconds."""


@dataclass
class Watched:
    """A real user whose list is followed."""

    user: str
    title: dict[str, str]
    shown: list[str] = field(default_factory=list)
    new: set[str] = field(default_factory=set)
    """titles that were not on the list before it changed last"""
    changes: int = 0

    def take(self, answer: Recommendation) -> None:
        """Look at a list that was read; those of other users are passed over."""
        if answer.user_id != self.user:
            return
        titles = [self.title.get(item.item_id, item.item_id) for item in answer.items[:SHOWN]]
        if titles != self.shown:
            self.changes += bool(self.shown)
            self.new = set(titles) - set(self.shown) if self.shown else set()
            self.shown = titles


@dataclass
class Board:
    """Figures of the running demo. Times are in s, quality figures are shares."""

    phase: str = "starting"
    done: float = 0.0
    of: float = 0.0
    """the phase is over when `done` has come so far; 0: not known"""
    note: str = ""
    page: str = ""
    """where the live page is, as soon as the server answers"""
    url: str = ""
    sent: int = 0
    applied: int = 0
    lag: int = 0
    unanswered: int = 0
    epoch: int = 0
    stale_rows: int = 0
    quality: dict[str, float] = field(default_factory=dict)
    http_answers: int = 0
    http_failures: int = 0
    watched: Watched | None = None
    refresh: str = ""
    """the last line of the second version's training"""
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, float] = field(default_factory=dict)
    """seconds that each phase took"""
    _phase_began: float = field(default_factory=time.monotonic)
    _history: list[tuple[float, int]] = field(default_factory=list)

    def begin(self, phase: str, of: float = 0.0) -> None:
        """Begin the next phase, which is over when `done` is `of` (0: not known)."""
        now = time.monotonic()
        self.phases[self.phase] = round(now - self._phase_began, 1)
        self.phase, self.of, self.done, self.note, self._phase_began = phase, of, 0.0, "", now

    def say(self, line: str) -> None:
        """Show a line of news within a phase."""
        self.note = line

    def take_applied(self, applied: int) -> None:
        """Note the worker's count of applied events; called from time to time."""
        now = time.monotonic()
        self.applied = applied
        self._history = [(at, n) for at, n in self._history if now - at <= _RATE_OVER_S] + [(now, applied)]

    @property
    def rate(self) -> float:
        """Events applied per second, over the last seconds."""
        if len(self._history) < 2:
            return 0.0
        (began, before), (ended, after) = self._history[0], self._history[-1]
        return (after - before) / max(ended - began, 1e-3)
