"""Stored samples of any kind (grey, palette, RGB, with transparency) as RGB on white."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.io.slide.base import Pixels

__all__ = ["colour_of", "over_white"]


def colour_of(path: Path, page: Any, samples: int) -> Callable[[NDArray[Any]], Pixels]:
    """How the samples of this page become RGB."""
    photometric = int(page.photometric)
    if samples == 1 and photometric in (0, 1):
        return _from_inverse_grey if photometric == 0 else _from_grey
    if samples == 1 and photometric == 3 and page.colormap is not None:
        palette = np.ascontiguousarray((np.asarray(page.colormap) >> 8).astype(np.uint8).T)
        return lambda pixels: palette[pixels[..., 0]]
    if samples == 3:
        return np.ascontiguousarray
    if samples == 4:
        kind = int(page.extrasamples[0]) if page.extrasamples else 0
        return {1: _over_white_premultiplied, 2: over_white}.get(kind, _without_fourth)
    raise InputError(
        f"{path.name} has {samples} channels; a slide must be a colour (RGB) picture of a "
        "stained section, not a fluorescence image"
    )


def _from_grey(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3)))


def _from_inverse_grey(pixels: NDArray[Any]) -> Pixels:
    return _from_grey(255 - pixels)


def _without_fourth(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(pixels[..., :3])


def over_white(pixels: NDArray[Any]) -> Pixels:
    """RGBA pixels (..., 4) composited on white."""
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    out: Pixels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return out


def _over_white_premultiplied(pixels: NDArray[Any]) -> Pixels:
    white = pixels[..., :3].astype(np.uint32) + (255 - pixels[..., 3:].astype(np.uint32))
    out: Pixels = np.minimum(white, 255).astype(np.uint8)
    return out
