"""What a soak holds: memory, files and threads of processes, and disk, none of which may grow."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from eddy.stream.local_kafka.broker import LocalBroker
from tests.chaos import soak_disk
from tests.chaos.fleet import Fleet
from tests.chaos.soak_disk import Disk

EVERY_S = 2.0
ALLOWED = 0.10
"""A figure has grown when its median in the last third is so much above that in the middle third. (The first
third belongs to what fills once: caches, windows, the catalogue.)
"""
NAMES = ("memory_mb", "files", "threads")
FIGURES = {"worker": NAMES, "server": NAMES, "broker": NAMES, "disk": soak_disk.NAMES}
"""Figures by role."""


class Sampler(threading.Thread):
    """Looks at workers, the server, the broker and the disk every few seconds."""

    def __init__(
        self, fleet: Fleet, server: int, broker: LocalBroker, disk: Disk, stop: threading.Event
    ) -> None:
        super().__init__(name="sampler", daemon=True)
        self._fleet, self._server, self._broker, self._stopped = fleet, server, broker, stop
        self._disk = disk
        self.samples: list[dict[str, Any]] = []
        """`seconds` since the start and, by role, the largest figure of its processes"""

    def run(self) -> None:
        started = time.monotonic()
        while not self._stopped.wait(EVERY_S):
            workers = [worker.process.pid for worker in list(self._fleet.workers)]
            roles: dict[str, list[int | None]] = {
                "worker": workers,
                "server": [self._server],
                "broker": [self._broker.pid],
            }
            sample: dict[str, Any] = {
                "seconds": round(time.monotonic() - started, 1), "disk": self._disk.look(),
            }  # fmt: skip
            for role, pids in roles.items():
                figures = [look(pid) for pid in pids if pid is not None]
                known = [one for one in figures if one]
                if known:
                    sample[role] = {name: max(one[name] for one in known) for name in NAMES}
            self.samples.append(sample)

    def series(self, role: str, name: str) -> list[tuple[float, float]]:
        """One figure over time."""
        return [(sample["seconds"], sample[role][name]) for sample in self.samples if role in sample]

    def growth(self) -> dict[str, dict[str, float]]:
        """By role and figure: how much larger its median is in the last third than in the middle one."""
        return {role: {name: self._growth(role, name) for name in names} for role, names in FIGURES.items()}

    def _growth(self, role: str, name: str) -> float:
        values = [value for _, value in self.series(role, name)]
        third = len(values) // 3
        middle = statistics.median(values[third : 2 * third]) if third else 0
        return round(statistics.median(values[2 * third :]) / middle - 1, 4) if middle else 0.0

    def grown(self) -> list[str]:
        """The figures that grew by more than is allowed."""
        return [
            f"{role} {name}"
            for role, figures in self.growth().items()
            for name, growth in figures.items()
            if growth > ALLOWED and (role != "disk" or name in soak_disk.BOUNDED)
        ]

    def table(self) -> str:
        """The last values and their growth, in Markdown."""
        lines = ["| process | figure | at the end | growth |", "| --- | --- | --- | --- |"]
        for role, figures in self.growth().items():
            for name, growth in figures.items():
                last = self.series(role, name)[-1:] or [(0, 0)]
                lines.append(f"| {role} | {name} | {last[0][1]:,.5g} | {growth:+.1%} |")
        return "\n".join(lines)


def look(pid: int) -> dict[str, float] | None:
    """The figures of a process; None when it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return {
                "memory_mb": round(process.memory_info().rss / 1e6, 1),
                "files": process.num_fds(),
                "threads": process.num_threads(),
            }
    except psutil.Error:
        return None


def draw(sampler: Sampler, path: Path) -> None:
    """A plot of every figure over time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    plots = [
        *(
            (name.replace("_mb", ", MB"), [(role, name, role) for role in ("worker", "server", "broker")])
            for name in NAMES
        ),
        (
            "disk, MB",
            [
                ("disk", "state_mb", "state"),
                ("disk", "registry_mb", "registry"),
                ("disk", "event_log_mb", "event log"),
            ],
        ),
        (
            "bytes per event",
            [("disk", "event_log_bytes_per_event", "event log"), ("disk", "kafka_bytes_per_event", "Kafka")],
        ),
    ]
    figure, axes = pyplot.subplots(len(plots), 1, figsize=(8, 11), sharex=True, layout="constrained")
    for axis, (title, lines) in zip(axes, plots, strict=True):
        for role, name, label in lines:
            points = sampler.series(role, name)
            axis.plot([at / 60 for at, _ in points], [value for _, value in points], label=label)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.legend(loc="lower right", fontsize="small")
    axes[-1].set_xlabel("minutes")
    figure.savefig(path)
    pyplot.close(figure)
