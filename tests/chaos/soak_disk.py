"""What a soak keeps on disk. States and working files must not grow; Kafka's logs and the event log hold
events, and so grow with them by nature: what they take for each event must not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eddy.models.logs.manifests import newest_manifests
from eddy.models.storage import located

NAMES = ("state_mb", "registry_mb", "event_log_mb", "event_log_bytes_per_event", "kafka_bytes_per_event")
BOUNDED = ("state_mb", "event_log_bytes_per_event", "kafka_bytes_per_event")
"""Those that must not grow. The registry has one more version for each refresh that goes live and a decision
for each, and nothing else (`tests.chaos.soak_refreshes` looks). `event_log_mb` counts replaced files, too,
which stay for an hour.
"""


@dataclass
class Disk:
    """The folders of an installation."""

    state: Callable[[], Iterable[Path]]
    """of the workers that run now, the server and refreshes: snapshots, working files, compiled loops"""
    registry: Path
    event_log: Path
    kafka: Path
    sent: Callable[[], int]
    """how many events were sent so far"""

    def look(self) -> dict[str, float]:
        """Each figure of NAMES as of now; of the folders with states, the largest."""
        return {
            "state_mb": round(max((size_of(folder) for folder in self.state()), default=0) / 1e6, 3),
            "registry_mb": round(size_of(self.registry) / 1e6, 3),
            "event_log_mb": round(size_of(self.event_log) / 1e6, 3),
            "event_log_bytes_per_event": self._logged(),
            "kafka_bytes_per_event": round(size_of(self.kafka) / max(self.sent(), 1), 1),
        }

    def _logged(self) -> float:
        """Bytes per event in the files that the event log's manifests name."""
        if not self.event_log.exists():
            return 0.0
        manifests = [stored.manifest for stored in newest_manifests(located(self.event_log)).values()]
        rows = sum(part.rows for manifest in manifests for part in manifest.parts)
        return round(sum(part.bytes for manifest in manifests for part in manifest.parts) / max(rows, 1), 1)


def size_of(folder: Path) -> int:
    """Bytes that the files of a folder take on disk: Kafka's index files are larger than what is in them.
    Files and folders that go meanwhile are left out.
    """
    total = 0
    for within, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += 512 * Path(within, name).lstat().st_blocks
    return total
