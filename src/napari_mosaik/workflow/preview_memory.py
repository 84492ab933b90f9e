"""What previews keep from one to the next: the opened slide, pixels, values of the whole slide."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Self

from napari_mosaik.core.artifact import Artifact
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.step import Step

if TYPE_CHECKING:
    from napari_mosaik.core.raster import Raster
    from napari_mosaik.io.slide.read.stream import SlideBlocks

__all__ = ["KeptPass", "PreviewMemory"]


class PreviewMemory:
    """What previews of one step of a case keep from one to the next.

    It is emptied when another step is previewed or when what the step reads has changed.  The last
    `_MOST` things are kept, of the pixels of a region only the last two.
    """

    _MOST = 600

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._stamp: tuple[Any, ...] = ()
        self._lock = threading.RLock()

    def keep_for(self, case: Case, step: Step[Any], absent: Collection[str] = ()) -> None:
        """Forget what was kept for other inputs."""
        entries = [e for e in (*step.reads, *step.may_read) if e.name not in absent]
        stamp = (str(case.root), step.name, *((e.name, _content(case, e)) for e in entries))
        if stamp != self._stamp:
            self.close()
            self._stamp = stamp

    def has(self, key: str) -> bool:
        """Whether something is kept."""
        return key in self._kept

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is kept under a key; made and kept if there is nothing."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            passes = [name for name in self._kept if name.startswith("pass ")]
            for name in (*passes[:-2], *list(self._kept)[: max(0, len(self._kept) - self._MOST)]):
                if not name.startswith("slide "):
                    self._kept.pop(name, None)
        return made

    def close(self) -> None:
        """Forget everything and close the slides."""
        with self._lock:
            kept, self._kept, self._stamp = self._kept, OrderedDict(), ()
        for key, value in kept.items():
            if key.startswith("slide "):
                value.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _content(case: Case, entry: Any) -> str:
    """Digest of a source or stored result."""
    if isinstance(entry, Artifact):
        origin = case.store.origin(entry)
        return "" if origin is None else origin.digest()
    return case.digest(entry)


class KeptPass:
    """The blocks of a pass over a region, each read once."""

    def __init__(self, blocks: SlideBlocks) -> None:
        self._blocks = blocks
        self._read: dict[int, tuple[Raster, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocks, name)

    def __len__(self) -> int:
        return len(self._blocks)

    def expect(self, indices: Iterable[int]) -> None:
        """Say which blocks will be read; those that were are not read again."""
        self._blocks.expect(index for index in indices if index not in self._read)

    def read(self, index: int) -> tuple[Raster, ...]:
        """Pixels of one block."""
        if index not in self._read:
            self._read[index] = self._blocks.read(index)
        return self._read[index]
