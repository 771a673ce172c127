"""What a run of the demo leaves on the machine when it has ended."""

from __future__ import annotations

from pathlib import Path

from eddy.demo.resources import run_folder, run_topics
from eddy.stream.state.snapshots import snapshot_path
from tests.support.kafka_clusters import MakeSettings


def test_the_snapshots_of_a_run_go_with_it(make_settings: MakeSettings, broker: str, tmp_path: Path) -> None:
    settings = make_settings(cache_dir=tmp_path, partitions=1)
    others = snapshot_path(tmp_path, "another-group", bytes(16), 0)
    others.parent.mkdir(parents=True)
    others.touch()
    with run_folder(tmp_path) as folder, run_topics(settings, broker, folder) as run:
        left = snapshot_path(run.cache_dir, run.group, bytes(16), 0)
        left.parent.mkdir(parents=True)
        left.touch()
    assert not left.parent.exists()
    assert others.exists()
