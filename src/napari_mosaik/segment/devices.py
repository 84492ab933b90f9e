"""Where a network computes: on the graphics card if there is one, less at once if memory ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from napari_mosaik.core.errors import MosaikError

__all__ = ["ComputeDevice", "thread_count"]


@dataclass(slots=True)
class ComputeDevice:
    """Device and number of pictures at once; both change when the memory of a device runs out.

    Parameters
    ----------
    device
        Where it is computed.
    at_once
        Pictures that are computed together.
    graphics
        Whether the device is a graphics card, so that the processor is left to give way to.
    notes
        Sentences for the user about what had to change.
    """

    device: torch.device
    batch_size: int
    has_gpu: bool
    notes: list[str] = field(default_factory=list)
    _wanted: int = 0

    def __post_init__(self) -> None:
        self._wanted = self.batch_size

    @classmethod
    def best(cls, batch_size: int) -> ComputeDevice:
        """The graphics card if torch can use one, else the processor."""
        has_gpu = torch.cuda.is_available()
        return cls(torch.device("cuda" if has_gpu else "cpu"), batch_size, has_gpu)

    @property
    def description(self) -> str:
        """The device as people call it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def reduce_batch_size(self) -> None:
        """Half as many pictures at once; when it was one, all of them on the processor.

        Raises
        ------
        MosaikError
            The processor's own memory is not enough.
        """
        if not self.has_gpu:
            raise MosaikError(
                "the memory is not enough for one picture of the network; close other programs"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(
                f"the graphics card ran out of memory: batches of {self.batch_size} from here on"
            )
            return
        self.device, self.has_gpu, self.batch_size = torch.device("cpu"), False, self._wanted
        self.notes.append(
            "the graphics card's memory is not enough for one picture: "
            "the processor computes from here on, which is slower"
        )


@contextmanager
def thread_count(n: int) -> Iterator[None]:
    """Compute with *n* threads inside the block, and leave the setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
