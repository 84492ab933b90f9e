"""Threads that let the window go first."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

__all__ = ["COMPUTING", "READING", "step_back"]

COMPUTING: Final = 10
"""How far threads step back that compute while a window is open."""
READING: Final = 5
"""How far threads step back that read what the window shows."""


def step_back(by: int) -> None:
    """Let other threads go before this one and those that it starts, where they need the core.

    On Linux the priority of a thread is its own (its "nice" value rises to *by*; it never falls).
    Elsewhere the system offers this for whole processes only, and nothing is done; nor for the
    main thread, to which the window belongs.
    """
    if sys.platform != "linux" or threading.current_thread() is threading.main_thread():
        return
    own = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, own) < by:
        os.setpriority(os.PRIO_PROCESS, own, by)
