"""Memory of a worker over a long backlog: if it stays flat, nothing is kept of the records that were read."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from eddy.models.errors import EddyError
from tests.bench.observe import Observer
from tests.bench.programs import running, worker
from tests.bench.testbed import Testbed

SAMPLE_S = 0.5
WARM_SHARE, LAST_SHARE = 0.25, 0.75


@dataclass
class Samples:
    """Resident bytes beside the number of committed events, sample by sample."""

    events: list[int] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """(largest in the last quarter of the events / median after the first quarter) - 1.

        Errors: ValueError without samples in both.
        """
        done = self.events[-1] if self.events else 0
        settled = [rss for at, rss in zip(self.events, self.rss, strict=True) if at >= WARM_SHARE * done]
        last = [rss for at, rss in zip(self.events, self.rss, strict=True) if at >= LAST_SHARE * done]
        if not done or len(settled) == len(last):
            raise ValueError("too few samples of memory: the backlog is too short")
        return max(last) / statistics.median(settled) - 1


def measure_memory(testbed: Testbed, events: int, limit_s: float) -> dict[str, Any]:
    """Run a worker with default settings and the whole score over a backlog, for at most `limit_s`."""
    with testbed.installation(4, events) as settings:
        testbed.go_live(settings, testbed.version("whole"))
        observer, samples = Observer(settings), Samples()
        try:
            with running([worker(settings, testbed.work_folder(), 0, {})]) as (program,):
                deadline = time.monotonic() + limit_s
                while observer.committed() < events and time.monotonic() < deadline:
                    if program.child.process.poll() is not None:
                        raise EddyError(f"the worker ended: {program.child.last_line}")
                    time.sleep(SAMPLE_S)
                    samples.events.append(observer.committed())
                    samples.rss.append(program.rss())
        finally:
            observer.close()
    return {
        "events": samples.events[-1],
        "of": events,
        "growth": round(samples.growth(), 4),
        "rss_end": samples.rss[-1],
        "samples": [samples.events[::4], samples.rss[::4]],
    }
