"""Imported first by a script: Ctrl-C while it is still importing ends it with one line.

The shell of `dnnlib.cli` takes over as soon as the command runs.
"""

import os
import signal
import sys
from typing import Any


def _quit(number: int, frame: Any) -> None:
    os.write(2, b"\ninterrupted before anything was done\n")
    os._exit(130)  # as shells have it


def finished() -> None:
    """Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _quit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A process that multiprocessing started (it imports the script before it knows its parent) is ended by that one; a
# shell's background job ignores Ctrl-C.
if "--multiprocessing-fork" not in sys.orig_argv and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _quit)
