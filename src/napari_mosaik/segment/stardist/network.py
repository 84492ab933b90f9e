"""The StarDist network in torch: object probability, and distance to the edge along each ray.

A U-Net on an image that was reduced by two: two convolutions and a max-pool before it, three
levels within it.  Layers carry the names of StarDist's own Keras network, so its weights fit.

Source: Schmidt et al. 2018, MICCAI (StarDist); Ronneberger et al. 2015, MICCAI (U-Net).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.segment.filters import Float32

__all__ = [
    "CONTEXT_PX",
    "DIVISOR",
    "GRID",
    "Architecture",
    "PieceWork",
    "StarDistNetwork",
    "layer_shapes",
    "predict_maps",
]

GRID = 2
"""Pixels between two positions of the output."""
DIVISOR = 16
"""Rows and columns of the padded image are multiples of this."""
CONTEXT_PX = 112
"""Pixels further away than this change no output (92 px, and up to one cell of 16 px)."""
LEVELS = 3
SMALLEST_DISTANCE_PX = 1e-3
PIECE = (128, 192)
"""Positions (rows, columns) of the output that are computed at once on a processor: about 0.1 s,
and inner maps small enough that their memory is used again instead of asked of the system."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Widths of the network; the defaults are those of StarDist's ``2D_versatile_he``."""

    base: int = 32
    features: int = 128
    rays: int = 32

    def __post_init__(self) -> None:
        for name in ("base", "features", "rays"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"the network's {name} must be a positive number, not {value!r}")


def layer_shapes(architecture: Architecture) -> dict[str, tuple[int, int, int]]:
    """Input channels, output channels and kernel size of each convolution, in Keras's order."""
    base = architecture.base
    width = [base * 2**n for n in range(LEVELS)]
    shapes = {"conv2d": (3, base, 3), "conv2d_1": (base, base, 3)}
    channels = base
    for n in range(LEVELS):
        shapes[f"down_level_{n}_no_0"] = (channels, width[n], 3)
        shapes[f"down_level_{n}_no_1"] = (width[n], width[n], 3)
        channels = width[n]
    shapes["middle_0"] = (channels, 2 * channels, 3)
    shapes["middle_2"] = (2 * channels, channels, 3)
    for n in reversed(range(LEVELS)):
        shapes[f"up_level_{n}_no_0"] = (channels + width[n], width[n], 3)
        channels = width[max(0, n - 1)]
        shapes[f"up_level_{n}_no_2"] = (width[n], channels, 3)
    shapes["features"] = (channels, architecture.features, 3)
    shapes["prob"] = (architecture.features, 1, 1)
    shapes["dist"] = (architecture.features, architecture.rays, 1)
    return shapes


