"""Refreshes beside a soak, each a process of its own as users run them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from eddy.models.decisions import read_decisions
from eddy.refresh.endings import NOT_LIVE
from eddy.refresh.job import FOLDER
from eddy.stream.records.settings import Settings
from tests.chaos.refreshes import environment

SMALL = ("epochs=1", "gate_events=4000")
"""Settings of a training that leaves time for the rest."""

TIMEOUT_S = 600.0
ENDINGS = {0: "went live", NOT_LIVE: "refused"}
"""What a refresh may end with, by exit code."""


class Refresher(threading.Thread):
    """Runs `eddy refresh` again and again, with a pause after each, until it is told to finish."""

    def __init__(self, settings: Settings, every_s: float, folder: Path) -> None:
        """folder: of their working files."""
        super().__init__(name="refresher", daemon=True)
        self._settings, self._every_s = settings, every_s
        self._environment = {**environment(settings), "EDDY_CACHE_DIR": str(folder)}
        self._told_to_end = threading.Event()
        self.under_way = False
        self.endings: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._told_to_end.wait(self._every_s):
            self.under_way = True
            self._refresh()
            self.under_way = False

    def finish(self) -> None:
        """Begin no further refresh, wait for the one that is under way, and look at what all have left."""
        self._told_to_end.set()
        if self.is_alive():
            self.join()
        registry = self._settings.registry
        left = [name for name in (registry / FOLDER).children() if name != "lock"]
        if left:
            self.problems.append(f"left of a refresh in the registry: {', '.join(left)}")
        decisions = len(read_decisions(registry))
        if decisions != sum(self.endings.values()):
            self.problems.append(f"{sum(self.endings.values())} refreshes, {decisions} decisions")

    def _refresh(self) -> None:
        began = time.monotonic()
        command = [sys.executable, "-m", "eddy", "refresh", "--least-events", "100"]
        command += [part for setting in SMALL for part in ("--set", setting)]
        try:
            done = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.problems.append(f"a refresh took longer than {TIMEOUT_S:g} s")
            return
        self.seconds.append(round(time.monotonic() - began, 1))
        if done.returncode in ENDINGS:
            self.endings[ENDINGS[done.returncode]] += 1
            for decision in read_decisions(self._settings.registry)[-1:]:
                print(f"  {decision.reason}", flush=True)
        else:
            self.problems.append(f"a refresh ended with {done.returncode}: {done.stderr[-500:]}")
            print(f"  {self.problems[-1]}", flush=True)
        print(f"  refresh in {self.seconds[-1]:.0f} s: {dict(self.endings)}", flush=True)
