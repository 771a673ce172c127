"""Stored state as a release wrote it, kept so that later releases can show that they read it.

    python -m tests.golden.state        # writes the folder of this release, once, before it is published

A folder holds the events that a small engine was given, and what was stored after them: a model version,
rows of `user-state`, a snapshot, records of `item-stats` and an announcement. Folders of earlier releases
stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from eddy.models.registry import Version, load
from eddy.stream.engine.engine import Engine
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import Announcement, encode
from eddy.stream.state.item_statistics import Counted, Journal
from eddy.stream.state.rows import keyed
from eddy.stream.state.snapshots import Snapshot, write_snapshot
from tests.support.engines import TOPIC_ID, Happening, batch, new_engine, random_version, stored_rows

FOLDER = Path(__file__).parent
POSITION = 4711
"""of the snapshot in its changelog"""
LATER = Counted(np.array([1, 2]), np.array([10**12, 10**12 + 5]), np.array([[-1], [1]]), 900)
"""Events that the journal names after its base; their items are of the version's vocabulary."""


def releases() -> list[Path]:
    """The folders of all releases, the oldest first."""
    return sorted(path for path in FOLDER.iterdir() if path.is_dir() and (path / "events.json").exists())


def read_json(folder: Path, name: str) -> Any:
    """A file of a folder."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def read_version(folder: Path) -> Version:
    """The model version of a folder."""
    (path,) = (folder / "registry").glob("v*")
    return load(path)


def run_engine(folder: Path) -> Engine:
    """An engine of today, of the folder's version, after the folder's events."""
    engine = new_engine(read_version(folder))
    happenings = [Happening(**event) for event in read_json(folder, "events")]
    engine.apply([batch(happenings, range(len(happenings)))])
    return engine


def journal_records(engine: Engine) -> list[Message]:
    """Records of item-stats: a base with what the engine counted, and a journal record after it."""
    journal = Journal(0, -1, -1)
    journal.rewrite()
    records = journal.drain_records(engine.statistics, engine.names.catalogue)()
    engine.statistics.count_events(0, LATER.item, LATER.time, LATER.previous)
    journal.note_counted(LATER)
    return [*records, *journal.drain_records(engine.statistics, engine.names.catalogue)()]


def write(folder: Path) -> None:
    """Write what this release stores."""
    rng = np.random.default_rng(24)
    times = np.sort(rng.integers(10**12, 10**12 + 10**10, 300))
    events = [
        Happening(
            f"üser-{rng.integers(4) if n % 2 else rng.integers(12)}",
            f"item-{rng.integers(50)}",  # some are not in the vocabulary
            int(times[n] - (3_600_000 if n % 17 == 0 else 0)),  # some are late
            ("view", "rating", "dislike", "unheard-of")[n % 4],
            float(rng.integers(1, 6)) if n % 4 == 1 else None,
            f"event-{n - n % 29 % 2}" if n % 3 else None,
        )
        for n in range(len(times))
    ]
    folder.mkdir()
    version = random_version(folder / "registry", hidden=8, items=40)
    announcement = Announcement(1, version.id, "registry", 10**12)
    write_json(folder, "events", [asdict(event) for event in events])
    engine = run_engine(folder)
    rows = stored_rows(engine)
    write_json(folder, "rows", hexadecimal(keyed(rows)))
    write_snapshot(folder / "snapshot", Snapshot(POSITION, TOPIC_ID, [rows]))
    write_json(folder, "item-stats", hexadecimal(journal_records(engine)))
    (folder / "announcement.json").write_bytes(encode(announcement))
    (folder / "registry" / ".lock").unlink(missing_ok=True)


def hexadecimal(records: Iterable[Message]) -> list[tuple[str, str]]:
    """Records (key, value) in letters."""
    return [((key or b"").hex(), (value or b"").hex()) for key, value in records]


def write_json(folder: Path, name: str, value: Any) -> None:
    (folder / f"{name}.json").write_text(
        json.dumps(value, indent=0, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    write(FOLDER / version_of("eddy-streams"))
