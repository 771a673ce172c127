"""How a refresh ends: its decision is recorded beside the versions, and nothing is left of its work."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from eddy.models.decisions import MADE_LIVE, Decision, Kind, read_decisions, record_decision
from eddy.models.errors import EddyError
from eddy.models.storage import Location
from eddy.refresh.job import Job, JobFile

NOT_LIVE = 3
"""Exit code of a refresh after which nothing new is live: it was not better, or there was too little new."""


@dataclass(frozen=True)
class Outcome:
    """How a refresh ended, how long each step took, in seconds, and the figures of its gate, empty where it
    did not come so far.
    """

    decision: Decision
    seconds: dict[str, float]
    judgement: dict[str, Any] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether all users have the new version now."""
        return self.decision.kind in MADE_LIVE


class Endings:
    """Ends refreshes of one registry."""

    def __init__(self, registry: Location, files: JobFile, given: str | None) -> None:
        """given: id of the version that is judged instead of training one."""
        self._registry, self._files, self._given = registry, files, given

    def end(self, job: Job, kind: Kind, epoch: int | None, reason: str) -> Outcome:
        """End a refresh with a decision. Errors: EddyError."""
        decision = self.record(job, job.live, kind, epoch, reason)
        self._files.clear()
        return Outcome(decision, job.seconds, job.judgement)

    @contextmanager
    def recorded(self, job: Job, unfit: type[EddyError]) -> Iterator[None]:
        """Record an error of this kind as a refusal: the candidate is given up, since going on with it again
        would fail again.
        """
        try:
            yield
        except unfit as error:
            self.record(job, job.live, "refused", None, str(error))
            self._files.clear()
            raise

    def record(self, job: Job | None, live: str, kind: Kind, epoch: int | None, reason: str) -> Decision:
        """Record a decision, once for each job. job: None where it came to no plan. Errors: EddyError."""
        figures: dict[str, Any] = {}
        if job is not None:
            # A refresh that was killed between its record and its end finds the record again.
            for earlier in read_decisions(self._registry):
                if earlier.figures.get("refresh") == job.id:
                    return earlier
            figures = {"judgement": job.judgement, "seconds": job.seconds, "refresh": job.id}
        decision = Decision(
            kind=kind,
            version=(job.version if job else "") or self._given or "",
            live=live,
            epoch=epoch,
            reason=reason,
            figures=figures,
            decided_by="refresh",
        )
        record_decision(self._registry, decision)
        return decision
