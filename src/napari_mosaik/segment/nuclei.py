"""Nuclei segmentation: the interface of all methods, and the classical one.

The classical method finds haematoxylin-rich objects, splits them by watershed and puts their edge
at a fraction of the contrast.  It needs neither training nor weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mosaik.core.colour import EOSIN, HAEMATOXYLIN, WHITE_INTENSITY, stain_matrix
from napari_mosaik.core.compiled import compiled, processor_record
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.window import Slices
from napari_mosaik.segment.filters import Float32, box_mean, gaussian, otsu, require_rgb
from napari_mosaik.segment.masks import (
    Labels,
    chamfer_distance,
    disc,
    fill_holes,
    flood,
    local_maxima,
    open_mask,
    renumber,
)
from napari_mosaik.segment.nuclei_params import NucleiParams

__all__ = [
    "ClassicalNuclei",
    "NucleiModel",
    "NucleiParams",
    "estimate_nuclear_threshold",
    "nuclear_density",
    "segment_nuclei",
]

H_EOSIN = np.array([HAEMATOXYLIN, EOSIN]).T
_LOWEST_TISSUE_OD = 0.1
_OD_RANGE = 2.5
_RED_TOLERANCE = 1.1
_EXCESS_TOLERANCE_OD = 0.2
_LARGEST_UM = 12.0
"""Maximum distance to the edge that is measured; larger than the radius of any nucleus."""


class NucleiModel(Protocol):
    """A method that segments nuclei in a block of a slide: the classical one or a network."""

    @property
    def name(self) -> str:
        """Short name of the method."""

    @property
    def spacing_um(self) -> float:
        """Pixel size of the method, µm."""

    @property
    def halo_um(self) -> float:
        """Halo that a block needs for its core to be as in the whole slide, µm."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON-able record of method, parameters and weights."""

    @property
    def computed_on(self) -> Mapping[str, str]:
        """Device, its precision and the versions of the packages that its numbers depend on."""

    @property
    def notes(self) -> Sequence[str]:
        """Messages about what changed while it ran."""

    def segment(self, rgb: NDArray[np.uint8], spacing_um: float) -> Labels:
        """Labels 1..n of a block, (rows, columns), numbered by first pixel.

        *rgb* holds 8-bit levels, (rows, columns, 3); *spacing_um* is its pixel size, µm.
        """

    def segment_parts(
        self,
        rgb: NDArray[np.uint8],
        spacing_um: float,
        parts: Sequence[Slices],
        where: Mask | None = None,
    ) -> Iterator[Labels]:
        """Labels 1..n of parts of a block, each (rows, columns), numbered by first pixel.

        *parts* are their rows and columns within the block; *where* is a (rows, columns) mask
        beyond which a method may look for nothing; the rest as for `segment`.
        """


def nuclear_density(
    rgb: NDArray[np.uint8], vectors: ArrayLike | None = None, white: float = WHITE_INTENSITY
) -> Float32:
    """Amount of haematoxylin in natural OD where it may be nuclear, (rows, columns).

    Two limits keep other colours out.  Red blood cells absorb little red light: haematoxylin is
    never more than the red optical density allows.  Brown membranes and their compression artefacts
    get some haematoxylin from deconvolution: where the second stain exceeds haematoxylin by more
    than 0.2 OD, the excess is subtracted.

    Parameters
    ----------
    rgb
        (rows, columns, 3) 8-bit levels.
    vectors
        (3, 2) OD vectors as columns, haematoxylin first; Ruifrok and Johnston 2001 for H&E if None.
    white
        Intensity of the empty background.
    """
    columns = np.asarray(H_EOSIN if vectors is None else vectors, float)
    if columns.ndim != 2 or columns.shape[0] != 3 or columns.shape[1] not in (2, 3):
        raise InputError(f"stain vectors must be a (3, 2) or (3, 3) matrix, not {columns.shape}")
    matrix = stain_matrix(*columns.T)
    od = -np.log((np.arange(256) + 1.0) / white)
    inverse = np.linalg.inv(matrix)[:2]
    limit = _RED_TOLERANCE * od / max(0.05, float(matrix[0, 0]))
    table = np.vstack([*(inverse[:, :, None] * od), limit[None]]).astype(np.float32)
    return _limited(require_rgb(rgb), table, np.float32(_EXCESS_TOLERANCE_OD))