class StarDistNetwork(nn.Module):
    """Object probability and ray lengths on a grid of every second pixel."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        self.layers = nn.ModuleDict(
            {
                name: nn.Conv2d(inputs, outputs, size, padding=size // 2)
                for name, (inputs, outputs, size) in layer_shapes(self.architecture).items()
            }
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid (n, 1, r/2, c/2) and distances in px (n, rays, r/2, c/2).

        ``images`` are (n, 3, r, c), normalised (dimensionless); r and c are multiples of 16.
        """
        skips = [self.first(images)]
        for n in range(1, LEVELS):
            skips.append(self.down(n, skips[-1]))
        x = self.middle(skips[-1])
        for n in reversed(range(LEVELS)):
            x = self.up(n, x, skips[n])
        return self.heads(self.features(x))

    def first(self, images: Tensor) -> Tensor:
        """The first level of normalised images, dimensionless.

        Shape (n, base, r/2, c/2) from (n, 3, r, c).
        """
        return self._twice("down_level_0", self._reduced(images))

    def _reduced(self, images: Tensor) -> Tensor:
        x = self._relu("conv2d_1", self._relu("conv2d", images))
        return functional.max_pool2d(x, GRID)

    def down(self, n: int, x: Tensor) -> Tensor:
        """Level *n* from the one above, dimensionless.

        Shape (1, channels, r/2, c/2) from (1, channels, r, c).
        """
        return self._twice(f"down_level_{n}", functional.max_pool2d(x, 2))

    def _twice(self, name: str, x: Tensor) -> Tensor:
        return self._relu(f"{name}_no_1", self._relu(f"{name}_no_0", x))

    def middle(self, x: Tensor) -> Tensor:
        """The lowest level from the last one on the way down, dimensionless.

        Shape (1, channels, r/2, c/2) from (1, channels, r, c).
        """
        return self._relu("middle_2", self._relu("middle_0", functional.max_pool2d(x, 2)))

    def up(self, n: int, x: Tensor, skip: Tensor) -> Tensor:
        """Level *n* on the way up from the one below and its equal, dimensionless.

        Shape (1, channels, 2r, 2c) from (1, channels, r, c).
        """
        x = torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1)
        return self._relu(f"up_level_{n}_no_2", self._relu(f"up_level_{n}_no_0", x))

    def features(self, x: Tensor) -> Tensor:
        """What both outputs read, shape (n, features, r, c), dimensionless."""
        return self._relu("features", x)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (n, 1, r, c) and distances in px (n, rays, r, c)."""
        return self.layers["prob"](features), self.layers["dist"](features)

    def _relu(self, name: str, x: Tensor) -> Tensor:
        checkpoint()
        return functional.relu(cast(nn.Conv2d, self.layers[name])(x), inplace=True)


class PieceWork:
    """The network on a large image, strip by strip, with maps whose memory is used again.

    The output is computed in strips from top to bottom.  A map between the levels holds the rows
    that the strip still reads, so the memory depends on the width of the image alone.  The inner
    maps of a level and those of the outputs, which are the largest, exist for one piece at a time.
    Each piece is computed with the positions around it that its convolutions reach, so the result
    is that of the whole.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    device
        Where the network is; a GPU computes as many pieces at once as its batch has.
    """

    def __init__(self, network: StarDistNetwork, device: ComputeDevice | None = None) -> None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.device = device or ComputeDevice.cpu(1)
        self.batch_size, self.inner_type = self.device.batch_size, self.device.inner_type
        times = self.batch_size if self.device.has_gpu else 1
        self._piece = PIECE[0] * times, PIECE[1] * times
        self._memory: dict[str, Tensor] = {}

    def run(
        self, image: NDArray[Any], scale: tuple[float, float], where: Mask | None = None
    ) -> Iterator[tuple[int, int, Tensor]]:
        """First row and column of a piece on the grid, and what the outputs read there.

        Parameters
        ----------
        image
            (r, c, 3) levels, of any type; padded at its end by reflection to multiples of 16.
        scale
            Level that becomes 0 and one that becomes 1.
        where
            (ceil(r/16), ceil(c/16)) mask of the cells of 16 px whose outputs are wanted; all if
            None.  Pixels that change no wanted output are not looked at.

        Yields
        ------
        tuple
            Row and column (index), and features (1, features, rows, columns), dimensionless.
        """
        cells = -(-image.shape[0] // DIVISOR), -(-image.shape[1] // DIVISOR)
        wanted = np.ones(cells, bool) if where is None else np.asarray(where, bool)
        if not wanted.any():
            return
        reached = _grown(wanted, CONTEXT_PX // DIVISOR)
        rows, cols = (_extent(np.asarray(reached.any(axis))) for axis in (1, 0))
        wanted, reached = wanted[rows, cols], reached[rows, cols]
        corner = rows.start * DIVISOR // GRID, cols.start * DIVISOR // GRID
        levels = self._levels(_Image(image, scale, (rows, cols), self.device), reached)
        try:
            for piece, features in self._strips(levels, wanted):
                yield corner[0] + piece[0].start, corner[1] + piece[1].start, features
        finally:
            # The levels know one another: left to the collector of cycles, the image would stay.
            for level in levels:
                level.forget()

    def _strips(self, levels: Sequence[_Level], wanted: Mask) -> Iterator[tuple[Window, Tensor]]:
        """The pieces of the last level that cover the wanted cells (r, c), strip by strip."""
        per_cell, step = DIVISOR // GRID, max(1, self._piece[0] * GRID // DIVISOR)
        for first in range(0, len(wanted), step):
            strip = wanted[first : first + step]
            if not strip.any():
                continue
            for level in levels:
                level.skip_to(first - CONTEXT_PX // DIVISOR)
            last = levels[-1]
            last.skip_to(first)
            for piece in last.pieces((first + len(strip)) * per_cell, wanted):
                with self.computing(), self.device.halved():
                    features = last.computed(piece)
                yield piece, features

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, and with all bits."""
        with torch.inference_mode(), self.device.exact():
            yield

    def _levels(self, image: _Image, reached: Mask) -> list[_Level]:
        """The maps of the network, connected with one another; the last one gives the features."""
        net, positions = self.network, math.prod(self._piece)
        levels: list[_Level] = []

        def level(
            work: Callable[..., Tensor], reach: int, *sources: tuple[_Level | _Image, float]
        ) -> _Level:
            source, factor = sources[0]
            size = int(source.size[0] / factor), int(source.size[1] / factor)
            memory = partial(self._room, f"level {len(levels)}")
            levels.append(_Level(work, reach, sources, size, reached, positions, memory))
            return levels[-1]

        way = [level(net.first, 3, (image, GRID))]
        for n in range(1, LEVELS):
            way.append(level(partial(net.down, n), 2, (way[-1], 2)))
        x = level(net.middle, 2, (way[-1], 2))
        for n in reversed(range(1, LEVELS)):
            # What lies below comes first: reading it also computes its equal on the way down.
            x = level(partial(net.up, n), 2, (x, 0.5), (way[n], 1))

        def last(below: Tensor, equal: Tensor) -> Tensor:
            return net.features(net.up(0, below, equal))

        level(last, 4, (x, 0.5), (way[0], 1))
        return levels

    def _room(self, name: str, numbers: int, dtype: torch.dtype) -> Tensor:
        """Memory (n,) for a map, at least so many numbers; its content is kept while it lasts."""
        kept = self._memory.get(name)
        if kept is None or kept.numel() < numbers or kept.dtype != dtype:
            self._memory[name] = kept = torch.zeros(numbers, dtype=dtype, device=self.device.device)
        return kept


