"""How much the demo does: the full form, and the short one for tests."""

from dataclasses import dataclass


def _training(**settings: int) -> tuple[str, ...]:
    """With a faster start than the defaults, which suppose many more epochs."""
    fast = {"learning_rate": 5e-3, "dropout": 0.2}
    return (
        "--cell",
        "gru",
        *(part for name, at in (fast | settings).items() for part in ("--set", f"{name}={at}")),
    )


@dataclass(frozen=True)
class Plan:
    """Amounts of one form of the demo."""

    quick: bool
    known: int | None
    """events that the system knows from the start: the last so many before the cut; None: all of them"""
    live: int | None
    """events that then happen; None: all of them"""
    rate: float
    """events per second of the paced part"""
    paced_s: float
    """at least; the paced part goes on until the second version is live"""
    measured_s: float
    """that the part without a pace should take, for its throughput to mean something"""
    first: tuple[str, ...]
    second: tuple[str, ...]
    """arguments of `eddy train`: on one core each, beside a worker and a server that start or work"""


FULL = Plan(
    quick=False,
    known=None,
    live=None,
    rate=100,
    paced_s=90,
    measured_s=10,
    first=_training(hidden=64, dim=64, epochs=2, sampled=512, gate_events=6000, threads=1),
    second=_training(hidden=64, dim=64, epochs=1, sampled=512, gate_events=4000, threads=1),
)
QUICK = Plan(
    quick=True,
    known=20_000,
    live=4_000,
    rate=100,
    paced_s=15,
    measured_s=1,
    first=_training(hidden=32, dim=32, epochs=2, sampled=512, gate_events=6000, threads=1),
    second=_training(hidden=32, dim=32, epochs=1, sampled=512, gate_events=4000, threads=1),
)
