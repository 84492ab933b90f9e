"""The command line: one command per thing that a user does.

Nothing heavy is imported here, so that an interrupt during the imports ends as one clear line.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from napari_mosaik.cli.interrupt import INTERRUPTED, forget_interrupt, tell_interrupt

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    The exit code is 0, 2 for what the user can mend, 130 after Ctrl-C, 1 for an internal error.
    """
    try:
        forget_interrupt()
        from napari_mosaik.cli.app import run_command

        code = run_command(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if arguments is None:  # a (second) Ctrl-C must not break the end of the process
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == INTERRUPTED:
        tell_interrupt()
        if arguments is None:  # the end of an interpreter with its libraries may take a second
            os._exit(code)
    sys.exit(code)
