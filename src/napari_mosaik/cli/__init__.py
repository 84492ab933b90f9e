"""The command line: one command per thing that a user does.

Nothing heavy is imported here, so that an interrupt during the imports ends as one clear line.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    The exit code is 0, 2 for what the user can mend, 130 after Ctrl-C, 1 for an internal error.
    """
    try:
        from napari_mosaik.cli.app import run_command

        code = run_command(arguments)
    except KeyboardInterrupt:
        code = 130
    if arguments is None:  # a (second) Ctrl-C must not break the end of the process
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == 130:
        sys.stderr.write(
            "napari-mosaik: interrupted; nothing unfinished was stored. "
            "The same command resumes from here\n"
        )
    sys.exit(code)
