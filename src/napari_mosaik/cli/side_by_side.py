"""Cases side by side, each run by a process of its own on its share of the cores.

The result of a case does not depend on the number of cores, so it is that of a run one by one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from napari_mosaik.cli.show import Bar
from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.text import counted

__all__ = ["fitting_jobs", "run_side_by_side"]

CASE_MIB = 1536
"""Memory that a case takes at most, MiB (`benchmarks/real_size.py`)."""
_SAYS = "napari-mosaik: "
_WARNING = f"{_SAYS}warning: "


def fitting_jobs(n_cases: int) -> int:
    """How many cases fit side by side into the cores and the free memory; at least 1."""
    from napari_mosaik.workflow.parallel import n_workers

    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # where the system does not tell, one after the other
        return 1
    return max(1, min(n_workers(), n_cases, free // 1024 // CASE_MIB))


def run_side_by_side(
    folders: Sequence[Path], options: Sequence[str], jobs: int, bar: Bar
) -> list[str]:
    """Run cases with `run` and some options, at most *jobs* at once; what failed, one line each.

    Parameters
    ----------
    folders
        The cases.
    options
        Options of `run`, such as ``--until parameters``.
    jobs
        Number of processes.
    bar
        Shows the share of the cases that are done, and the lines of each.

    Returns
    -------
    list of str
        Messages of the cases that failed, in the order of the cases.
    """
    pool = _Pool(folders, options, _shares(jobs), bar)
    what = f"{counted(len(folders), 'case')}, {jobs} in parallel"
    with contextlib.closing(pool):
        while pool.fill():
            done = pool.done
            bar.show(what, Progress(done / len(folders), 1, f"{done} of {len(folders)} done"))
            pool.hear()
    return [pool.failed[number] for number in sorted(pool.failed)]


class _Pool:
    """The processes that run, and what they tell."""

    def __init__(
        self, folders: Sequence[Path], options: Sequence[str], shares: Sequence[set[int]], bar: Bar
    ) -> None:
        self._folders, self._options, self._bar = folders, options, bar
        self._waiting, self._free = list(enumerate(folders)), list(shares)
        self._running: dict[int, tuple[subprocess.Popen[str], set[int]]] = {}
        # One queue for all: the command sleeps until any of the processes has something to say.
        self._lines: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
        self.failed: dict[int, str] = {}
        self.done = 0

    def fill(self) -> bool:
        """Start what there is room for; whether something runs."""
        while self._waiting and self._free:
            (number, folder), cores = self._waiting.pop(0), self._free.pop(0)
            process = _started(folder, self._options, cores)
            self._running[number] = process, cores
            tell = partial(self._tell, number)
            # A thread for each: a process whose pipe is full would wait for ever.
            threading.Thread(target=_read, args=(process, tell), name="mosaik-case").start()
        return bool(self._running)

    def _tell(self, number: int, text: str | None) -> None:
        self._lines.put((number, text))

    def hear(self) -> None:
        """Wait for the next line of a process, or for its end."""
        number, text = self._lines.get()
        folder = self._folders[number]
        if text is None:
            process, cores = self._running.pop(number)
            self._free.append(cores)
            self.done += 1
            if process.wait():
                ended = f"{folder.name}: its process ended with code {process.returncode}"
                self.failed.setdefault(number, ended)
        elif text.startswith(_WARNING):
            return  # warnings are reported once, by the command that asked for all cases
        elif text.startswith(_SAYS):
            self.failed[number] = text.removeprefix(_SAYS)
        else:
            share = text != text.lstrip()
            self._bar.line(f"{folder.name} · {text.strip()}" if share else text)

    def close(self) -> None:
        """Stop what still runs; finished blocks stay, and a later run resumes from them."""
        # All are asked before any is waited for, so that they end at the same time.
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.wait()


def _shares(jobs: int) -> list[set[int]]:
    """The cores of each place; empty where the system does not say which there are."""
    if not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(jobs)]
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[place::jobs]) or {cores[place % len(cores)]} for place in range(jobs)]


def _started(folder: Path, options: Sequence[str], cores: set[int]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "napari_mosaik", "run", str(folder), *options]
    threads = len(cores) or 1
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONIOENCODING": "utf-8"},
    )
    if cores:
        os.sched_setaffinity(process.pid, cores)  # before it has threads
    return process


def _read(process: subprocess.Popen[str], tell: Callable[[str | None], None]) -> None:
    """Pass on each line of a process, and None at its end."""
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if line.strip():
                tell(line.rstrip())
    tell(None)
