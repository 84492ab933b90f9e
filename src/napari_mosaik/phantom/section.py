"""One section of the specimen mounted on its slide: the input of the renderer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN, WHITE_INTENSITY
from napari_mosaik.core.frame import FloatArray, Transform
from napari_mosaik.phantom.anatomy import Anatomy
from napari_mosaik.phantom.objects import POINTS, Nuclei, VesselTubes

__all__ = [
    "BUCKET_UM",
    "REACH_UM",
    "Buckets",
    "Section",
    "SlideArtefacts",
    "SlideStain",
    "mount_section",
]

BUCKET_UM = 64.0
REACH_UM = 21.0
HE_HAEMATOXYLIN = (0.59, 0.73, 0.345)
HE_EOSIN = (0.11, 0.87, 0.48)


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Objects sorted by squares of the slide: square ``k`` holds ``order[start[k]:start[k+1]]``."""

    start: NDArray[np.int64]
    order: NDArray[np.int64]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class SlideStain:
    """The staining of one slide: unit OD vectors as rows, strengths, white level."""

    code: int
    vectors: FloatArray
    strength: FloatArray
    white: float


@dataclass(frozen=True, slots=True, eq=False)
class SlideArtefacts:
    """A fold (a band) and pen strokes of a slide, in its µm; zero widths for none."""

    fold: FloatArray
    pen: FloatArray
    pen_od: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The input of the renderer for one slide."""

    stain: SlideStain
    to_specimen: FloatArray
    coarse: NDArray[np.float32]
    nest: NDArray[np.float32]
    nuclei: NDArray[np.float32]
    kind: NDArray[np.uint8]
    nuclear_buckets: Buckets
    segments: NDArray[np.float32]
    segment_buckets: Buckets
    artefacts: SlideArtefacts
    noise_seed: int


def _buckets(points_um: FloatArray, extent_um: tuple[float, float]) -> Buckets:
    shape = tuple(int(e // BUCKET_UM) + 1 for e in extent_um)
    index = np.clip((points_um // BUCKET_UM).astype(np.int64), 0, np.asarray(shape) - 1)
    flat = index[:, 0] * shape[1] + index[:, 1]
    order = np.argsort(flat, kind="stable")
    start = np.searchsorted(flat[order], np.arange(shape[0] * shape[1] + 1))
    return Buckets(start.astype(np.int64), order.astype(np.int64), (shape[0], shape[1]))


def _turned(vector: tuple[float, float, float], rng: np.random.Generator) -> FloatArray:
    """A unit vector near *vector*, up to about three degrees away."""
    turned = np.asarray(vector) + 0.018 * rng.standard_normal(3)
    turned = np.clip(turned, 0.02, None)
    return np.asarray(turned / np.linalg.norm(turned), float)


def _stain(frame: str, rng: np.random.Generator) -> SlideStain:
    pair = (HE_HAEMATOXYLIN, HE_EOSIN) if frame == "he" else (HAEMATOXYLIN, DAB)
    vectors = np.stack([_turned(v, rng) for v in pair])
    spread = 0.10 if frame == "he" else 0.05
    strength = np.exp(spread * rng.uniform(-1.5, 1.5, 2))
    code = ("he", "cd34", "caix").index(frame)
    return SlideStain(code, vectors, strength, WHITE_INTENSITY + rng.uniform(-2.0, 3.0))


def _slide_artefacts(
    rng: np.random.Generator, extent: FloatArray, middle: FloatArray, fold: bool, pen: bool
) -> SlideArtefacts:
    """A fold across a part of the tissue; a pen mark in a corner of the slide, off the tissue."""
    width = 24.0 + 0.002 * extent[1]
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    start = middle + 0.10 * extent.min() * rng.standard_normal(2)
    line = np.concatenate([start, along, [width if fold else 0.0, 0.22 * extent.min()]])
    unit = 0.05 * extent
    strokes = np.array(
        [
            [0.35, 0.5, 1.1, 3.0],
            [1.1, 3.0, 0.9, 0.8],
            [0.9, 0.8, 1.9, 1.3],
        ]
    )
    strokes = strokes * np.array([unit[0], unit[1], unit[0], unit[1]])
    strokes = np.column_stack([strokes, np.full(3, 0.012 * extent[0] if pen else 0.0)])
    ink = np.array([1.9, 0.55, 1.25]) if rng.random() < 0.5 else np.array([2.0, 1.25, 0.30])
    return SlideArtefacts(line, strokes, ink)


def mount_section(
    anatomy: Anatomy,
    vessels: VesselTubes,
    nuclei: Nuclei,
    to_specimen: Transform,
    rng: np.random.Generator,
    *,
    fold: bool = False,
    pen: bool = False,
) -> Section:
    """Mount a section on its slide: transform its objects, draw its stain and artefacts."""
    back = to_specimen.inverse()
    turn = back.matrix[:2, :2] / back.scale
    along = nuclei.along @ turn.T
    centre = back.apply(nuclei.centre_um)
    table = np.column_stack(
        [centre, nuclei.semi_um * back.scale, along, nuclei.density, nuclei.coarseness]
    )
    table = np.column_stack([table, nuclei.membrane_od, nuclei.granularity]).astype(np.float32)
    line = back.apply(vessels.line_um)
    first, last = line[:, :-1].reshape(-1, 2), line[:, 1:].reshape(-1, 2)
    sizes = np.column_stack([vessels.lumen_um, vessels.wall_um, np.arange(len(vessels))])
    sizes[:, :2] *= back.scale
    segments = np.column_stack([first, last, np.repeat(sizes, POINTS - 1, axis=0)])
    coarse = np.stack([anatomy.tissue, anatomy.necrosis, anatomy.blood, anatomy.thickness], axis=-1)
    extent = np.asarray(anatomy.extent_um)
    middle = back.apply(anatomy.outline_um.mean(axis=0))
    return Section(
        stain=_stain(to_specimen.source, rng),
        to_specimen=to_specimen.matrix,
        coarse=coarse,
        nest=anatomy.nest,
        nuclei=table,
        kind=nuclei.kind,
        nuclear_buckets=_buckets(centre, anatomy.extent_um),
        segments=segments.astype(np.float32),
        segment_buckets=_buckets(0.5 * (first + last), anatomy.extent_um),
        artefacts=_slide_artefacts(rng, extent, middle, fold, pen),
        noise_seed=int(rng.integers(0, 2**31)),
    )
