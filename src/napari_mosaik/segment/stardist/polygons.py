"""From the network's maps to nuclei: overlapping candidates go, the others become labels.

Candidates are suppressed by StarDist's own compiled code, which needs no TensorFlow.  Its drawing
takes a tenth of the network's time; the one here takes a hundredth and gives the same pixels.
"""

from __future__ import annotations

import math
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.compiled import compiled
from napari_mosaik.segment.filters import Float32
from napari_mosaik.segment.masks import Labels
from napari_mosaik.segment.stardist.network import GRID

__all__ = ["Candidates", "keep_best", "paint_polygons", "stardist_module"]

Candidates = tuple[NDArray[np.int64], Float32, Float32]
"""Centres (n, 2) in px, probabilities (n,) and ray lengths (n, rays) in px."""
BORDER = 2
"""Grid positions at the picture's edge that StarDist takes no nucleus from."""


def stardist_module(name: str) -> ModuleType:
    """A module of the stardist package; its import would replace the format of all warnings."""
    from importlib import import_module

    form = warnings.formatwarning
    try:
        return import_module(f"stardist.{name}")
    finally:
        warnings.formatwarning = form


def keep_best(
    prob: Float32, dist: Float32, shape: tuple[int, int], prob_threshold: float, overlap: float
) -> Candidates:
    """Candidates that no more probable one covers by more than *overlap*, best first.

    Parameters
    ----------
    prob, dist
        Maps of `predict_maps`.
    shape
        Rows and columns of the picture; candidates beyond it are left out.
    prob_threshold
        Candidates are positions with more than this probability.
    overlap
        Largest shared area, as a part of the smaller one's.
    """
    nms = stardist_module("nms")
    inner = np.zeros(prob.shape, bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    rows, cols = np.nonzero((prob > prob_threshold) & inner)
    points = np.stack([rows, cols], axis=1) * GRID
    inside = (points < np.array(shape)).all(axis=1)
    rows, cols, points = rows[inside], cols[inside], points[inside]
    scores, rays = prob[rows, cols], dist[rows, cols]
    order = np.argsort(-scores, kind="stable")
    points, scores, rays = points[order], scores[order], rays[order]
    if len(points) == 0:
        return points, scores, rays
    kept: NDArray[Any] = nms.non_maximum_suppression_inds(
        rays, points, scores, thresh=overlap, verbose=0
    )
    return points[kept], scores[kept], rays[kept]


def paint_polygons(candidates: Candidates, shape: tuple[int, int], factor: float = 1.0) -> Labels:
    """Labels (rows, columns) int32, numbered by first pixel; the more probable lies on top.

    Parameters
    ----------
    candidates
        Polygons in px of the network.
    shape
        Rows and columns of the labels.
    factor
        Size of one px of the network in px of the labels.
    """
    points, scores, rays = candidates
    labels = np.zeros(shape, np.int32)
    if len(points) == 0:
        return labels
    centres = (points + 0.5) * factor - 0.5
    order = np.argsort(scores, kind="stable")
    outlines = stardist_module("geometry").dist_to_coord(
        rays[order], centres[order], scale_dist=(factor, factor)
    )
    _paint(labels, np.asarray(outlines, np.float64), order.astype(np.int32) + np.int32(1))
    return labels


@compiled
def _paint(labels: Labels, outlines: NDArray[np.float64], names: NDArray[np.int32]) -> None:
    """Paint polygons over one another; a pixel belongs to one where its centre lies in it.

    A line along the pixel's row crosses the outline an odd number of times on its right.
    """
    height, width = labels.shape
    for k in range(outlines.shape[0]):
        rows, cols = outlines[k, 0], outlines[k, 1]
        top, bottom = max(0, math.ceil(rows.min())), min(height - 1, math.floor(rows.max()))
        left, right = max(0, math.ceil(cols.min())), min(width - 1, math.floor(cols.max()))
        for r in range(top, bottom + 1):
            for c in range(left, right + 1):
                inside = False
                for i in range(rows.size):
                    above = rows[i] > r
                    if above != (rows[i - 1] > r):
                        slope = (cols[i - 1] - cols[i]) / (rows[i - 1] - rows[i])
                        if c < cols[i] + (r - rows[i]) * slope:
                            inside = not inside
                if inside:
                    labels[r, c] = names[k]
