"""Nuclei by a StarDist network, behind the same interface as the classical method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from queue import LifoQueue
from threading import BoundedSemaphore, Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import ThreadpoolController
from torch.nn import functional

from napari_mosaik.core.compiled import compiled
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.frame import Mask
from napari_mosaik.core.progress import checkpoint, reach_of_item
from napari_mosaik.core.window import Slices
from napari_mosaik.learning.devices import ComputeDevice, is_out_of_memory
from napari_mosaik.segment.filters import Float32, require_rgb
from napari_mosaik.segment.masks import Labels, renumber
from napari_mosaik.segment.stardist.network import (
    CONTEXT_PX,
    DIVISOR,
    GRID,
    SMALLEST_DISTANCE_PX,
    PieceWork,
)
from napari_mosaik.segment.stardist.weights import StarDistWeights

__all__ = [
    "NEIGHBOURS_PX",
    "READING_SHARE",
    "Candidates",
    "StarDistNuclei",
    "intensity_range",
    "paint_polygons",
    "resampled",
    "stardist_module",
    "suppress",
]

Candidates = tuple[NDArray[np.int64], Float32, Float32]
"""Centres (n, 2) in px, probabilities (n,) and ray lengths (n, rays) in px."""
BORDER = 2
"""Grid positions at the edge of the image from which StarDist takes no nucleus."""

PERCENTILES = (1.0, 99.8)
NEIGHBOURS_PX = 64
"""Nuclei up to this size, and those that compete with them, lie within the margin."""
_SAME_SIZE = 0.01
_CHECK_S = 0.05
READING_SHARE, _THROUGH, _FOUND = 0.15, 0.85, 0.9
"""Shares of a block's time (fractions of 1) until it is read, through the network, and joined."""
_GPU_PIECES = 8
"""So many pieces a side does a GPU compute at once: 1024 x 1536 positions, about 2 GiB."""
_AT_ONCE = 1 << 14
"""Candidates between two places to stop: about 0.2 s of one core."""


def intensity_range(samples: ArrayLike) -> tuple[float, float]:
    """The 1st and 99.8th percentile of all channels together, which become 0 and 1.

    StarDist's own way (`csbdeep.utils.normalize`).  *samples* are grey values of any shape; sample
    the whole tissue of a slide, and use the range for every block.
    """
    values = np.asarray(samples)
    if values.size == 0:
        return 0.0, 255.0
    if values.dtype == np.uint8:
        low, high = (
            _percentile(np.bincount(values.ravel(), minlength=256), p) for p in PERCENTILES
        )
    else:
        low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def _percentile(counts: NDArray[np.int64], percent: float) -> float:
    """`numpy.percentile` from the histogram of grey values, without sorting."""
    total = np.cumsum(counts)
    rank = (total[-1] - 1) * percent / 100
    below, above = (int(np.searchsorted(total, k, "right")) for k in (int(rank), math.ceil(rank)))
    return float(below + (above - below) * (rank - int(rank)))


