"""How a command ends."""

import atexit
import os
import sys
import threading
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, without taking the interpreter down piece by piece.

    Python's threads are joined and exit functions run as always. Only the last step is left out: freeing
    all modules while native threads are alive (Arrow's readers, Gloo's two loops, the pools of torch and
    BLAS live until the end). If such a thread asks for the interpreter then, or its object is freed before
    it is joined, C++ aborts the process with "terminate called without an active exception". A command
    that has done all of its work would end with exit code -6, and torchrun would end the other processes
    because of it.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it is gone (a closed pipe)
            code = code or 1
    os._exit(code)
