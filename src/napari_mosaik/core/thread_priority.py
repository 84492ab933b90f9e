"""Lower the priority of background threads, so that the window stays responsive."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

__all__ = ["COMPUTING", "READING", "step_back"]

COMPUTING: Final = 10
"""Niceness of threads that compute while a window is open."""
READING: Final = 5
"""Niceness of threads that read what the window shows."""


def step_back(by: int) -> None:
    """Lower the priority of this thread and of those that it starts.

    On Linux the priority of a thread is its own (its "nice" value rises to *by*; it never falls).
    Elsewhere the system offers this for whole processes only, and nothing is done; nor for the
    main thread, to which the window belongs.
    """
    if sys.platform != "linux" or threading.current_thread() is threading.main_thread():
        return
    own = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, own) < by:
        os.setpriority(os.PRIO_PROCESS, own, by)
