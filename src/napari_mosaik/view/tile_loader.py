"""A few threads that read pieces of slides for the screen, what is looked at first."""

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
"""Threads that read for the screen."""
Read = Callable[[Piece], None]


class PieceReaders:
    """Threads shared by all slides of a window; slides take turns."""

    def __init__(self, threads: int = READERS) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []
        self._running = 0
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="mosaik-view", initializer=step_back, initargs=(READING,)
        )

    def lane(self, read: Read) -> Lane:
        """A slide's place in the queue; *read* reads one piece and must not raise."""
        lane = Lane(self, read)
        with self._lock:
            self._lanes.append(lane)
        return lane

    def close(self) -> None:
        """Drop what waits and let the threads end; to be called when all lanes are closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """One more thread if there is work for it; the lock is held."""
        waiting = sum(lane.waiting for lane in self._lanes)
        if waiting and self._running < self._threads:
            self._running += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                found = self._next()
                if found is None:
                    self._running -= 1
                    return
                self._start()
            lane, piece = found
            lane.read(piece)
            with self._lock:
                last = lane.done(piece)
            if last is not None:
                last()

    def _next(self) -> tuple[Lane, Piece] | None:
        """The most urgent piece; of lanes that are equally urgent the one served longest ago."""
        for urgency in (0, 1, 2):
            for lane in self._lanes:
                piece = lane.take(urgency)
                if piece is not None:
                    self._lanes.remove(lane)
                    self._lanes.append(lane)
                    return lane, piece
        return None


class Lane:
    """What one slide waits for: a few pieces first, then what is looked at, then the rest."""

    def __init__(self, readers: PieceReaders, read: Read) -> None:
        self.read = read
        self.generation = 0
        self._readers = readers
        self._queues: tuple[deque[Piece], ...] = (deque(), deque(), deque())
        self._busy: set[Piece] = set()
        self._closed = False
        self._then: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """Pieces that no thread has begun to read."""
        return sum(len(queue) for queue in self._queues)

    def first(self, pieces: Iterable[Piece]) -> None:
        """Read these before anything else."""
        self._add(0, pieces, anew=False)

    def want(self, pieces: Iterable[Piece]) -> None:
        """Read these in their order; those of the generation before are dropped."""
        self._add(1, pieces, anew=True)

    def later(self, pieces: Iterable[Piece]) -> None:
        """Read these when nothing else is waiting."""
        self._add(2, pieces, anew=False)

    def close(self, then: Callable[[], None]) -> None:
        """Read nothing more; *then* is called once no thread is reading, on any thread."""
        with self._readers._lock:
            if self._closed:
                return
            self._closed = True
            for queue in self._queues:
                queue.clear()
            if self in self._readers._lanes:
                self._readers._lanes.remove(self)
            if self._busy:
                self._then = then
                return
        then()

    def _add(self, urgency: int, pieces: Iterable[Piece], *, anew: bool) -> None:
        with self._readers._lock:
            if self._closed:
                return
            queue = self._queues[urgency]
            if anew:
                self.generation += 1
                queue.clear()
            queue.extend(pieces)
            self._readers._start()

    def take(self, urgency: int) -> Piece | None:
        """The next piece, marked as being read; the lock is held."""
        queue = self._queues[urgency]
        while queue:
            piece = queue.popleft()
            if piece not in self._busy:
                self._busy.add(piece)
                return piece
        return None

    def done(self, piece: Piece) -> Callable[[], None] | None:
        """What is to be called now that a piece was read; the lock is held."""
        self._busy.discard(piece)
        if self._closed and not self._busy:
            then, self._then = self._then, None
            return then
        return None
