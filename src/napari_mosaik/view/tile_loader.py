"""A few threads that read pieces of slides for the screen, the visible ones first.

All slides of a window share the threads and one lock.  A slide waits in a `Lane`; each piece is
read by one thread, outside the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from napari_mosaik.core.thread_priority import READING, step_back
from napari_mosaik.view.tile_pyramid import Piece

__all__ = ["READERS", "Lane", "PieceReaders"]

READERS: Final = 2
"""Number of threads that read for the screen."""
Read = Callable[[Piece], None]


class PieceReaders:
    """Threads shared by all slides of a window, which take turns."""

    def __init__(self, threads: int = READERS) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []
        self._running = 0
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="mosaik-view", initializer=step_back, initargs=(READING,)
        )

    def lane(self, read: Read) -> Lane:
        """A new lane for a slide; *read* reads one piece and must not raise."""
        lane = Lane(self, read)
        with self._lock:
            self._lanes.append(lane)
        return lane

    def close(self) -> None:
        """Let the threads end; call it when all lanes are closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Start another thread if there is work for it; the caller holds the lock."""
        waiting = sum(lane.waiting for lane in self._lanes)
        if waiting and self._running < self._threads:
            self._running += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                work = self._next()
                if work is None:
                    self._running -= 1
                    return
                # Threads start one by one: each one that gets work starts the next if more waits.
                self._start()
            # Decoding takes long and must not hold the lock, or no lane could change its queue.
            lane, piece = work
            lane.read(piece)
            with self._lock:
                last = lane.done(piece)
            # Outside the lock: the callback closes the slide and may ask for another lane.
            if last is not None:
                last()

    def _next(self) -> tuple[Lane, Piece] | None:
        """The most urgent piece; of equally urgent lanes that of the one served longest ago."""
        for urgency in (0, 1, 2):
            for lane in self._lanes:
                piece = lane.take(urgency)
                if piece is not None:
                    # The lane goes to the end, so that one slide cannot keep all threads.
                    self._lanes.remove(lane)
                    self._lanes.append(lane)
                    return lane, piece
        return None


def _nothing(piece: Piece) -> None:
    """What a closed lane reads."""


class Lane:
    """The queue of one slide: urgent pieces first, then the visible ones, then the rest."""

    def __init__(self, readers: PieceReaders, read: Read) -> None:
        self.read = read
        self.generation = 0
        self._readers = readers
        self._queues: tuple[deque[Piece], ...] = (deque(), deque(), deque())
        self._busy: set[Piece] = set()
        self.closed = False
        self._then: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """Number of pieces that no thread has begun to read."""
        return sum(len(queue) for queue in self._queues)

    def first(self, pieces: Iterable[Piece]) -> None:
        """Read these before anything else."""
        self._add(0, pieces, replace=False)

    def want(self, pieces: Iterable[Piece]) -> None:
        """Read these in their order; those of the previous generation are dropped."""
        self._add(1, pieces, replace=True)

    def later(self, pieces: Iterable[Piece]) -> None:
        """Read these when nothing else is waiting."""
        self._add(2, pieces, replace=False)

    def close(self, then: Callable[[], None]) -> None:
        """Read nothing more; *then* is called, on any thread, once no thread is reading."""
        with self._readers._lock:
            if self.closed:
                return
            self.closed = True
            for queue in self._queues:
                queue.clear()
            if self in self._readers._lanes:
                self._readers._lanes.remove(self)
            # A thread still reads from the slide: it calls *then* when it has finished (`done`).
            if self._busy:
                self._then = then
                return
            self.read = _nothing
        then()

    def _add(self, urgency: int, pieces: Iterable[Piece], *, replace: bool) -> None:
        with self._readers._lock:
            if self.closed:
                return
            queue = self._queues[urgency]
            if replace:
                self.generation += 1
                queue.clear()
            queue.extend(pieces)
            self._readers._start()

    def take(self, urgency: int) -> Piece | None:
        """The next piece, marked as being read; the caller holds the lock."""
        queue = self._queues[urgency]
        while queue:
            piece = queue.popleft()
            # The same piece may wait in two queues: a second thread must not read it again.
            if piece not in self._busy:
                self._busy.add(piece)
                return piece
        return None

    def done(self, piece: Piece) -> Callable[[], None] | None:
        """Mark a piece as read; returns the callback of `close` after the last one.

        The caller holds the lock.
        """
        self._busy.discard(piece)
        if self.closed and not self._busy:
            then, self._then = self._then, None
            self.read = _nothing  # the thread that comes last holds nothing of what was closed
            return then
        return None
