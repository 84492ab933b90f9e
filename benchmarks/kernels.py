"""Own compiled kernels beside what a library offers: processor time, and whether results agree.

    python benchmarks/kernels.py [--json]

Each line is the best of several runs on one core, in milliseconds of processor time, for an image
of 1024 x 1024 pixels.  "differ" counts the pixels (or objects) whose result is not the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon
from skimage.feature import graycomatrix
from skimage.measure import label, regionprops_table
from skimage.segmentation import expand_labels, watershed
from skimage.transform import downscale_local_mean

from napari_mosaik.core.distance import distance_strips, within
from napari_mosaik.core.rasterise import _fill
from napari_mosaik.features.block_measurements import measure_block
from napari_mosaik.features.texture import grey_levels, texture_table
from napari_mosaik.io.slide.read.colours import argb_over_white
from napari_mosaik.io.slide.read.resample import block_mean
from napari_mosaik.segment import caix, filters, masks, nuclei, pixel_features
from napari_mosaik.segment.false_positives import wall_sums
from napari_mosaik.segment.run_length import find_runs
from napari_mosaik.segment.tissue_classifier import grow_forest
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.tissue.stain import fit_macenko, normalise
from napari_mosaik.view.display_settings import _through_table

SIZE = 1024
Row = tuple[str, str, float, float, Any]


def cpu_ms(function: Callable[[], Any], runs: int = 5) -> float:
    """Least processor time of a few runs after one to warm up, ms."""
    function()
    times = []
    for _ in range(runs):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def scene() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]:
    """A density (OD), a mask and an 8-bit image, each 1024 x 1024."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2)
    density = np.clip(3 * field + 0.4, 0, 3).astype(np.float32)
    od = density[..., None] * np.array([0.27, 0.57, 0.78])
    rgb = np.clip(240 * np.exp(-od) - 1, 0, 255).astype(np.uint8)
    return density, density > 0.7, rgb


def row(
    own: str,
    library: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    differ: Callable[[Any, Any], Any] | None = None,
) -> Row:
    """Time of both, and how many values differ."""
    return own, library, cpu_ms(ours), cpu_ms(theirs, 2), differ and differ(ours(), theirs())


def unequal(one: Any, other: Any) -> int:
    """Number of values that are not equal."""
    return int((np.asarray(one) != np.asarray(other)).sum())


def rows() -> Iterator[Row]:
    """All comparisons."""
    density, mask, rgb = scene()
    yield from _filters(density, rgb)
    yield from _masks(density, mask)
    yield from _objects(density, mask, rgb)
    yield from _classes(rgb)
    yield from _slides(rgb)


def _filters(density: NDArray[np.float32], rgb: NDArray[np.uint8]) -> Iterator[Row]:
    vectors = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]]).T
    table = filters._amount_table(vectors, 1, 240.0)
    yield row(
        "filters.stain_amount",
        "NumPy take of a table per channel",
        lambda: filters.stain_amount(rgb, vectors, 1),
        lambda: table[0][rgb[..., 0]] + table[1][rgb[..., 1]] + table[2][rgb[..., 2]],
        unequal,
    )
    weights = filters._gaussian_weights(1.5)
    yield row(
        "filters.gaussian",
        "cv2.sepFilter2D",
        lambda: filters.gaussian(density, 1.5),
        lambda: cv2.sepFilter2D(
            density, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT
        ),
        lambda a, b: f"up to {np.abs(a - b).max():.0e}; {_blocks_that_differ()} of 300 blocks",
    )
    yield row(
        "filters.gaussian",
        "scipy.ndimage.gaussian_filter",
        lambda: filters.gaussian(density, 1.5),
        lambda: ndimage.gaussian_filter(density, 1.5, truncate=10 / 3),
    )
    yield row(
        "filters.box_mean",
        "cv2.blur (floating-point sums)",
        lambda: filters.box_mean(density, 20),
        lambda: cv2.blur(density, (41, 41), borderType=cv2.BORDER_REFLECT),
    )
    yield row(
        "nuclei.nuclear_density",
        "NumPy take of seven tables",
        lambda: nuclei.nuclear_density(rgb),
        lambda: [table[0][rgb[..., k % 3]] for k in range(7)],
    )


