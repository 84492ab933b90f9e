"""Threads of the background step back; the main thread never does."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from napari_mosaik.core.thread_priority import step_back

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")


def own_priority():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
def test_a_thread_steps_back_once_and_so_do_the_threads_it_starts():
    before = own_priority()

    def work():
        step_back(before + 3)
        step_back(before + 2)  # never forward again
        with ThreadPoolExecutor(1) as inner:
            return own_priority(), inner.submit(own_priority).result()

    with ThreadPoolExecutor(1) as pool:
        lowest = min(19, before + 3)  # the tests themselves may run at the lowest priority
        assert pool.submit(work).result() == (lowest, lowest)
    assert own_priority() == before


@linux
def test_the_main_thread_keeps_its_place():
    before = own_priority()
    step_back(before + 5)
    assert own_priority() == before
