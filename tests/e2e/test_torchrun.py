"""Training by two processes, as torchrun starts them: one's losses, one version, resumed after a kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock

from eddy.models.registry import latest, versions
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # each process imports torch: slow on a busy machine

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "hidden=16", "dim=16", "dropout=0", "item_dropout=0", "sampled=30", "average=0.9", "gate_epochs=1",
    "gate_events=50", "threads=1",
)  # fmt: skip


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    """Users of 1 to 100 events each, who mostly go from one of 50 items to the next."""
    rng = np.random.default_rng(1)
    users = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 100, 40)))
    seen = np.zeros(40, int)
    lines = ["user_id,item_id,timestamp"]
    for n, user in enumerate(users.tolist()):
        item = (user * 3 + seen[user]) % 50 if rng.random() < 0.8 else rng.integers(50)
        seen[user] += 1
        lines.append(f"u{user},i{item},{1_362_062_307 + 60 * n}")
    file = tmp_path / "events.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def command(processes: int, *settings: str) -> list[str]:
    started = [sys.executable, "-m"]
    if processes > 1:
        started += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    pairs = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    files = f"--events=events.csv --json=of-{processes}.json --checkpoint=of-{processes}.pt".split()
    return [*started, "eddy", "train", *files, "--registry=registry", *pairs]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def test_two_processes_learn_what_one_learns(events_file: Path, tmp_path: Path) -> None:
    figures = {}
    for processes in (1, 2):
        code, out, err = finished(start(command(processes, "epochs=3"), tmp_path))
        assert code == 0, err
        assert len(out.splitlines()) == 1  # one process speaks for all
        assert not re.search("Warning|terminate called|Traceback", err)
        figures[processes] = json.loads((tmp_path / f"of-{processes}.json").read_text())
        rows = [int(count) for count in re.findall(r"process \d of 2 has (\d+) events", err)]
        assert len(rows) == (2 if processes == 2 else 0)
        if rows:  # each has the events of its own users, and nobody those of others
            assert min(rows) > 0
            assert sum(rows) == len(events_file.read_text().splitlines()) - 1
    one, two = figures[1], figures[2]
    for measure in ("loss", "validation_loss"):
        of_two = [point[measure] for point in two["curve"]]
        assert of_two == pytest.approx([point[measure] for point in one["curve"]], rel=1e-4)
    assert two["whole_loss"] == pytest.approx(one["whole_loss"], rel=1e-4)
    assert two["gates"]["nll"] == pytest.approx(one["gates"]["nll"], rel=1e-3)
    assert len(versions(tmp_path / "registry")) == 2
    assert latest(tmp_path / "registry").id == two["version"]


def test_nobody_leaves_before_the_first_process_has_published(events_file: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    registry.mkdir()
    with FileLock(registry / ".lock"):
        running = start(command(2, "epochs=1"), tmp_path)
        assert running.stderr is not None
        assert any("waiting for another training to publish" in line for line in running.stderr)
        children = psutil.Process(running.pid).children(recursive=True)
        members = [child for child in children if "eddy" in child.cmdline()]
        # Without anything left to do, the other one would end at once.
        assert psutil.wait_procs(members, timeout=5)[0] == []
        assert not versions(registry)
    code, out, err = finished(running)
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == versions(registry)


def test_a_killed_process_ends_all_and_the_same_command_goes_on(events_file: Path, tmp_path: Path) -> None:
    arguments = command(2, "epochs=40", "patience=40")
    running = start(arguments, tmp_path)

    def saved() -> bool:
        assert running.poll() is None, running.communicate()
        return (tmp_path / "of-2.pt").exists()

    eventually(saved, 180, "the checkpoint of an epoch", every_s=0.01)
    workers = [
        child for child in psutil.Process(running.pid).children(recursive=True) if "eddy" in child.cmdline()
    ]
    workers[-1].kill()
    code, _, err = finished(running)
    assert code != 0
    assert re.search(r"exitcode\s*: -9", err), err  # torchrun's report
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert not versions(tmp_path / "registry")

    code, _, err = finished(start(arguments, tmp_path))
    assert code == 0, err
    shown = [int(epoch) for epoch in re.findall(r"network, epoch (\d+) of", err)]
    assert shown[0] > 1
    curve = json.loads((tmp_path / "of-2.json").read_text())["curve"]
    assert [point["epoch"] for point in curve] == list(range(1, 41))
    assert len(versions(tmp_path / "registry")) == 1