def _blocks_that_differ() -> int:
    """Of 300 random blocks with halo, those whose core cv2.sepFilter2D gives other bytes."""
    rng = np.random.default_rng(1)
    image = rng.random((700, 900)).astype(np.float32)
    weights = filters._gaussian_weights(1.5)
    reach = weights.size // 2

    def smooth(part: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(
            cv2.sepFilter2D(part, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT)
        )

    whole, count = smooth(image), 0
    for _ in range(300):
        (height, width), inner = rng.integers(2 * reach + 2, 220, 2), slice(reach, -reach)
        top, left = rng.integers(0, 700 - height), rng.integers(0, 900 - width)
        window = slice(top, top + height), slice(left, left + width)
        part = smooth(np.ascontiguousarray(image[window]))[inner, inner]
        count += not np.array_equal(part, whole[window][inner, inner])
    return count


def _masks(density: NDArray[np.float32], mask: NDArray[np.bool_]) -> Iterator[Row]:
    yield row(
        "masks.chamfer_distance",
        "cv2.distanceTransform (DIST_L2, 5)",
        lambda: masks.chamfer_distance(mask, 12),
        lambda: cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5),
        lambda a, b: f"up to {np.abs(a - np.minimum(b, 12)).max():.2f} px",
    )
    yield row(
        "masks.chamfer_distance",
        "scipy.ndimage.distance_transform_edt",
        lambda: masks.chamfer_distance(mask, 12),
        lambda: ndimage.distance_transform_edt(mask),
    )
    score = ndimage.gaussian_filter(density, 1.5)
    seeds = masks.local_maxima(score, mask, masks.disc(3)[1:])
    level = (255 - np.clip(score * 100, 0, 255)).astype(np.uint8)
    yield row(
        "masks.flood",
        "skimage.segmentation.watershed",
        lambda: masks.flood(level, seeds, mask),
        lambda: watershed(level, seeds, mask=mask),
        unequal,
    )
    yield row(
        "run_length.find_runs and the methods of Runs",
        "skimage.measure.label of mask and background, counts, first pixels",
        lambda: [(runs := find_runs(mask)), runs.objects(), runs.holes()],
        lambda: [_measured(label(mask, connectivity=2)), _measured(label(~mask, connectivity=1))],
    )
    yield row(
        "core.distance.within (20 px)",
        "scipy.ndimage.distance_transform_edt",
        lambda: within(mask, 20, (1, 1)),
        lambda: ndimage.distance_transform_edt(~mask) <= 20,
        unequal,
    )
    yield row(
        "core.distance.within (20 px)",
        "cv2.dilate (disc)",
        lambda: within(mask, 20, (1, 1)),
        lambda: cv2.dilate(mask.view(np.uint8), masks._offsets_mask(masks.disc(20))) > 0,
        unequal,
    )
    yield from _polygon()


def _measured(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    numbers, first = np.unique(labels, return_index=True)
    return np.bincount(labels.ravel(), minlength=numbers.size), first


def _polygon() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    angle, radius = np.sort(rng.random(300) * 2 * np.pi), 300 + 100 * rng.random(300)
    x, y = 512 + radius * np.cos(angle), 500 + radius * np.sin(angle)
    edges = np.stack([x, y, np.roll(x, -1), np.roll(y, -1)], axis=1)
    down = edges[:, 1] > edges[:, 3]
    edges[down] = edges[down][:, [2, 3, 0, 1]]

    def ours() -> NDArray[np.uint8]:
        out = np.zeros((SIZE, SIZE), np.uint8)
        _fill(out, np.array([0, 300]), edges, np.array([1], np.uint8))
        return out

    def scikit() -> NDArray[np.uint8]:
        out = np.zeros((SIZE, SIZE), np.uint8)
        out[polygon(y, x, out.shape)] = 1
        return out

    def opencv() -> NDArray[np.uint8]:
        out = np.zeros((SIZE, SIZE), np.uint8)
        points = np.rint(np.stack([x, y], axis=1) * 256).astype(np.int32)
        cv2.fillPoly(out, [points], 1, shift=8)
        return out

    yield row("core.rasterise.fill", "skimage.draw.polygon", ours, scikit, unequal)
    yield row("core.rasterise.fill", "cv2.fillPoly (shift=8)", ours, opencv, unequal)


def _objects(
    density: NDArray[np.float32], mask: NDArray[np.bool_], rgb: NDArray[np.uint8]
) -> Iterator[Row]:
    labels, n = masks.label_mask(mask)
    yield row(
        "nuclei.renumber",
        "np.unique(return_index, return_inverse)",
        lambda: nuclei.renumber(labels, 1),
        lambda: np.unique(labels, return_index=True, return_inverse=True),
    )
    yield row(
        "caix.cell_rings",
        "skimage.segmentation.expand_labels",
        lambda: caix.cell_rings(labels, 0, 8),
        lambda: np.where(labels > 0, 0, expand_labels(labels, 8)),
        unequal,
    )
    rings = caix.cell_rings(labels, 0, 8)
    yield row(
        "caix._brownest",
        "np.lexsort",
        lambda: caix._brownest(rings, density, n, 0.15),
        lambda: np.lexsort((density.ravel(), rings.ravel())),
    )
    runs, vectors = find_runs(mask), np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]]).T
    od = -np.log((np.arange(256) + 1.0) / 240)
    yield row(
        "false_positives.wall_sums",
        "np.add.at of nine columns",
        lambda: wall_sums(rgb, runs, vectors, VesselParams()),
        lambda: np.add.at(np.zeros((n, 9)), labels[mask] - 1, od[rgb[mask]][:, [0, 1, 2] * 3]),
    )
    yield row(
        "block_measurements (all objects)",
        "skimage.measure.regionprops_table",
        lambda: measure_block(labels, (0, 0)),
        lambda: regionprops_table(
            labels, properties=("area", "moments", "perimeter_crofton", "area_convex")
        ),
    )
    levels = grey_levels(density)
    windows, angles = ndimage.find_objects(labels), [0, 0.8, 1.6, 2.4]
    yield row(
        "texture.texture_table (all objects)",
        "skimage.feature.graycomatrix of each object",
        lambda: texture_table(labels, density),
        lambda: [graycomatrix(levels[w].astype(np.uint8), [1], angles) for w in windows],
    )
    yield row(
        "distance.distance_strips",
        "scipy.ndimage.distance_transform_edt",
        lambda: list(distance_strips(mask, (1.0, 1.0))),
        lambda: ndimage.distance_transform_edt(~mask),
        lambda a, b: f"up to {np.abs(np.concatenate([s for _, s in a]) - b).max():.0e}",
    )


