"""Pictures as other laboratories and scanners would have made them, with the same nuclei in them.

What a network is to be indifferent to is shown to it while it learns: the amount and colour of the
stains, how sharp the picture is, sharpening and compression by scanners, noise, size and direction.

Source: Tellez et al. 2019, Med Image Anal 58 (stain changes help more than stain normalisation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.colour import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from napari_mosaik.core.frame import Mask
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels

__all__ = ["Scene", "augmented_picture", "augmented_scene", "blurred"]

_WHITE = 256.0
_LARGEST_ZOOM = 1.35
_SMALLEST_ZOOM = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture whose nuclei are known, and where they are not known.

    Attributes
    ----------
    rgb
        (rows, columns, 3) 8-bit picture.
    labels
        Nuclei, 0 elsewhere.
    ignored
        Where nobody knows whether there is a nucleus; nothing is learned there.  None: nowhere.
    """

    rgb: NDArray[np.uint8]
    labels: Labels
    ignored: Mask | None = None


def augmented_scene(scene: Scene, side: int, amount: float, rng: np.random.Generator) -> Scene:
    """A square piece of a scene, turned, enlarged or reduced, with another stain and sharpness.

    Parameters
    ----------
    scene
        The scene, at least *side* large.
    side
        Rows and columns of the piece.
    amount
        0 changes place and direction only, 1 changes much.
    rng
        Source of chance.
    """
    shape = scene.labels.shape
    zoom = _zoom(amount, rng)
    span = min(math.ceil(side / zoom), *shape)
    row, col = (int(rng.integers(size - span + 1)) for size in shape)
    window = (slice(row, row + span), slice(col, col + span))
    ignored = np.zeros(shape, bool) if scene.ignored is None else scene.ignored
    nearest = np.clip(np.rint((np.arange(side) + 0.5) * span / side - 0.5), 0, span - 1).astype(int)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def turned(part: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.rot90(part, turns)[:: -1 if mirrored else 1])

    return Scene(
        augmented_picture(turned(_resized(scene.rgb[window], side)), amount, rng),
        turned(scene.labels[window][np.ix_(nearest, nearest)]).astype(np.int32),
        turned(ignored[window][np.ix_(nearest, nearest)]),
    )


def augmented_picture(
    rgb: NDArray[np.uint8], amount: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture with other stains, sharpness, noise and compression; as it is at *amount* 0."""
    if amount <= 0:
        return rgb
    od = -np.log((rgb.astype(np.float32) + 1) / np.float32(_WHITE))
    if rng.random() < 0.25:
        od = _other_eosin(od, rng)
    if rng.random() < 0.07:
        od = _brown(od, rng)
    mix = np.eye(3) + rng.normal(0, 0.09 * amount, (3, 3))
    mix *= np.exp(rng.normal(0, 0.28 * amount)) * np.exp(rng.normal(0, 0.1 * amount, (1, 3)))
    od = np.maximum(od @ mix.astype(np.float32).T, 0)
    if rng.random() < 0.3:
        od **= np.float32(rng.uniform(0.85, 1.2))
    od += np.float32(0.12 * amount * rng.random()) * (rng.random() < 0.5)
    return _scanned(od, amount, rng)


def _zoom(amount: float, rng: np.random.Generator) -> float:
    """Size of the piece's nuclei, as a multiple."""
    if amount <= 0 or rng.random() > 0.6:
        return 1.0
    return math.exp(rng.uniform(math.log(_SMALLEST_ZOOM), math.log(_LARGEST_ZOOM)))


def _resized(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if rgb.shape[0] == side:
        return rgb
    from napari_mosaik.segment.stardist.model import resampled

    factor = side / rgb.shape[0]
    found = resampled(rgb.astype(np.float32), factor)[:side, :side]
    short = [(0, side - size) for size in found.shape[:2]]
    padded = np.pad(found, (*short, (0, 0)), mode="edge")
    return np.asarray(np.clip(np.rint(padded), 0, 255), np.uint8)


def _other_eosin(od: Float32, rng: np.random.Generator) -> Float32:
    """Little eosin, as in a counterstain, or much of it."""
    stains = stain_matrix(HAEMATOXYLIN, EOSIN)
    amounts = od @ np.linalg.inv(stains).T.astype(np.float32)
    few = rng.random() < 0.6
    amounts[..., 1] *= np.float32(rng.uniform(0, 0.4) if few else rng.uniform(1.2, 1.8))
    return np.asarray(amounts @ stains.T.astype(np.float32), np.float32)


def _brown(od: Float32, rng: np.random.Generator) -> Float32:
    """Nuclei that an antibody stained brown, on a pale ground."""
    stains = stain_matrix(HAEMATOXYLIN, EOSIN)
    amounts = od @ np.linalg.inv(stains).T.astype(np.float32)
    dye = rng.uniform(0.6, 1.3) * np.array(DAB) + rng.uniform(0, 0.4) * np.array(HAEMATOXYLIN)
    pink = rng.uniform(0, 0.3) * np.array(EOSIN)
    return np.asarray(amounts[..., :1] * dye + amounts[..., 1:2] * pink, np.float32)


def _scanned(od: Float32, amount: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Optical densities as a scanner's file would show them."""
    if rng.random() < 0.45:
        od = blurred(od, rng.uniform(0.3, 1.3) * amount)
    values = np.float32(_WHITE) * np.exp(-od) - 1
    if rng.random() < 0.4:
        sharpening = np.float32(rng.uniform(0.2, 1.5) * amount)
        values = values + sharpening * (values - blurred(values, rng.uniform(0.6, 1.5)))
    if rng.random() < 0.5:
        noise = rng.normal(0, 7 * amount * rng.random(), values.shape)
        values = values + noise.astype(np.float32)
    found = np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
    return _compressed(found, int(rng.integers(35, 92))) if rng.random() < 0.4 else found


def blurred(values: Float32, sigma_px: float) -> Float32:
    """Each channel smoothed by a Gaussian."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, (sigma_px, sigma_px, 0)), np.float32)


def _compressed(rgb: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(rgb, level=quality)))