class _Image:
    """The cells of an image that the first level reads.

    Parameters
    ----------
    levels
        (r, c, 3) levels; beyond the end they are reflected.
    scale
        Level that becomes 0 and one that becomes 1.
    cells
        Rows and columns of cells of 16 px.
    device
        Where the network is.
    """

    def __init__(
        self, levels: NDArray[Any], scale: tuple[float, float], cells: Window, device: ComputeDevice
    ) -> None:
        self._levels, self._scale, self._device = levels, scale, device
        self._corner = cells[0].start * DIVISOR, cells[1].start * DIVISOR
        rows, cols = (DIVISOR * (side.stop - side.start) for side in cells)
        self.size = rows, cols

    def part(self, part: Window) -> Tensor:
        """(1, 3, rows, columns) on the device, channels last; 8-bit levels are sent as they are."""
        rows, cols = (
            _reflected(slice(corner + side.start, corner + side.stop), length)
            for side, corner, length in zip(part, self._corner, self._levels.shape, strict=False)
        )
        tensor = torch.from_numpy(np.ascontiguousarray(self._levels[rows][:, cols]))
        x = self._device.put(tensor).to(torch.float32)
        low, high = np.float32(self._scale[0]), np.float32(self._scale[1] - self._scale[0])
        return x.sub(float(low)).div_(float(high))[None].permute(0, 3, 1, 2)

    def read_by(self, first: Callable[[], int]) -> None:
        """The image is there as a whole."""


