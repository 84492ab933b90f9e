"""A cache that keeps what was used last, up to a limit; safe from several threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from napari_mosaik.core.manifest import is_settled

__all__ = ["RecentFiles", "RecentValues"]

V = TypeVar("V")


class RecentValues(Generic[V]):
    """Values by key, the least recently used dropped first.

    Parameters
    ----------
    limit
        Largest sum of the sizes of all values; one value is always kept.
    size
        Size of a value; by default each counts 1, so that *limit* is a number of values.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda value: 1) -> None:
        self.limit, self.size = limit, 0
        self._size_of = size
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, key: Hashable) -> list[V]:
        """The value of a key, in a list; an empty list where there is none."""
        with self._lock:
            if key not in self._values:
                return []
            self._values.move_to_end(key)
            return [self._values[key]]

    def get(self, key: Hashable) -> V | None:
        """The value of a key; None where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: V) -> None:
        """Keep a value and drop the least recently used ones beyond the limit."""
        with self._lock:
            if key in self._values:
                self.size -= self._size_of(self._values[key])
            self._values[key] = value
            self._values.move_to_end(key)
            self.size += self._size_of(value)
            while self.size > self.limit and len(self._values) > 1:
                self.size -= self._size_of(self._values.popitem(last=False)[1])

    def get_or_make(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of a key; made and kept where there is none."""
        known = self.known(key)
        if known:
            return known[0]
        # Made outside the lock, so that threads make different values side by side; two that want
        # the same one may both make it, and the later one is kept.
        value = make()
        self.put(key, value)
        return value

    def values(self) -> list[V]:
        """All values, the most recently used one at the end."""
        with self._lock:
            return list(self._values.values())

    def drop(self, condition: Callable[[Hashable], bool]) -> None:
        """Forget the values whose key meets a condition."""
        with self._lock:
            for key in [key for key in self._values if condition(key)]:
                self.size -= self._size_of(self._values.pop(key))

    def clear(self) -> list[V]:
        """Forget all values and return them."""
        with self._lock:
            values = list(self._values.values())
            self._values.clear()
            self.size = 0
        return values


class RecentFiles(RecentValues[V]):
    """What was read from the files that were used last, by the file on the disk, in any folder."""

    def read(self, about: os.stat_result) -> V | None:
        """What was kept of a file with this entry; None where there is nothing."""
        return self.get(_entry(about)) if about.st_ino else None

    def keep(self, about: os.stat_result, value: V) -> None:
        """Keep what is in a file with this entry, unless it alone exceeds the limit."""
        # Without inodes two files could not be told from one another, and a file that was just
        # written may change again within a tick of its clock.
        if about.st_ino and is_settled(about) and self._size_of(value) <= self.limit:
            self.put(_entry(about), value)


def _entry(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