def _classes(rgb: NDArray[np.uint8]) -> Iterator[Row]:
    features = pixel_features.pixel_features(rgb, 2.0, 8.0, (4.0, 8.0))
    samples = features.reshape(-1, features.shape[2])
    codes = np.random.default_rng(0).integers(1, 4, len(samples))
    size: dict[str, int] = {"n_trees": 60, "max_depth": 12, "min_leaf": 4}
    forest = grow_forest(samples[:3000], codes[:3000], 3, **size, seed=0)
    from sklearn.ensemble import RandomForestClassifier

    theirs = RandomForestClassifier(60, max_depth=12, min_samples_leaf=4, random_state=0, n_jobs=1)
    theirs.fit(samples[:3000], codes[:3000])
    yield row(
        "tissue_classifier.FlatForest.predict",
        "sklearn predict_proba (kept as a pickle)",
        lambda: forest.predict(samples),
        lambda: theirs.predict_proba(samples),
    )
    cells = rgb.reshape(256, 4, 256, 4, 3).astype(np.float32)
    yield row(
        "pixel_features._cells",
        "NumPy mean and std of cells, four stains",
        lambda: pixel_features._cells(rgb, pixel_features._tables(), 4),
        lambda: [(cells[..., 0].mean((1, 3)), cells[..., 0].std((1, 3))) for _ in range(4)],
    )
    pixels = rgb.reshape(-1, 3).copy()
    pixels[::2] = np.clip(240 * np.exp(-np.array([0.65, 0.70, 0.29])) - 1, 0, 255)
    fit = fit_macenko(pixels)
    unmix = np.linalg.pinv(np.asarray(fit.vectors, float))
    od = -np.log((np.arange(256) + 1.0) / fit.white)
    yield row(
        "tissue.stain.normalise",
        "NumPy (matrix products and exp)",
        lambda: normalise(rgb, fit),
        lambda: np.rint(fit.white * np.exp(-(np.maximum(od[rgb] @ unmix, 0) @ unmix.T))),
    )


def _slides(rgb: NDArray[np.uint8]) -> Iterator[Row]:
    half = (SIZE // 2, SIZE // 2)
    yield row(
        "io.slide.read.resample.block_mean (2 x 2)",
        "cv2.resize (INTER_AREA)",
        lambda: block_mean(rgb, 2, 2),
        lambda: cv2.resize(rgb, half, interpolation=cv2.INTER_AREA),
        unequal,
    )
    yield row(
        "io.slide.read.resample.block_mean (2 x 2)",
        "skimage.transform.downscale_local_mean",
        lambda: block_mean(rgb, 2, 2),
        lambda: downscale_local_mean(rgb, (2, 2, 1)),
    )
    argb = np.full((SIZE, SIZE), 0xFF804020, np.uint32)
    yield row(
        "io.slide.read.colours.argb_over_white",
        "NumPy shifts",
        lambda: argb_over_white(argb),
        lambda: np.stack([argb >> 16, argb >> 8, argb], -1) & 255,
    )
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    yield row(
        "view.display_settings._through_table",
        "cv2.LUT",
        lambda: _through_table(rgb, table),
        lambda: cv2.LUT(rgb, table),
        unequal,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    table = list(rows())
    if given.json:
        print(json.dumps(table))
        return
    print("| function | library | ours, ms | library, ms | differ |\n|---|---|---|---|---|")
    for own, library, ours, theirs, differ in table:
        unlike = "" if differ is None else differ
        print(f"| {own} | {library} | {ours:.1f} | {theirs:.1f} | {unlike} |")


if __name__ == "__main__":
    main()