class StarDistNuclei:
    """Nuclei as star-shaped polygons, found by a network.

    Parameters
    ----------
    weights
        The network's weights and thresholds.
    value_range
        Grey values that become 0 and 1 (`intensity_range`); from each image if None, which is right
        for a single image and not for blocks of a slide.
    prob_threshold, nms_threshold
        Replace the network's own thresholds.
    bfloat16
        Compute the convolutions in bfloat16 also on a CPU: faster where it supports it.
    device
        Where the network computes; the GPU if there is one, if None.  When a GPU runs out of
        memory, it computes fewer pieces at once, at last the CPU continues, and ``notes`` tells it.
    at_once
        Blocks (count) whose network may run side by side on the CPU, sharing its cores; a GPU has
        two in its queue, so that it never waits for what the processor does with one of them.
    """

    name = "stardist"

    def __init__(
        self,
        weights: StarDistWeights,
        value_range: tuple[float, float] | None = None,
        *,
        prob_threshold: float | None = None,
        nms_threshold: float | None = None,
        bfloat16: bool = False,
        device: ComputeDevice | None = None,
        at_once: int = 1,
    ) -> None:
        self.weights = weights
        self.value_range = value_range
        self.prob_threshold = weights.prob_threshold if prob_threshold is None else prob_threshold
        self.nms_threshold = weights.nms_threshold if nms_threshold is None else nms_threshold
        self.device = device or ComputeDevice.best(_GPU_PIECES, item="piece of a block")
        if bfloat16:
            self.device = replace(self.device, half=torch.bfloat16)
        self.network = weights.network().to(self.device.device)
        self.at_once = at_once
        self._prepare()

    def _prepare(self) -> None:
        """Memory for the blocks whose network runs side by side, each used again."""
        self._idle = LifoQueue[PieceWork]()
        for _ in range(min(self.at_once, 2) if self.device.has_gpu else self.at_once):
            self._idle.put(PieceWork(self.network, self.device))
        self._lock, self._in_turn, self._in_work = Lock(), 0, 0
        self._measuring = BoundedSemaphore(max(1, torch.get_num_threads() // 2))

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)
        try:
            yield
        finally:
            with self._lock:
                setattr(self, name, getattr(self, name) - 1)

    @contextmanager
    def _turn(self) -> Iterator[PieceWork]:
        """Memory for one block, when there is some; torch's threads as before at the end."""
        work = self._idle.get()
        if self._is_outdated(work):
            work = PieceWork(self.network, self.device)
        try:
            torch.get_num_threads()  # which sets the threads of a new thread, once
            with self._counted("_in_turn"), _loops().limit():
                checkpoint()
                yield work
        finally:
            self._idle.put(work)

    @contextmanager
    def _few(self) -> Iterator[None]:
        """One of the blocks whose nuclei are measured: half as many as there are cores.

        Painting and measuring take as much memory as the network; all at once made the peak.
        """
        while not self._measuring.acquire(timeout=_CHECK_S):
            checkpoint()
        try:
            yield
        finally:
            self._measuring.release()

    def _share_cores(self, cores: int) -> None:
        """Give the network of this thread its share of the cores (count).

        A core that measures the nuclei of another block is left to it.  The sums of a convolution
        do not depend on the number of threads.
        """
        with self._lock:
            networks = self._in_turn
            beside = max(0, self._in_work - networks)
        for library in _loops().lib_controllers:
            library.set_num_threads(max(1, (cores - beside) // networks))

    @property
    def spacing_um(self) -> float:
        """Pixel size that the network reads, µm; other images are resampled to it."""
        return self.weights.spacing_um

    @property
    def halo_um(self) -> float:
        """Margin in µm that makes the core of a block equal to the whole slide.

        Receptive field and two nuclei; a multiple of 16 px, so that blocks whose cores begin on a
        multiple of 16 px put the network's grid on the same pixels.
        """
        return (CONTEXT_PX + NEIGHBOURS_PX) * self.spacing_um

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON-able record of method, weights, thresholds and normalisation."""
        return {
            "method": self.name,
            "weights": self.weights.hash,
            "weights_name": self.weights.name,
            "spacing_um": self.spacing_um,
            "prob_threshold": self.prob_threshold,
            "nms_threshold": self.nms_threshold,
            "outline_um": self.weights.outline_um,
            "value_range": None if self.value_range is None else list(self.value_range),
            "percentiles": list(PERCENTILES),
            "dtype": str(self.device.inner_type).removeprefix("torch."),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to change on the way, as sentences for the user."""
        return tuple(self.device.notes)

    @property
    def computed_on(self) -> dict[str, str]:
        """Device, its precision and the versions that the nuclei depend on."""
        return self.device.record(self.device.precision)

    def segment(self, rgb: NDArray[np.uint8], spacing_um: float) -> Labels:
        """Labels 1..n of an 8-bit block (rows, columns, 3), int32 (rows, columns).

        Numbered by first pixel; *spacing_um* is the pixel size, µm.
        """
        whole = slice(0, rgb.shape[0]), slice(0, rgb.shape[1])
        return next(self.segment_parts(rgb, spacing_um, [whole]))

    def segment_parts(
        self,
        rgb: NDArray[np.uint8],
        spacing_um: float,
        parts: Sequence[Slices],
        where: Mask | None = None,
    ) -> Iterator[Labels]:
        """Labels 1..n of parts of a block, each (rows, columns) int32, numbered by first pixel.

        Parameters
        ----------
        rgb
            (rows, columns, 3) 8-bit levels.
        spacing_um
            Pixel size, µm.
        parts
            Rows and columns of each part within the block, in pixels.
        where
            (rows, columns) mask of the block where nuclei have their centre, looked up for cells of
            16 px of the network; everywhere if None.
        """
        with self._counted("_in_work"):
            cells = self._cells_in(where, rgb.shape, spacing_um)
            del where  # a mask as large as the block makes way for its cells
            points, scores, rays = self._candidates(require_rgb(rgb), spacing_um, cells)
            factor = self.spacing_um / spacing_um if self._resampled(spacing_um) else 1.0
            with self._few():
                for number, part in enumerate(parts):
                    checkpoint()
                    reach_of_item(_FOUND + (1 - _FOUND) * number / len(parts))
                    shape = part[0].stop - part[0].start, part[1].stop - part[1].start
                    corner = part[0].start, part[1].start
                    painted = paint_polygons((points, scores, rays), shape, factor, corner)
                    yield renumber(painted, 1)

    def candidates(
        self, rgb: NDArray[np.uint8], spacing_um: float, where: Mask | None = None
    ) -> Candidates:
        """Centres (n, 2), probabilities (n,) and ray lengths (n, rays) of the nuclei.

        Centres and rays in px of the network; *where* as for `segment_parts`.
        """
        return self._candidates(rgb, spacing_um, self._cells_in(where, rgb.shape, spacing_um))

    def _cells_in(
        self, where: Mask | None, shape: tuple[int, ...], spacing_um: float
    ) -> Mask | None:
        """Cells of 16 px of the network in which nuclei have their centre; None for all."""
        if where is None or not spacing_um > 0:
            return None
        if not self._resampled(spacing_um):
            return _cells(where, shape[:2], 1.0)
        sizes = [_resampled_size(size, spacing_um / self.spacing_um) for size in shape[:2]]
        return _cells(where, sizes, self.spacing_um / spacing_um)

    def _candidates(
        self, rgb: NDArray[np.uint8], spacing_um: float, cells: Mask | None
    ) -> Candidates:
        if not spacing_um > 0:
            raise InputError(f"the pixel size must be positive, not {spacing_um} µm")
        values: NDArray[Any] = rgb
        if self._resampled(spacing_um):
            values = resampled(rgb.astype(np.float32), spacing_um / self.spacing_um)
        checkpoint()
        scale = self.value_range or intensity_range(values)
        if scale[1] <= scale[0]:
            return _nothing(self.weights.architecture.rays)
        points, scores, rays = self._above_threshold(values, scale, cells)
        checkpoint()
        points, scores, rays = suppress(points, scores, rays, self.nms_threshold)
        return points, scores, rays + np.float32(self.weights.outline_um / self.spacing_um)

    def _above_threshold(
        self, values: NDArray[Any], scale: tuple[float, float], cells: Mask | None
    ) -> Candidates:
        """Positions that may be nuclei; in smaller pieces where a GPU's memory is not enough."""
        while True:
            try:
                with self._turn() as work:
                    return self._found(work, values, scale, cells)
            except FloatingPointError:
                mend = self.device.widen
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                mend = self.device.reduce_batch_size
            with self._lock:
                if not self._is_outdated(work):  # else another block has found out before
                    mend()
                    if next(self.network.parameters()).device != self.device.device:
                        self.network = self.weights.network()

    def _is_outdated(self, work: PieceWork) -> bool:
        """Whether the network has moved since, or computes other pieces or more precisely."""
        now = self.network, self.device.batch_size, self.device.inner_type
        return (work.network, work.batch_size, work.inner_type) != now

    def _found(
        self, work: PieceWork, values: NDArray[Any], scale: tuple[float, float], cells: Mask | None
    ) -> Candidates:
        """Positions above the threshold row by row; rays are computed for them alone."""
        shape, found = (values.shape[0], values.shape[1]), []
        layers, fetch, cores = work.network.layers, work.device.fetch, torch.get_num_threads()
        self._share_cores(cores)
        for row, col, features in work.run(values, scale, cells):
            done = min(1.0, row * GRID / shape[0])
            reach_of_item(READING_SHARE + (_THROUGH - READING_SHARE) * done)
            with work.computing():
                if work.inner_type == torch.float16 and not bool(features.isfinite().all()):
                    raise FloatingPointError
                features = features.float()
                prob = fetch(torch.sigmoid(layers["prob"](features))[0, 0]).numpy()
                inside = _inner(prob, row, col, shape)
                if cells is not None:  # a piece also holds cells that are not wanted
                    inside &= _on_grid(cells, row, col, prob.shape)
                rows, cols = np.nonzero((prob > self.prob_threshold) & inside)
                if rows.size == 0:
                    continue
                there, across = (work.device.put(torch.from_numpy(axis)) for axis in (rows, cols))
                kept = features[0, :, there, across]
                rays = fetch(layers["dist"](kept[None, :, :, None])[0, :, :, 0].T).numpy()
            points = np.stack([rows + row, cols + col], axis=1) * GRID
            found.append((points, prob[rows, cols], np.maximum(rays, SMALLEST_DISTANCE_PX)))
            self._share_cores(cores)
        points, scores, rays = (
            np.concatenate([start, *(one[part] for one in found)])
            for part, start in enumerate(_nothing(self.weights.architecture.rays))
        )
        order = np.lexsort((points[:, 1], points[:, 0]))
        return points[order], scores[order], rays[order].astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """Another process makes its own locks and memory."""
        return {k: v for k, v in vars(self).items() if k not in ("_idle", "_lock", "_measuring")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()

    def _resampled(self, spacing_um: float) -> bool:
        return abs(spacing_um - self.spacing_um) > _SAME_SIZE * self.spacing_um


def _nothing(rays: int) -> Candidates:
    return np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros((0, rays), np.float32)


def _resampled_size(size: int, factor: float) -> int:
    return max(1, round(size * factor))


def resampled(values: Float32, factor: float) -> Float32:
    """An image (rows, columns, c) with *factor* times as many pixels a side.

    Grey values (dimensionless); anti-aliased where there are fewer pixels.
    """
    rows, cols = (_resampled_size(size, factor) for size in values.shape[:2])
    needed = [
        max(0, math.ceil(wanted / factor) - there)
        for wanted, there in zip((rows, cols), values.shape[:2], strict=True)
    ]
    padded = np.pad(values, ((0, needed[0]), (0, needed[1]), (0, 0)), mode="edge")
    tensor = torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None]
    out = functional.interpolate(
        tensor,
        scale_factor=factor,
        mode="bilinear",
        antialias=True,
        align_corners=False,
        recompute_scale_factor=False,
    )
    return np.ascontiguousarray(out[0, :, :rows, :cols].permute(1, 2, 0).numpy())


# --- geometry -----------------------------------------------------------------------------------
# Candidates are suppressed by StarDist's own compiled code, which needs no TensorFlow.  Its drawing
# takes a tenth of the network's time; the one here takes a hundredth and gives the same pixels.
def stardist_module(name: str) -> ModuleType:
    """A module of the stardist package; its import would replace the format of all warnings."""
    from importlib import import_module

    form = warnings.formatwarning
    try:
        return import_module(f"stardist.{name}")
    finally:
        warnings.formatwarning = form


@cache
def _loops() -> ThreadpoolController:
    """The threads of parallel loops in torch and StarDist, which has one loop for each nucleus.

    Blocks run side by side already, and on busy cores each loop waits for its slowest thread: the
    same took ten times as much processor time.
    """
    stardist_module("lib.stardist2d")  # loaded before it is looked for
    return ThreadpoolController().select(user_api="openmp")


def suppress(
    points: NDArray[np.int64], scores: Float32, rays: Float32, overlap: float
) -> Candidates:
    """Candidates that no more probable one covers by more than *overlap*, best first.

    Parameters
    ----------
    points, scores, rays
        Centres (n, 2) in px row by row, probabilities (n,) and ray lengths (n, rays) in px.
    overlap
        Maximum shared area, as a fraction of the smaller one.
    """
    nms = stardist_module("nms")
    order = np.argsort(-scores, kind="stable")
    points, scores, rays = points[order], scores[order], rays[order]
    kept = np.zeros(0, np.int64)
    for first in range(0, len(points), _AT_ONCE):
        checkpoint()
        # Those that were kept are the more probable ones: they stay, and suppress as before.
        now = np.concatenate([kept, np.arange(first, min(first + _AT_ONCE, len(points)))])
        with _loops().limit(limits=1):
            found: NDArray[Any] = nms.non_maximum_suppression_inds(
                rays[now], points[now], scores[now], thresh=overlap, verbose=0
            )
        kept = now[found]
    return points[kept], scores[kept], rays[kept]


def _inner(prob: Float32, row: int, col: int, shape: tuple[int, int]) -> Mask:
    """Positions of a piece of the grid from which StarDist takes nuclei of an image of a shape."""
    sides = []
    for axis, start in enumerate((row, col)):
        at = start + np.arange(prob.shape[axis])
        last = -(-shape[axis] // GRID) - BORDER
        sides.append((at >= BORDER) & (at < last))
    return sides[0][:, None] & sides[1]


def _on_grid(cells: Mask, row: int, col: int, shape: tuple[int, ...]) -> Mask:
    """Which positions of a piece of the grid lie in wanted cells."""
    rows, cols = (
        (start + np.arange(size)) * GRID // DIVISOR
        for start, size in zip((row, col), shape, strict=True)
    )
    return cells[np.ix_(rows, cols)]


def _cells(where: Mask, shape: Sequence[int], factor: float) -> Mask:
    """A mask (rows, columns) of a block looked up at the middle of the network's cells."""
    at = [
        np.minimum(((np.arange(-(-size // DIVISOR)) + 0.5) * DIVISOR * factor).astype(int), n - 1)
        for size, n in zip(shape, where.shape, strict=True)
    ]
    return where[np.ix_(*at)]


def paint_polygons(
    candidates: Candidates,
    shape: tuple[int, int],
    factor: float = 1.0,
    corner: tuple[int, int] = (0, 0),
) -> Labels:
    """Labels (rows, columns) int32, numbered by first pixel; the more probable lies on top.

    Parameters
    ----------
    candidates
        Polygons in px of the network.
    shape
        Rows and columns of the labels.
    factor
        Size of one px of the network in px of the labels.
    corner
        Row and column of the labels within the image, in px of the labels.
    """
    points, scores, rays = candidates
    labels = np.zeros(shape, np.int32)
    centres = (points + 0.5) * factor - 0.5 - np.array(corner)
    reach = rays.max(1, initial=0.0)[:, None] * factor + 1
    near = ((centres > -reach) & (centres < np.array(shape) + reach)).all(1)
    centres, scores, rays = centres[near], scores[near], rays[near]
    if len(centres) == 0:
        return labels
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
