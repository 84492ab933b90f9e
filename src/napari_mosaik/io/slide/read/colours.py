"""Conversion of stored samples (grey, palette, RGB, with transparency) to RGB on white."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import InputError
from napari_mosaik.core.compiled import compiled
from napari_mosaik.io.slide.types.tiles import Pixels

__all__ = ["GREY", "argb_over_white", "colour_of", "over_white", "padding_whitened"]

GREY = "the picture is grey: a stained section has colours, and its stains cannot be separated"
"""The doubt about a picture of one channel."""
_BLACK = 4
"""Maximum value of black in any channel after JPEG compression."""
_MIN_PADDING = 8
"""Fewer black rows or columns at the edge of a tile are not regarded as padding."""
_OTHER_COLOURS = {4: "masked", 5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
_NOT_DECODED_TO_RGB = (1, 5, 8, 32773, 32946)
"""TIFF compressions (none, LZW, Deflate, PackBits) that leave YCbCr as it is."""


def colour_of(path: Path, page: Any, samples: int) -> Callable[[NDArray[Any]], Pixels]:
    """The conversion of the samples of a page to RGB, with black padding made white."""
    to_rgb = _rgb_of(path, page, samples)
    return lambda pixels: padding_whitened(to_rgb(pixels))


def _rgb_of(path: Path, page: Any, samples: int) -> Callable[[NDArray[Any]], Pixels]:
    photometric = int(page.photometric)
    plain_ycbcr = photometric == 6 and int(page.compression) in _NOT_DECODED_TO_RGB
    if photometric in _OTHER_COLOURS or plain_ycbcr:
        colours = _OTHER_COLOURS.get(photometric, "YCbCr")
        raise InputError(
            f"{path.name} holds {colours} colours; a slide must be 8-bit RGB: export it as RGB"
        )
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
        f"{path.name} has {samples} channels; a slide must be a colour (RGB) image of a "
        "stained section, not a fluorescence image"
    )


def _from_grey(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3)))


def _from_inverse_grey(pixels: NDArray[Any]) -> Pixels:
    return _from_grey(255 - pixels)


def _without_fourth(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(pixels[..., :3])


@compiled
def argb_over_white(pixels: NDArray[np.uint32]) -> Pixels:
    """OpenSlide's pixels (rows, columns), premultiplied 32-bit ARGB, as RGB uint8 on white."""
    out = np.empty((pixels.shape[0], pixels.shape[1], 3), np.uint8)
    for i in range(pixels.shape[0]):
        for j in range(pixels.shape[1]):
            value = pixels[i, j]
            rest = 255 - (value >> 24)
            out[i, j, 0] = min(255, ((value >> 16) & 255) + rest)
            out[i, j, 1] = min(255, ((value >> 8) & 255) + rest)
            out[i, j, 2] = min(255, (value & 255) + rest)
    return out


@compiled
def _black_edges(pixels: Pixels) -> tuple[int, int, int, int]:
    """Number of wholly black rows at the top and bottom, columns at the left and right."""
    height, width = pixels.shape[0], pixels.shape[1]
    top = 0
    while top < height and pixels[top].max() <= _BLACK:
        top += 1
    if top == height:
        return height, 0, 0, 0
    bottom, left, right = 0, 0, 0
    while pixels[height - 1 - bottom].max() <= _BLACK:
        bottom += 1
    while pixels[:, left].max() <= _BLACK:
        left += 1
    while pixels[:, width - 1 - right].max() <= _BLACK:
        right += 1
    return top, bottom, left, right


def padding_whitened(pixels: Pixels) -> Pixels:
    """The tile (rows, columns, 3), uint8, with black padding of the scanner made white.

    Padding is a tile that is entirely black, or at least 8 rows or columns at its edge that are
    entirely black (red, green and blue at most 4 of 255, which stained tissue never is).
    """
    if pixels.size == 0 or (pixels[0, 0].max() > _BLACK and pixels[-1, -1].max() > _BLACK):
        return pixels
    height, width = pixels.shape[:2]
    top, bottom, left, right = _black_edges(np.ascontiguousarray(pixels))
    if max(top, bottom, left, right) < min(_MIN_PADDING, height):
        return pixels
    out: Pixels = pixels if pixels.flags["W"] else np.array(pixels)
    for count, edge in (
        (top, np.s_[:top]), (bottom, np.s_[height - bottom :]),
        (left, np.s_[:, :left]), (right, np.s_[:, width - right :]),
    ):  # fmt: skip
        if count >= _MIN_PADDING or count == height:
            out[edge] = 255
    return out


def over_white(pixels: NDArray[Any]) -> Pixels:
    """RGBA pixels (..., 4) composited on white: RGB (..., 3), uint8."""
    colour, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    out: Pixels = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return out


def _over_white_premultiplied(pixels: NDArray[Any]) -> Pixels:
    white = pixels[..., :3].astype(np.uint32) + (255 - pixels[..., 3:].astype(np.uint32))
    out: Pixels = np.minimum(white, 255).astype(np.uint8)
    return out
