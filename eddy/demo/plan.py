"""How much the demo does, in its full form and in the short one for tests."""

from dataclasses import dataclass


def _settings(**settings: float) -> tuple[str, ...]:
    """Arguments of `eddy train` and `eddy refresh`."""
    return tuple(part for name, value in settings.items() for part in ("--set", f"{name}={value}"))


_FAST = {"learning_rate": 5e-3, "dropout": 0.2}
"""Learns faster at the start than the defaults, which suit many more epochs."""


@dataclass(frozen=True)
class Plan:
    """The amounts of one form of the demo."""

    quick: bool
    history: int | None
    """so many events before the cut are known from the start, the last ones; None: all of them"""
    live: int | None
    """so many events after the cut then happen; None: all of them"""
    rate: float
    """events per second of the paced part"""
    paced_s: float
    """the least length of the paced part, which goes on until the second version is live"""
    measured_s: float
    """the least length of the part without a pace, so that its throughput means something"""
    first: tuple[str, ...]
    """arguments of `eddy train` for the first version; it takes one core, beside the worker and the server"""
    new_events: int
    """the refresh begins when so many events have come since the first version was trained"""
    second: tuple[str, ...]
    """arguments of `eddy refresh`, likewise"""


FULL = Plan(
    quick=False,
    history=None,
    live=None,
    rate=100,
    paced_s=90,
    measured_s=10,
    first=_settings(**_FAST, hidden=64, dim=64, epochs=2, sampled=512, gate_events=6000, threads=1),
    new_events=4_000,
    second=_settings(epochs=1, gate_events=4000),
)
QUICK = Plan(
    quick=True,
    history=20_000,
    live=4_000,
    rate=100,
    paced_s=15,
    measured_s=1,
    first=_settings(**_FAST, hidden=32, dim=32, epochs=2, sampled=512, gate_events=6000, threads=1),
    new_events=2_500,
    second=_settings(epochs=1, gate_events=4000),
)