@compiled
def _limited(rgb: NDArray[np.uint8], table: Float32, tolerance: np.float32) -> Float32:
    rows, cols = rgb.shape[:2]
    out = np.empty((rows, cols), np.float32)
    for r in range(rows):
        for c in range(cols):
            red, green, blue = rgb[r, c, 0], rgb[r, c, 1], rgb[r, c, 2]
            amount = table[0, red] + table[1, green] + table[2, blue]
            second = table[3, red] + table[4, green] + table[5, blue]
            out[r, c] = min(amount, table[6, red], amount + (amount - second + tolerance))
    return out


def estimate_nuclear_threshold(od_samples: ArrayLike, params: NucleiParams) -> float:
    """Haematoxylin threshold of a slide, natural OD, from amounts (n,) sampled over its tissue.

    Otsu's threshold over samples within [0.1, 2.5] divided by ``sensitivity``, at least
    ``min_threshold_od``.  NaN samples are ignored.
    """
    samples = np.asarray(od_samples, float).ravel()
    samples = samples[np.isfinite(samples) & (samples >= _LOWEST_TISSUE_OD)]
    if samples.size == 0:
        return params.min_threshold_od
    threshold = otsu(np.minimum(samples, _OD_RANGE), _LOWEST_TISSUE_OD, _OD_RANGE)
    return max(params.min_threshold_od, threshold / params.sensitivity)


class ClassicalNuclei:
    """Nuclei by haematoxylin threshold, distance and intensity seeds, and watershed.

    Parameters
    ----------
    params
        Settings.
    vectors
        (3, 2) OD vectors, haematoxylin first (a Macenko fit, or H-DAB vectors); Ruifrok's if None.
    threshold_od
        Threshold of the slide, natural OD (`estimate_nuclear_threshold`); estimated from each image
        if None, which is right for a single image and wrong for blocks of a slide.
    """

    name = "classical"
    notes: Sequence[str] = ()

    def __init__(
        self,
        params: NucleiParams | None = None,
        vectors: ArrayLike | None = None,
        threshold_od: float | None = None,
    ) -> None:
        self.params = params or NucleiParams()
        self.vectors = np.array(H_EOSIN if vectors is None else vectors, float)
        self.threshold_od = threshold_od

    @property
    def spacing_um(self) -> float:
        """Pixel size of the method, µm."""
        return self.params.spacing_um

    @property
    def halo_um(self) -> float:
        """Halo that a block needs for its core to be as in the whole slide, µm."""
        p = self.params
        reach = 3 * (p.smoothing_um + p.seed_smoothing_um) + p.separation_um + p.opening_um
        return float(max(reach + 2 * _LARGEST_UM, p.surroundings_um + _LARGEST_UM) + p.spacing_um)

    @property
    def provenance(self) -> dict[str, Any]:
        """JSON-able record of method, parameters and stain vectors."""
        return {
            "method": self.name,
            "params": self.params.model_dump(mode="json"),
            "stain_vectors": self.vectors.tolist(),
            "threshold_od": self.threshold_od,
        }

    @property
    def computed_on(self) -> dict[str, str]:
        """The processor, with the packages that its numbers depend on."""
        return processor_record()

    def density(self, rgb: NDArray[np.uint8], spacing_um: float) -> Float32:
        """Smoothed amount of haematoxylin, natural OD, shape (rows, columns).

        *rgb* holds 8-bit levels, (rows, columns, 3); *spacing_um* is its pixel size, µm.
        """
        density = nuclear_density(rgb, self.vectors)
        return gaussian(density, self.params.smoothing_um / spacing_um)

    def segment(self, rgb: NDArray[np.uint8], spacing_um: float) -> Labels:
        """Labels 1..n of a block, (rows, columns), numbered by first pixel.

        *rgb* holds 8-bit levels, (rows, columns, 3); *spacing_um* is its pixel size, µm.
        """
        if not spacing_um > 0:
            raise InputError(f"the pixel size must be positive, not {spacing_um} µm")
        p, density = self.params, self.density(rgb, spacing_um)
        threshold = self.threshold_od
        if threshold is None:
            threshold = estimate_nuclear_threshold(density[::2, ::2], p)
        checkpoint()
        mask = self._clean(density > np.float32(threshold), spacing_um)
        score = self._score(density, mask, spacing_um)
        seeds = local_maxima(score, mask, disc(p.separation_um / spacing_um)[1:])
        checkpoint()
        level = _levels(score)
        labels = flood(level, seeds, mask)
        if p.edge_fraction > 0:
            checkpoint()
            inside = self._to_edge(density, labels, mask, spacing_um)
            labels = flood(level, seeds, self._clean(inside, spacing_um) & mask)
        return renumber(labels, math.ceil(p.min_area_um2 / spacing_um**2))

    def segment_parts(
        self,
        rgb: NDArray[np.uint8],
        spacing_um: float,
        parts: Sequence[Slices],
        where: Mask | None = None,
    ) -> Iterator[Labels]:
        """Labels 1..n of parts of a block, each (rows, columns), numbered by first pixel.

        *rgb* and *spacing_um* (µm) as for `segment`; what lies beyond *where* is segmented, too.
        """
        labels = self.segment(rgb, spacing_um)
        for part in parts:
            yield renumber(np.ascontiguousarray(labels[part]), 1)

    def _clean(self, mask: Mask, spacing_um: float) -> Mask:
        filled = fill_holes(mask, int(self.params.max_hole_um2 / spacing_um**2))
        return open_mask(filled, self.params.opening_um / spacing_um)

    def _score(self, density: Float32, mask: Mask, spacing_um: float) -> Float32:
        """Score with peaks at the centres: smoothed distance to the edge (µm) plus density."""
        distance = chamfer_distance(mask, math.ceil(_LARGEST_UM / spacing_um))
        combined = distance * np.float32(spacing_um) + density
        return gaussian(combined, self.params.seed_smoothing_um / spacing_um)

    def _to_edge(self, density: Float32, labels: Labels, mask: Mask, spacing_um: float) -> Mask:
        """Mask of pixels above the edge of their nucleus, between surroundings and dark part."""
        radius = round(self.params.surroundings_um / spacing_um)
        outside = (~mask).astype(np.float32)
        share = box_mean(outside, radius)
        around = (box_mean(density * outside, radius) / np.maximum(share, 1e-3)).astype(np.float32)
        return _above_edge(density, around, labels, self.params.edge_fraction)


