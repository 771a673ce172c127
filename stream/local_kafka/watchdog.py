"""Runs one command and ends it when the process that asked for it is gone, even by SIGKILL.

`eddy.stream.local_kafka.broker` starts it as a script (standard library only, so that it starts in
milliseconds):

    watchdog.py PARENT_PID LOG_FILE FOLDER_TO_REMOVE_OR_EMPTY COMMAND...

It starts the command in the watchdog's own session, which Ctrl-C in the terminal does not reach. It writes
the command's pid to standard output and follows standard input: the line `stop` ends the command gently,
`kill` at once. The end of the input, or another parent, means that the parent died: then it kills the
command and removes the folder. Linux and macOS both have all that this needs, a pipe and the parent's pid.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_GRACE_S = 20.0
_POLL_S = 0.25


def main(parent: int, log: Path, remove: str, command: list[str]) -> int:
    """Run the command to its end; returns its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    order = None
    try:
        print(child.pid, flush=True)
        order = _next_order(child, parent)
        if order == "stop":
            child.terminate()
            child.wait(_GRACE_S)
    except (subprocess.TimeoutExpired, BrokenPipeError):
        pass
    finally:
        child.kill()
        status = child.wait()
    if order == "" and remove:
        shutil.rmtree(remove, ignore_errors=True)
    return abs(status)


def _next_order(child: subprocess.Popen[bytes], parent: int) -> str | None:
    """Wait for the parent's order; "" when the parent is gone, None when the command ended by itself."""
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_S)
        if readable:
            return sys.stdin.readline().strip()
        # A process that was forked from the parent may hold the pipe open after the parent's end.
        if os.getppid() != parent:
            return ""
    return None


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
