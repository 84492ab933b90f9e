"""The StarDist network in torch: object probability, and distance to the edge along each ray.

A U-Net on an image that was reduced by two: two convolutions and a max-pool before it, three
levels within it.  Layers carry the names of StarDist's own Keras network, so its weights fit.

Source: Schmidt et al. 2018, MICCAI (StarDist); Ronneberger et al. 2015, MICCAI (U-Net).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.segment.filters import Float32

__all__ = [
    "CONTEXT_PX",
    "DIVISOR",
    "GRID",
    "Architecture",
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
STRIP_STEPS = 32
"""Larger maps would be allocated again for each strip, which takes as long as computing them."""
FIRST_REACH = 3
"""Rows of the first level at a strip's edge that lack their neighbours: two in it, one before."""
LAST_REACH = 2
"""Rows of the second level that make up for three convolutions at the first."""
SMALLEST_DISTANCE_PX = 1e-3
PIECE_OPS = 1 << 31
"""Multiplications between two places to stop on a CPU: about 0.1 s of one core."""
SMALLEST_PIECE = 16
"""Rows; a library may compute fewer in another way, with another rounding."""


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
        x = _in_strips(self._first, (images,), (GRID,), FIRST_REACH)
        skips = [x]
        for n in range(1, LEVELS):
            x = self._down(n, functional.max_pool2d(x, 2))
            skips.append(x)
        x = self._relu("middle_2", self._relu("middle_0", functional.max_pool2d(x, 2)))
        for n in reversed(range(1, LEVELS)):
            x = self._up(n, x, skips[n])
        found = _in_strips(self._last, (x, skips[0]), (1, 2), LAST_REACH)
        return found[:, :1], found[:, 1:]

    def _first(self, images: Tensor) -> Tensor:
        """The image reduced by two, and the first level."""
        x = self._relu("conv2d_1", self._relu("conv2d", images))
        return self._down(0, functional.max_pool2d(x, GRID))

    def _last(self, x: Tensor, skip: Tensor) -> Tensor:
        """Back to the first level, and the outputs."""
        x = self._relu("features", self._up(0, x, skip))
        checkpoint()
        return torch.cat([self.layers["prob"](x), self.layers["dist"](x)], 1)

    def _down(self, n: int, x: Tensor) -> Tensor:
        return self._relu(f"down_level_{n}_no_1", self._relu(f"down_level_{n}_no_0", x))

    def _up(self, n: int, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1)
        return self._relu(f"up_level_{n}_no_2", self._relu(f"up_level_{n}_no_0", x))

    def _relu(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(_in_pieces(cast(nn.Conv2d, self.layers[name]), x), inplace=True)


def _in_pieces(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution, a few rows at a time, which can be stopped between any two of them.

    Each piece gets the rows beside it that the kernel reaches, so the result is that of the whole.
    """
    checkpoint()
    rows, reach = x.shape[2], layer.kernel_size[0] // 2
    each = max(SMALLEST_PIECE, PIECE_OPS // (layer.weight.numel() * x.shape[0] * x.shape[3]))
    if each >= rows or x.device.type != "cpu":
        return cast(Tensor, layer(x))
    pieces = []
    for first in range(0, rows, each):
        checkpoint()
        last, top = min(first + each, rows), max(0, first - reach)
        pieces.append(layer(x[:, :, top : last + reach])[:, :, first - top : last - top])
    return torch.cat(pieces, 2)


def _in_strips(
    part: Callable[..., Tensor], maps: tuple[Tensor, ...], rows: tuple[int, ...], reach: int
) -> Tensor:
    """*part* of the network, a few rows at a time: its inner maps would be the largest of all.

    One step of the loop takes *rows* of each map.  Each strip gets *reach* steps more on both sides
    than it keeps, so the result is that of the whole.
    """
    steps = maps[0].shape[2] // rows[0]
    strips = []
    for first in range(0, steps, STRIP_STEPS):
        last = min(first + STRIP_STEPS, steps)
        top, bottom = max(0, first - reach), last + reach
        found = part(*(x[:, :, top * n : bottom * n] for x, n in zip(maps, rows, strict=True)))
        each = found.shape[2] // (min(bottom, steps) - top)
        strips.append(found[:, :, (first - top) * each : (last - top) * each])
    return strips[0] if len(strips) == 1 else torch.cat(strips, 2)


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
    pad = [(-size) % DIVISOR for size in values.shape[:2]]
    padded = np.pad(values, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="reflect")
    checkpoint()
    device = next(network.parameters()).device
    tensor = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].to(device)
    with torch.inference_mode(), torch.autocast(device.type, dtype, dtype != torch.float32):
        scores, distances = network(tensor)
    prob = _cut(torch.sigmoid(scores.float()), pad)[..., 0]
    rays = _cut(distances.float(), pad)
    return prob, np.maximum(rays, np.float32(SMALLEST_DISTANCE_PX), out=rays)


def _cut(maps: Tensor, pad: list[int]) -> NDArray[np.float32]:
    checkpoint()
    rows, cols = (size - added // GRID for size, added in zip(maps.shape[2:], pad, strict=True))
    return maps[0, :, :rows, :cols].permute(1, 2, 0).contiguous().cpu().numpy()
