"""Ctrl-C is heard at once, also while the main thread computes in compiled code.

Loads the standard library only, so that an interrupt during the imports ends as one clear line.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import final

__all__ = ["INTERRUPTED", "Ears", "forget_interrupt", "tell_interrupt"]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
END_S = 0.5
"""How long an interrupted computation may take to end by itself, s.

A busy machine takes 0.4 s more to take a large process apart; all of it is to be within a second.
"""
_TICK_S = 1.0
_LINE = (
    "napari-mosaik: interrupted; nothing unfinished was stored. "
    "The same command resumes from here\n"
)
_TURN, _REPORTED = threading.Lock(), threading.Event()


def forget_interrupt() -> None:
    """A new command begins, of which no interrupt has been reported yet."""
    _REPORTED.clear()


def tell_interrupt() -> None:
    """Write the line about the interrupt to the error stream, once for each command."""
    with _TURN:
        if not _REPORTED.is_set():
            _REPORTED.set()
            sys.stderr.write(_LINE)
            sys.stderr.flush()


@final
class Ears:
    """Hears Ctrl-C on a thread of its own while work of a command is shown.

    Python itself acts on it when the main thread comes back from compiled code, which may take
    long.  Here the interrupt is reported within milliseconds, and the process ends after `END_S`
    seconds if the work has not ended by then: all that is stored is whole at any moment, as after
    a `kill -9`.

    Parameters
    ----------
    hush
        Stops what is shown; called before the interrupt is reported.
    tick
        Called once a second.
    """

    def __init__(self, hush: Callable[[], None], tick: Callable[[], None]) -> None:
        self._hush, self._tick = hush, tick
        self._ear, self._mouth = socket.socketpair()
        self._before: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="mosaik-ctrl-c", daemon=True)

    def open(self) -> None:
        """Start to listen; in another thread than the main one no interrupt arrives."""
        self._ear.settimeout(_TICK_S)
        self._mouth.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            with suppress(ValueError):  # an interpreter within another one
                self._before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def close(self) -> None:
        """The work has ended: stop to listen."""
        self._ended.set()
        if self._before is not None:
            signal.set_wakeup_fd(self._before)
        self._mouth.close()
        self._thread.join(END_S)
        self._ear.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                heard = self._ear.recv(64)
            except TimeoutError:
                self._tick()
                continue
            if not heard:
                return
            # Another handler of the signal, or none, says that Ctrl-C means something else here.
            if signal.SIGINT in heard and _is_pythons_own():
                self._stop()
                return

    def _stop(self) -> None:
        until = time.monotonic() + END_S
        self._hush()
        tell_interrupt()
        if not self._ended.wait(until - time.monotonic()):
            os._exit(INTERRUPTED)


def _is_pythons_own() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
