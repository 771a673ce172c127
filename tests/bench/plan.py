"""How much is measured: all of it within 40 minutes, or a short form (QUICK=1) within 8."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.programs import PeerName
from tests.bench.throughput import EddyRun

PEERS: tuple[PeerName, ...] = ("faust_textbook", "quix_stateful", "handwritten")


@dataclass(frozen=True)
class Plan:
    """Sizes of one form of the benchmark."""

    quick: bool
    rounds: int
    warm_s: float
    seconds: float
    """of each throughput window"""
    backlog: int
    """events: more than any program does in a window"""
    eddy: tuple[EddyRun, ...]

    @property
    def precisions(self) -> list[str]:
        return sorted({run.precision for run in self.eddy})


QUICK = Plan(
    quick=True,
    rounds=3,
    warm_s=1.0,
    seconds=3.0,
    backlog=250_000,
    eddy=(
        EddyRun("cell", "every", "float32"),
        EddyRun("whole", "every", "float32"),
        EddyRun("cell", "every", "auto"),
        EddyRun("whole", "latest", "auto"),
        EddyRun("whole", "off", "auto"),
    ),
)

FULL = Plan(
    quick=False,
    rounds=3,
    warm_s=2.0,
    seconds=8.0,
    backlog=800_000,
    eddy=(
        *(EddyRun(score, emit) for score in ("cell", "whole") for emit in ("every", "latest", "off")),
        *(EddyRun(score, emit, "auto") for score in ("cell", "whole") for emit in ("every", "latest")),
        *(
            EddyRun(score, "every", "auto", partitions)
            for score in ("cell", "whole")
            for partitions in (1, 2)
        ),
        *(EddyRun(score, "every", "auto", workers=2) for score in ("cell", "whole")),
    ),
)