class _Level:
    """A map whose rows are computed from top to bottom as they are read, and forgotten after.

    Parameters
    ----------
    work
        Makes a part of the map from the parts of its sources.
    reach
        Positions around a part that are computed with it: the number of convolutions, or one more
        where a source needs whole positions.
    sources
        What it reads, with the number of their positions for each of its own.
    size
        Rows and columns.
    cells
        (r, c) mask of the cells of 16 px that are wanted; elsewhere the map holds any numbers.
    positions
        Number of positions that are computed at once.
    memory
        Gives memory (n,) for so many numbers of a type.
    """

    def __init__(
        self,
        work: Callable[..., Tensor],
        reach: int,
        sources: Sequence[tuple[_Level | _Image, float]],
        size: tuple[int, int],
        cells: Mask,
        positions: int,
        memory: Callable[[int, torch.dtype], Tensor],
    ) -> None:
        self.size = size
        self._work, self._reach, self._sources = work, reach, sources
        self._cells, self._positions, self._memory = cells, positions, memory
        self._per_cell = size[0] // cells.shape[0]
        self._next = 0
        """First row that is not computed."""
        self._first = self._end = 0
        """The rows in memory."""
        self._rows = torch.zeros((0, size[1], 0))
        self._first_read: list[Callable[[], int]] = []
        for source, factor in sources:
            source.read_by(partial(self._first_of, factor))

    def _first_of(self, factor: float) -> int:
        """First row of a source that is still read; *factor* as in ``sources``."""
        return int((self._next - self._reach) * factor)

    def read_by(self, first: Callable[[], int]) -> None:
        """Keep the rows from *first* on, which something still reads."""
        self._first_read.append(first)

    def forget(self) -> None:
        """Let go of the sources and of what reads this map."""
        self._sources, self._first_read = (), []

    def skip_to(self, cell: int) -> None:
        """Compute nothing above a row of cells (index), which nothing wanted depends on."""
        self._next = max(self._next, cell * self._per_cell)

    def part(self, part: Window) -> Tensor:
        """(1, channels, rows, columns) of a part; the rows that it lacks are computed."""
        rows, cols = part
        if rows.stop > self._next:
            for piece in self.pieces(rows.stop, self._cells):
                found = self.computed(piece)
                self._hold(rows.stop, found)
                self._view(piece[0])[..., piece[1]] = found
            self._hold(rows.stop)
            self._next = rows.stop
        return self._view(rows)[..., cols]

    def pieces(self, stop: int, cells: Mask) -> Iterator[Window]:
        """Pieces (rows, columns) of the rows up to *stop* that cover the cells of a mask (r, c)."""
        rows = slice(self._next, stop)
        strip = cells[rows.start // self._per_cell : -(-stop // self._per_cell)]
        most = self._positions // (stop - rows.start) // self._per_cell
        for first, last in _spans(np.asarray(strip.any(0)), max(1, most)):
            yield rows, slice(first * self._per_cell, last * self._per_cell)

    def computed(self, piece: Window) -> Tensor:
        """(1, channels, rows, columns) of a piece."""
        wide, inner = [], []
        for side, length in zip(piece, self.size, strict=True):
            start, stop = max(0, side.start - self._reach), min(length, side.stop + self._reach)
            wide.append(slice(start, stop))
            inner.append(slice(side.start - start, side.stop - start))
        parts = []
        for source, factor in self._sources:
            rows, cols = (slice(int(s.start * factor), int(s.stop * factor)) for s in wide)
            parts.append(source.part((rows, cols)))
        return self._work(*parts)[:, :, inner[0], inner[1]]

    def _hold(self, stop: int, like: Tensor | None = None) -> None:
        """Have memory for the rows up to *stop*; rows that nothing reads any more make way."""
        if stop <= self._end:
            return
        first = max(0, min([self._next, *(read() for read in self._first_read)]))
        kept = self._rows[max(0, first - self._first) : self._end - self._first]
        needed = stop - first
        if len(self._rows) < needed:
            like = self._view(slice(self._first, self._end)) if like is None else like
            row = self.size[1] * like.shape[1]
            memory = self._memory(row * needed * 5 // 4, like.dtype)
            self._rows = memory[: memory.numel() // row * row].view(-1, self.size[1], like.shape[1])
            if len(kept):
                self._rows[: len(kept)] = kept
            self._first = first
        elif stop - self._first > len(self._rows):
            self._rows[: len(kept)] = kept.clone()
            self._first = first
        self._end = stop

    def _view(self, rows: slice) -> Tensor:
        """(1, channels, rows, columns) in memory of some rows, channels last."""
        part = self._rows[None, rows.start - self._first : rows.stop - self._first]
        return part.permute(0, 3, 1, 2)  # in this order torch sees that the channels are last


Window = tuple[slice, slice]


def _reflected(side: slice, length: int) -> slice | NDArray[np.intp]:
    """Positions of an axis; those beyond its end are reflected at its last position."""
    if side.stop <= length:
        return side
    return np.pad(np.arange(length), (0, side.stop - length), mode="reflect")[side]


def _grown(cells: Mask, by: int) -> Mask:
    """A mask of cells with those up to so many rows and columns away."""
    out = np.array(cells)
    for axis in (0, 1):
        sums = np.cumsum(np.pad(out, [(by + 1, by) if a == axis else (0, 0) for a in (0, 1)]), axis)
        width, size = 2 * by + 1, out.shape[axis]
        last = np.take(sums, np.arange(width, width + size), axis)
        out = last > np.take(sums, np.arange(size), axis)
    return out


def _extent(line: Mask) -> slice:
    """From the first to the last True of a mask (n,)."""
    inside = np.flatnonzero(line)
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _spans(line: Mask, most: int) -> Iterator[tuple[int, int]]:
    """Runs of True in a mask (n,), cut into equal parts of at most so many."""
    edges = np.flatnonzero(np.diff(np.pad(np.asarray(line, np.int8), 1)))
    for start, stop in edges.reshape(-1, 2).tolist():
        parts = -(-(stop - start) // most)
        cuts = [start + (stop - start) * n // parts for n in range(parts + 1)]
        yield from pairwise(cuts)


def predict_maps(
    network: StarDistNetwork, image: ArrayLike, device: ComputeDevice | None = None
) -> tuple[Float32, Float32]:
    """Probability (ceil(r/2), ceil(c/2)) and ray lengths in px (ceil(r/2), ceil(c/2), rays).

    The image is padded at its end by reflection to multiples of 16; on the grid, half of it,
    rounded down, is cut off again, as StarDist does.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    image
        (r, c, 3) normalised image, dimensionless.
    device
        Where the network is; the CPU if None.
    """
    values = np.asarray(image, np.float32)
    if values.ndim != 3 or values.shape[2] != 3 or min(values.shape) == 0:
        raise InputError(f"the network reads (rows, columns, 3) images, not {values.shape}")
    rows, cols = (-(-size // GRID) for size in values.shape[:2])
    prob = np.zeros((rows, cols), np.float32)
    rays = np.zeros((rows, cols, network.architecture.rays), np.float32)
    work = PieceWork(network, device)
    for row, col, features in work.run(values, (0.0, 1.0)):
        with work.computing():
            scores, distances = network.heads(features.float())
        place = slice(row, row + features.shape[2]), slice(col, col + features.shape[3])
        for out, part in ((prob[..., None], torch.sigmoid(scores)), (rays, distances)):
            view = out[place]
            found = work.device.fetch(part[0].permute(1, 2, 0)).numpy()
            view[:] = found[: view.shape[0], : view.shape[1]]
    return prob, np.maximum(rays, np.float32(SMALLEST_DISTANCE_PX), out=rays)
