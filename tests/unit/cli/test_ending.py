"""How a command ends: all that Python promises of an exit, but no abort by a thread that is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
A_NATIVE_THREAD_WAKES_UP = """
import sys, threading, time
from datetime import timedelta
from torch.distributed import TCPStore
from eddy.cli.ending import end_process

store, waits = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), threading.Event()

def wait():
    waits.set()
    store.wait(["never set"], timedelta(seconds=1))

class FreedSlowly:
    sleep = time.sleep
    def __del__(self):
        FreedSlowly.sleep(4)

threading.Thread(target=wait, daemon=True).start()
waits.wait()
sys.modules["freed_slowly"] = FreedSlowly()
end_process(3)
"""
WHAT_AN_EXIT_DOES = """
import atexit, sys, threading
from eddy.__main__ import main

def last_work(go_on):
    go_on.wait()
    print("a thread's last line")

go_on = threading.Event()
threading.Thread(target=last_work, args=(go_on,)).start()
atexit.register(print, "an exit function's line")
sys.argv = ["eddy", "train", "--events", "nothing.csv"]
go_on.set()
main()
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_native_thread_that_wakes_up_while_the_process_ends_does_not_abort_it() -> None:
    done = ended(A_NATIVE_THREAD_WAKES_UP)
    assert done.returncode == 3, done.stderr
    assert "terminate called" not in done.stderr


def test_threads_are_awaited_exit_functions_run_and_output_is_complete() -> None:
    done = ended(WHAT_AN_EXIT_DOES)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["a thread's last line", "an exit function's line"]
    assert done.stderr == "eddy: nothing.csv: no such file; check the path\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_without_standard_streams_does_its_work_and_ends_well(closed: str, tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from eddy import __main__ as eddy

@eddy.app.command()
def work():
    file = os.open({str(tmp_path / "file")!r}, os.O_WRONLY | os.O_CREAT)
    print("a line", flush=True)
    print("progress", file=sys.stderr, flush=True)
    os.write(2, b"what a library says")
    os.write(file, b"content")

sys.argv = ["eddy", "work"]
eddy.main()
"""
    run = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, (tmp_path / "file").read_text()) == (0, "content")
    assert run.stdout in {"", "a line\n"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_standard_output_without_room_is_one_line() -> None:
    program = "import sys; from eddy.__main__ import main; sys.argv = ['eddy', 'acls', '--help']; main()"
    run = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" > /dev/full', sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "eddy: standard output, or a file cannot be written (No space left on device); make room"
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert run.stderr.startswith(said)
