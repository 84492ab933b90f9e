"""The StarDist network in torch: object probability, and distance to the edge along each ray.

A U-Net on an image that was reduced by two: two convolutions and a max-pool before it, three
levels within it.  Layers carry the names of StarDist's own Keras network, so its weights fit.

Source: Schmidt et al. 2018, MICCAI (StarDist); Ronneberger et al. 2015, MICCAI (U-Net).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
PIECE = (128, 384)
"""Positions (rows, columns) of a map that are computed at once on a processor: about 0.1 s, and
inner maps small enough that their memory is used again instead of asked of the system."""


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
    """The network on a large image, piece by piece, with maps whose memory is used again.

    Only the maps between the levels exist as a whole.  The inner maps of a level and those of the
    outputs, which are the largest, exist for one piece at a time.  Each piece is computed with the
    positions around it that its convolutions reach, so the result is that of the whole.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    dtype
        Type in which the convolutions are computed.
    """

    def __init__(self, network: StarDistNetwork, dtype: torch.dtype = torch.float32) -> None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.dtype = dtype
        self.device = next(network.parameters()).device
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
        pad = [(-size) % DIVISOR for size in image.shape[:2]]
        if any(pad):
            image = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="reflect")
        cells = image.shape[0] // DIVISOR, image.shape[1] // DIVISOR
        wanted = np.ones(cells, bool) if where is None else np.asarray(where, bool)
        if not wanted.any():
            return
        reached = _grown(wanted, CONTEXT_PX // DIVISOR)
        rows, cols = (_extent(np.asarray(reached.any(axis))) for axis in (1, 0))
        wanted, reached = wanted[rows, cols], reached[rows, cols]
        corner = rows.start * DIVISOR // GRID, cols.start * DIVISOR // GRID
        image = image[
            rows.start * DIVISOR : rows.stop * DIVISOR, cols.start * DIVISOR : cols.stop * DIVISOR
        ]
        with self.computing():
            below, skip = self._lower_levels(image, scale, reached)
        for piece in self._pieces(DIVISOR // GRID, wanted):
            with self.computing():
                features = self._last(piece, below, skip)
            yield corner[0] + piece[0].start, corner[1] + piece[1].start, features

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, and in the type in which the convolutions are computed."""
        kind = torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)
        with torch.inference_mode(), kind:
            yield

    def _lower_levels(
        self, image: NDArray[Any], scale: tuple[float, float], reached: Mask
    ) -> tuple[Tensor, Tensor]:
        """What the last level reads: the one below it, and its equal on the way down."""
        net, size = self.network, (image.shape[0] // GRID, image.shape[1] // GRID)

        def first(part: Window) -> Tensor:
            rows, cols = (slice(GRID * side.start, GRID * side.stop) for side in part)
            return net.first(self._normalised(image[rows, cols], scale))

        skips = [self._level("skip 0", size, DIVISOR // GRID, reached, first, 3)]
        for n in range(1, LEVELS):
            size = size[0] // 2, size[1] // 2
            down = partial(_taken, partial(net.down, n), (skips[-1], 2))
            skips.append(self._level(f"skip {n}", size, DIVISOR >> (n + 1), reached, down))
        size = size[0] // 2, size[1] // 2
        x = self._level("middle", size, 1, reached, partial(_taken, net.middle, (skips[-1], 2)))
        for n in reversed(range(1, LEVELS)):
            size = size[0] * 2, size[1] * 2
            up = partial(_raised, partial(net.up, n), x, skips[n])
            x = self._level(f"up {n}", size, DIVISOR >> (n + 1), reached, up)
        return x, skips[0]

    def _last(self, piece: Window, below: Tensor, skip: Tensor) -> Tensor:
        """Features of one piece of the last level."""
        net = self.network

        def part(x: Tensor, equal: Tensor) -> Tensor:
            return net.features(net.up(0, x, equal))

        work = partial(_raised, part, below, skip)
        return _inside(piece, (skip.shape[2], skip.shape[3]), work, 4)

    def _level(
        self,
        name: str,
        size: tuple[int, int],
        per_cell: int,
        reached: Mask,
        part: Callable[[Window], Tensor],
        reach: int = 2,
    ) -> Tensor:
        """One whole map, filled piece by piece; what lies elsewhere is left as it was."""
        out: Tensor | None = None
        for piece in self._pieces(per_cell, reached):
            found = _inside(piece, size, part, reach)
            if out is None:
                out = self._room(name, found, size)
            out[:, :, piece[0], piece[1]] = found
        assert out is not None
        return out

    def _room(self, name: str, like: Tensor, size: tuple[int, int]) -> Tensor:
        """A map (1, channels, rows, columns), channels last, in memory that is used again."""
        shape = (1, *size, like.shape[1])
        needed = math.prod(shape)
        kept = self._memory.get(name)
        if kept is None or kept.numel() < needed or kept.dtype != like.dtype:
            self._memory.pop(name, None)
            self._memory[name] = kept = torch.zeros(needed, dtype=like.dtype, device=self.device)
        return kept[:needed].view(shape).permute(0, 3, 1, 2)

    def _normalised(self, levels: NDArray[Any], scale: tuple[float, float]) -> Tensor:
        """(1, 3, rows, columns) on the device, channels last; 8-bit levels are sent as they are."""
        tensor = torch.from_numpy(np.ascontiguousarray(levels)).to(self.device)
        low, high = np.float32(scale[0]), np.float32(scale[1] - scale[0])
        x = tensor.to(torch.float32).sub(float(low)).div_(float(high))
        return x.permute(2, 0, 1)[None]

    def _pieces(self, per_cell: int, cells: Mask) -> Iterator[Window]:
        """Pieces that cover the cells, in positions of a map: rows of pieces, spans of columns."""
        most = PIECE if self.device.type == "cpu" else (1 << 20, 1 << 20)
        step = max(1, most[0] // per_cell)
        for first in range(0, cells.shape[0], step):
            strip = cells[first : first + step]
            rows = slice(first * per_cell, (first + strip.shape[0]) * per_cell)
            for start, stop in _spans(np.asarray(strip.any(0)), max(1, most[1] // per_cell)):
                yield rows, slice(start * per_cell, stop * per_cell)


Window = tuple[slice, slice]


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


def _inside(
    piece: Window, size: tuple[int, int], part: Callable[[Window], Tensor], reach: int
) -> Tensor:
    """A piece (rows, columns) of a map of some size, computed with the positions around it.

    *reach* is the number of convolutions, or one more where the level below needs whole positions.
    """
    wide, inner = [], []
    for side, length in zip(piece, size, strict=True):
        start, stop = max(0, side.start - reach), min(length, side.stop + reach)
        wide.append(slice(start, stop))
        inner.append(slice(side.start - start, side.stop - start))
    return part((wide[0], wide[1]))[:, :, inner[0], inner[1]]


def _taken(work: Callable[[Tensor], Tensor], source: tuple[Tensor, int], part: Window) -> Tensor:
    """*work* on the positions of a finer map from which a part is made."""
    x, times = source
    rows, cols = (slice(times * side.start, times * side.stop) for side in part)
    return work(x[:, :, rows, cols])


def _raised(
    work: Callable[[Tensor, Tensor], Tensor], below: Tensor, skip: Tensor, part: Window
) -> Tensor:
    """*work* on the positions of the level below and of its equal from which a part is made."""
    rows, cols = (slice(side.start // 2, side.stop // 2) for side in part)
    return work(below[:, :, rows, cols], skip[:, :, part[0], part[1]])


def predict_maps(
    network: StarDistNetwork, image: ArrayLike, dtype: torch.dtype = torch.float32
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
    dtype
        Type in which the convolutions are computed.
    """
    values = np.asarray(image, np.float32)
    if values.ndim != 3 or values.shape[2] != 3 or min(values.shape) == 0:
        raise InputError(f"the network reads (rows, columns, 3) images, not {values.shape}")
    rows, cols = (-(-size // GRID) for size in values.shape[:2])
    prob = np.zeros((rows, cols), np.float32)
    rays = np.zeros((rows, cols, network.architecture.rays), np.float32)
    work = PieceWork(network, dtype)
    for row, col, features in work.run(values, (0.0, 1.0)):
        with work.computing():
            scores, distances = network.heads(features)
        place = slice(row, row + features.shape[2]), slice(col, col + features.shape[3])
        for out, part in ((prob[..., None], torch.sigmoid(scores.float())), (rays, distances)):
            view = out[place]
            found = part.float()[0].permute(1, 2, 0).cpu().numpy()
            view[:] = found[: view.shape[0], : view.shape[1]]
    return prob, np.maximum(rays, np.float32(SMALLEST_DISTANCE_PX), out=rays)
