"""Compute devices: the GPU if there is one, smaller batches when its memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from napari_mosaik.core.errors import InputError, MosaikError
from napari_mosaik.core.progress import checkpoint

__all__ = [
    "ComputeDevice",
    "DeviceName",
    "is_out_of_memory",
    "known_devices",
    "preferred_device",
    "stoppable",
    "thread_count",
]

DeviceName = Literal["auto", "cpu", "cuda", "cuda-float32", "mps"]
T = TypeVar("T")
_TENSOR_CORES = (7, 0)
"""Compute capability of CUDA from which 16-bit numbers are faster."""
_preferred: list[DeviceName] = ["auto"]
"""Which device `ComputeDevice.best` takes; see `preferred_device`."""


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
    item
        What a batch consists of, in the singular.
    half
        Type in which `halved` computes; if None float16 where CUDA has units for it, else float32.
    """

    device: torch.device
    batch_size: int
    has_gpu: bool
    notes: list[str] = field(default_factory=list)
    item: str = "image"
    half: torch.dtype | None = None
    _requested_size: int = 0

    def __post_init__(self) -> None:
        self._requested_size = self.batch_size

    @classmethod
    def best(cls, batch_size: int, item: str = "image") -> ComputeDevice:
        """The GPU if torch can use a CUDA one, else the CPU, unless another is preferred."""
        name = _preferred[-1]
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        kind, _, whole = name.partition("-")
        half = torch.float32 if whole else None
        return cls(torch.device(kind), batch_size, has_gpu=name != "cpu", item=item, half=half)

    @classmethod
    def cpu(cls, batch_size: int) -> ComputeDevice:
        """The CPU, even where there is a GPU."""
        return cls(torch.device("cpu"), batch_size, has_gpu=False)

    @property
    def description(self) -> str:
        """Name of the GPU, or "CPU"."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "CPU" if self.device.type == "cpu" else f"GPU ({self.device.type})"

    def record(self, precision: str = "32 bit") -> dict[str, str]:
        """Device, *precision* and the versions that its numbers depend on, for a record."""
        found = {"device": self.description, "precision": precision, "torch": torch.__version__}
        if self.device.type == "cuda":
            found["cuda"] = str(torch.version.cuda)
            found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        return found

    @property
    def queues(self) -> bool:
        """Whether work is queued on the device while the processor goes on."""
        return self.device.type == "cuda"

    @property
    def inner_type(self) -> torch.dtype:
        """Type in which `halved` computes."""
        if self.half is not None:
            return self.half
        has_units = self.queues and torch.cuda.get_device_capability(self.device) >= _TENSOR_CORES
        return torch.float16 if has_units else torch.float32

    @property
    def precision(self) -> str:
        """How precisely `halved` computes, for `record`."""
        name = str(self.inner_type).removeprefix("torch.")
        return "32 bit" if self.inner_type == torch.float32 else f"16 bit ({name})"

    def put(self, values: Tensor) -> Tensor:
        """The values (any shape; µm, labels... as they are) on the device; themselves if there.

        On their way to a GPU with a queue they lie in page-locked memory, and nothing waits.
        """
        if self.queues and values.device.type == "cpu":
            with suppress(RuntimeError):  # where the system locks no more pages, the copy waits
                values = values.pin_memory()
            return values.to(self.device, non_blocking=True)
        return values.to(self.device)

    def fetch(self, values: Tensor) -> Tensor:
        """The values (any shape, unit as they are) in the processor's memory.

        Waits for what the device was given before, and not for what other threads give it later.
        """
        if not self.queues:
            return values.cpu()
        try:
            here = torch.empty_like(values, device="cpu", pin_memory=True)
        except RuntimeError:
            return values.cpu()
        here.copy_(values, non_blocking=True)
        self._wait()
        return here

    def _wait(self) -> None:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        done.synchronize()

    def mixed(self) -> AbstractContextManager[object]:
        """Layers that tolerate it compute with 16 bit inside; only where a GPU has bfloat16.

        For training: its range is that of 32 bit, so that no gradient is lost.
        """
        has_it = self.queues and torch.cuda.is_bf16_supported(including_emulation=False)
        if has_it and self.half != torch.float32:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def halved(self) -> AbstractContextManager[object]:
        """Layers that tolerate it compute in `inner_type` inside.

        For results of a network that is trained: float16 is the more precise type, and what is too
        large for it becomes infinite, which the caller has to look for (`widen`).
        """
        if self.inner_type == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.inner_type)

    def widen(self) -> None:
        """Compute with 32 bit from here on, because numbers are too large for 16."""
        self.half = torch.float32
        self.notes.append("The network's numbers are too large for 16 bit; 32 bit from here on.")

    def exact(self) -> AbstractContextManager[object]:
        """Convolutions compute with all 32 bit and repeat themselves inside; for results."""
        if self.device.type == "cuda":
            return torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
        return nullcontext()

    def with_enough_memory(
        self, compute: Callable[[], T], moved: Callable[[], None] = lambda: None
    ) -> T:
        """Repeat with smaller batches, then on the CPU, while the GPU runs out of memory.

        *moved* is called after each change.
        """
        while True:
            try:
                return compute()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.reduce_batch_size()
            moved()

    def reduce_batch_size(self) -> None:
        """Halve the batch size; from a batch of one item, fall back to the CPU.

        Raises
        ------
        MosaikError
            The CPU's memory is not enough for one item.
        """
        if not self.has_gpu:
            raise MosaikError(
                f"the memory is not enough for a batch of one {self.item}; close other programs"
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
            f"The GPU's memory is not enough for one {self.item}; "
            "the CPU computes from here on, which is slower."
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU lacks memory; Apple's says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "backend out of memory" in str(error)


def known_devices() -> tuple[DeviceName, ...]:
    """The devices that torch can use on this computer."""
    gpus: dict[DeviceName, bool] = {
        "cuda": torch.cuda.is_available(),
        "cuda-float32": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return ("cpu", *(name for name, there in gpus.items() if there))


@contextmanager
def preferred_device(name: DeviceName) -> Iterator[None]:
    """Compute on the device *name* inside the block, in all threads.

    Raises
    ------
    InputError
        torch cannot use that device on this computer.
    """
    if name not in ("auto", *known_devices()):
        raise InputError(
            f"--device {name}: torch {torch.__version__} finds no such device on this computer; "
            "omit --device, or install a build of torch for it"
        )
    _preferred.append(name)
    try:
        yield
    finally:
        _preferred.pop()


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
