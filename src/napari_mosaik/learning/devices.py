"""Compute devices: the GPU if there is one, smaller batches when its memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from napari_mosaik.core.errors import MosaikError
from napari_mosaik.core.progress import checkpoint

__all__ = ["ComputeDevice", "stoppable", "thread_count"]


@dataclass(slots=True)
class ComputeDevice:
    """Device and batch size; both change when the device runs out of memory.

    Parameters
    ----------
    device
        Where the network computes.
    batch_size
        Images that are computed together.
    has_gpu
        Whether a GPU is in use, so that the CPU is left to fall back on.
    notes
        What had to change, as sentences for the user.
    """

    device: torch.device
    batch_size: int
    has_gpu: bool
    notes: list[str] = field(default_factory=list)
    _requested_size: int = 0

    def __post_init__(self) -> None:
        self._requested_size = self.batch_size

    @classmethod
    def best(cls, batch_size: int) -> ComputeDevice:
        """The GPU if torch can use one, else the CPU."""
        has_gpu = torch.cuda.is_available()
        return cls(torch.device("cuda" if has_gpu else "cpu"), batch_size, has_gpu)

    @classmethod
    def cpu(cls, batch_size: int) -> ComputeDevice:
        """The CPU, even where there is a GPU."""
        return cls(torch.device("cpu"), batch_size, has_gpu=False)

    @property
    def description(self) -> str:
        """Name of the GPU, or "CPU"."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def reduce_batch_size(self) -> None:
        """Halve the batch size; from a batch of one image, fall back to the CPU.

        Raises
        ------
        MosaikError
            The CPU's memory is not enough for one image.
        """
        if not self.has_gpu:
            raise MosaikError(
                "the memory is not enough for a batch of one image; close other programs"
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(
                f"The GPU ran out of memory; batches of {self.batch_size} from here on."
            )
            return
        self.device, self.has_gpu = torch.device("cpu"), False
        self.batch_size = self._requested_size
        self.notes.append(
            "The GPU's memory is not enough for one image; "
            "the CPU computes from here on, which is slower."
        )


@contextmanager
def thread_count(n: int) -> Iterator[None]:
    """Compute with *n* CPU threads inside the block; restore the setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stoppable(network: torch.nn.Module) -> None:
    """Let a network stop between any two of its layers when its computation is cancelled."""
    for module in network.modules():
        module.register_forward_pre_hook(_look)


def _look(*_: object) -> None:
    checkpoint()
