"""What the demo knows at each moment: written by the runner, shown by display.py."""

import time
from dataclasses import dataclass, field

from eddy.stream.records.schema import Recommendation

SHOWN = 8
_RATE_OVER_S = 5.0


@dataclass
class Watched:
    """One real user whose list is followed."""

    user: str
    title: dict[str, str]
    shown: list[str] = field(default_factory=list)
    new: set[str] = field(default_factory=set)
    """titles that were not on the list before"""
    changes: int = 0

    def take(self, answer: Recommendation) -> None:
        """A list was read; those of others are passed over."""
        if answer.user_id != self.user:
            return
        titles = [self.title.get(item.item_id, item.item_id) for item in answer.items[:SHOWN]]
        if titles != self.shown:
            self.changes += bool(self.shown)
            self.new = set(titles) - set(self.shown) if self.shown else set()
            self.shown = titles


@dataclass
class Board:
    """Figures of the running demo; times in s, quality as shares."""

    phase: str = "starting"
    done: float = 0.0
    of: float = 0.0
    """of the phase; 0 = not known"""
    note: str = ""
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
    """what the training of the second version says"""
    started: float = field(default_factory=time.monotonic)
    phases: dict[str, float] = field(default_factory=dict)
    """seconds that each phase took"""
    _phase_began: float = field(default_factory=time.monotonic)
    _history: list[tuple[float, int]] = field(default_factory=list)

    def begin(self, phase: str, of: float = 0.0) -> None:
        """The next phase."""
        now = time.monotonic()
        self.phases[self.phase] = round(now - self._phase_began, 1)
        self.phase, self.of, self.done, self.note, self._phase_began = phase, of, 0.0, "", now

    def say(self, line: str) -> None:
        """News within a phase."""
        self.note = line

    def take_applied(self, applied: int) -> None:
        """The worker's count of applied events, from time to time."""
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