def segment_nuclei(
    image: Raster, params: NucleiParams | None = None, model: NucleiModel | None = None
) -> LabelImage:
    """Nuclei of an image in memory, numbered by their first pixel in raster order.

    Parameters
    ----------
    image
        (rows, columns, 3) 8-bit RGB with square pixels; used at its own pixel size.
    params
        Settings: the method, and those of the classical one; ignored when a model is given.
        Without both the default method is used.
    model
        A method with all that it needs, such as a network with other weights.

    Returns
    -------
    LabelImage
        (rows, columns) labels on the lattice of the image; 0 where there is no nucleus.
    """
    method = model if model is not None else _method(params or NucleiParams())
    labels = method.segment(require_rgb(image.values), image.lattice.spacing_um[0])
    return LabelImage(labels, image.lattice)


def _method(params: NucleiParams) -> NucleiModel:
    """The method of the settings, if it needs no weights from elsewhere."""
    if params.method == "classical":
        return ClassicalNuclei(params)
    if params.weights:
        raise InputError(
            f"load the weights {params.weights} first and pass a StarDistNuclei with them as "
            "`model` to segment_nuclei"
        )
    from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights

    return StarDistNuclei(embedded_weights(), prob_threshold=params.probability or None)


def _levels(score: Float32) -> NDArray[np.uint8]:
    """Flooding order: 0 at the highest score; fixed steps of 1/16 µm, so blocks agree."""
    steps: NDArray[np.uint8] = (255 - np.clip(score * 16, 0, 255)).astype(np.uint8)
    return steps


@compiled
def _above_edge(density: Float32, around: Float32, labels: Labels, fraction: float) -> Mask:
    """Mask of pixels whose density exceeds the edge of their own nucleus."""
    flat, values, near = labels.ravel(), density.ravel(), around.ravel()
    n = labels.max() + 1
    count, dark_count = np.zeros(n, np.int64), np.zeros(n, np.int64)
    total, dark, low = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(flat.size):
        count[flat[i]] += 1
        total[flat[i]] += values[i]
        low[flat[i]] += near[i]
    for i in range(flat.size):
        k = flat[i]
        if k > 0 and np.float64(values[i]) * count[k] >= total[k]:
            dark_count[k] += 1
            dark[k] += values[i]
    edge = np.full(n, np.inf)
    for k in range(n):
        if dark_count[k] > 0:
            surroundings = low[k] / count[k]
            edge[k] = surroundings + fraction * (dark[k] / dark_count[k] - surroundings)
    out = np.zeros(flat.size, np.bool_)
    for i in range(flat.size):
        out[i] = values[i] > edge[flat[i]]
    return out.reshape(labels.shape)
