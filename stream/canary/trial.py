"""The trial of canaries: what the ranks of an epoch with shares say of its versions, look by look.

The version with the greatest share is the live one (of equal shares, the first), and the others are its
canaries. A trial is a function of the announcement, its limit, and what workers told on `metrics`, in the
topic's order: a watcher that starts again takes the same looks at the same counts.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.evaluation.sequential import ALLOWED_ERROR, LOOKS, Finding, GroupSums, SequentialTest
from eddy.stream.records.rank_counts import SUMS, RankedBy
from eddy.stream.records.schema import GROUPS, Announcement, Decided, Share

METRIC = "MRR@20 above that of decayed popularity"
"""What versions are compared by."""

_EVENTS, _RECALL, _RECIPROCAL, _POPULARITY_RECALL, _POPULARITY_RECIPROCAL = range(len(SUMS))


@dataclass(frozen=True)
class Limit:
    """When a trial ends at the latest: whichever comes first. Errors: EddyError for no limit at all, or one
    that is not positive.
    """

    seconds: float | None = None
    """since the announcement"""
    events: int | None = None
    """ranked events of the epoch, those of all its versions"""

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.seconds, self.events) if limit is not None]
        if not limits or not all(0 < limit < math.inf for limit in limits):
            raise EddyError("a canary needs a limit of time or of events, greater than zero")


@dataclass(frozen=True)
class Verdict:
    """How a trial ends."""

    decided: Decided
    shares: list[tuple[Share, int]]
    """versions, each with the percent of the users that it has from now on"""


class Trial:
    """The trial of one announcement's canaries."""

    def __init__(self, announcement: Announcement, limit: Limit) -> None:
        self.epoch, self._limit = announcement.epoch, limit
        self._began_ms = announcement.announced_at
        self.live, *self.canaries = announcement.by_percent
        allowed_error = ALLOWED_ERROR / max(len(self.canaries), 1)
        self._tests = {share.version: SequentialTest(allowed_error) for share in self.canaries}
        self._sums = {share.version: np.zeros((len(SUMS), GROUPS)) for share in announcement.every_share}
        self._looks_taken = 0
        self._by_time = 0.0
        self.verdict: Verdict | None = None

    def take(self, at_ms: int, sums: dict[RankedBy, NDArray[np.float64]]) -> None:
        """Add what a worker told at a time (ms), after the looks that were due before. Ranks of other epochs
        do not count, whichever version made them.
        """
        self.pass_time(at_ms)
        for by, table in sums.items():
            if by.epoch == self.epoch and by.version in self._sums:
                self._sums[by.version] += table
        self._look()

    def pass_time(self, now_ms: int) -> None:
        """Take the look that is due by this time (ms)."""
        if self._limit.seconds is not None:
            passed_s = (now_ms - self._began_ms) / 1000
            self._by_time = max(self._by_time, passed_s / self._limit.seconds)
        self._look()

    @property
    def events(self) -> int:
        """Ranked events of all versions."""
        return sum(int(sums[_EVENTS].sum()) for sums in self._sums.values())

    def _look(self) -> None:
        """Take the looks that are due, each for itself, so that it does not matter when a watcher comes."""
        passed = self._by_time
        if self._limit.events is not None:
            passed = max(passed, self.events / self._limit.events)
        while self.verdict is None and self._looks_taken < len(LOOKS) and LOOKS[self._looks_taken] <= passed:
            share = LOOKS[self._looks_taken]
            self._looks_taken += 1
            live = group_sums(self._sums[self.live.version])
            self.verdict = self._verdict(
                [
                    self._tests[canary.version].look(share, group_sums(self._sums[canary.version]), live)
                    for canary in self.canaries
                ]
            )

    def _verdict(self, findings: Sequence[Finding]) -> Verdict | None:
        """What follows from a look; None while the trial goes on.

        1. A canary that is better goes live at once, the best of several.
        2. One that is worse gives its share back, the worst of several; the others go on as a new epoch.
        3. At the last look the best of those that are not worse goes live; if too little is known of each,
           all are taken back.
        """
        tried = sorted(zip(self.canaries, findings, strict=True), key=lambda pair: -pair[1].difference)
        for wanted in ("better", "worse", "not worse", "too few"):
            chosen = [pair for pair in tried if pair[1].outcome == wanted]
            if not chosen:
                continue
            share, finding = chosen[-1 if wanted == "worse" else 0]
            if wanted in ("better", "not worse"):
                return self._end("promoted", share, finding, [(share, 100)])
            others = [other for other in self.canaries if other is not share] if wanted == "worse" else []
            left = 100 - sum(other.percent for other in others)
            shares = [(self.live, left), *((other, other.percent) for other in others)]
            return self._end("taken back", share, finding, shares)
        return None

    def verdict_without(self, gone: Collection[str]) -> Verdict | None:
        """The verdict as it can be carried out where canaries are gone (their ids), which can have no users
        any more: the live version gets their shares. None before there is a verdict.

        One that was to go live is taken back; the others go on as a new epoch.
        """
        verdict = self.verdict
        if verdict is None or not any(share.version in gone for share, _ in verdict.shares):
            return verdict
        decided, others = verdict.decided, [share for share, _ in verdict.shares if share is not self.live]
        if decided.kind == "promoted":
            reason = f"Its files are gone, so that it cannot go live. By its ranks: {decided.reason}"
            decided = msgspec.structs.replace(decided, kind="taken back", reason=reason)
            others = self.canaries
        others = [other for other in others if other.version not in gone]
        left = 100 - sum(other.percent for other in others)
        return Verdict(decided, [(self.live, left), *((other, other.percent) for other in others)])

    def _end(self, kind: str, share: Share, finding: Finding, shares: list[tuple[Share, int]]) -> Verdict:
        decided = Decided(
            "promoted" if kind == "promoted" else "taken back",
            share.version,
            self.live.version,
            self.epoch,
            _reason(finding),
            self._figures(share, finding),
        )
        return Verdict(decided, shares)

    def _figures(self, share: Share, finding: Finding) -> dict[str, float]:
        """What a verdict rests on. Numbers that are not finite are left out."""
        figures: dict[str, float] = {
            "canary_epoch": self.epoch, "percent": share.percent, "share_passed": finding.share,
            "difference": finding.difference, "low": finding.low, "high": finding.high,
            "level": finding.level, "events": finding.events, "live_events": finding.live_events,
        }  # fmt: skip
        for prefix, version in (("", share.version), ("live_", self.live.version)):
            sums = self._sums[version].sum(axis=1)
            events = max(float(sums[_EVENTS]), 1.0)
            figures |= {
                f"{prefix}recall_at_20": sums[_RECALL] / events,
                f"{prefix}mrr_at_20": sums[_RECIPROCAL] / events,
                f"{prefix}popularity_recall_at_20": sums[_POPULARITY_RECALL] / events,
                f"{prefix}popularity_mrr_at_20": sums[_POPULARITY_RECIPROCAL] / events,
            }
        return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def group_sums(sums: NDArray[np.float64]) -> GroupSums:
    """What is compared of a version, from float64[len(SUMS), GROUPS]."""
    return GroupSums(
        sums[_EVENTS],
        sums[_RECALL] + sums[_POPULARITY_RECALL],
        sums[_RECIPROCAL] - sums[_POPULARITY_RECIPROCAL],
    )


def _reason(finding: Finding) -> str:
    """One sentence."""
    counted = f"{finding.events} ranked events, the live version had {finding.live_events}"
    if finding.outcome == "too few":
        return f"Too few events to tell whether it is worse: it had {counted}."
    says = {
        "worse": "Worse than the live version",
        "better": "Better than the live version",
        "not worse": "Not worse than the live version beyond noise",
    }[finding.outcome]
    return (
        f"{says}: its {METRIC} differs by {finding.difference:+.4f} "
        f"({finding.low:+.4f} to {finding.high:+.4f}) after {finding.share:.1%} of the trial; it had "
        f"{counted}."
    )
