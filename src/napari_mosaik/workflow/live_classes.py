"""Tissue classes of the visible region from the strokes so far: the fast classifier, live.

    strokes ─► annotated blocks ─► sampled pixels ─┐
                                                   ├─► small forest ─► visible blocks ─► classes
    features of blocks (kept) ─────────────────────┘

Features depend on the slide alone, so they are computed once per block and kept; after a stroke
only the samples of the blocks that it touched are drawn again, and a small forest is grown.
Nothing is stored: *Retrain* makes a model of the same annotations, with more pixels and trees.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import CLASS_NAMES, SLIDES, STAIN_FIT, TISSUE
from napari_mosaik.core.errors import Cancelled, InputError
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.progress import cancellable, checkpoint
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.core.recent import RecentValues
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.segment.training_pixels import balanced_pixels, class_list, rasterise_classes
from napari_mosaik.workflow.leaks import source_contents
from napari_mosaik.workflow.models import with_cohort
from napari_mosaik.workflow.parallel import in_parallel
from napari_mosaik.workflow.slide_blocks import resample_mask
from napari_mosaik.workflow.steps.classes import BLOCK_PX, ClassReader

if TYPE_CHECKING:
    from napari_mosaik.workflow.preview import RegionUm

__all__ = ["LiveClasses", "LivePrediction"]

N_TREES = 24
MAX_PER_CLASS = 1000
MAX_SAMPLED = 96
"""Annotated blocks that train: with more of them, those with the lowest hash, and the visible."""
MAX_SIDE = 7
"""Blocks of the visible region along each axis; the middle of a larger one is classified."""
MAX_PIXELS = 160_000
"""Pixels that are classified: more of them are classified every second, third... row and column."""
_KEPT_BYTES = 400_000_000
_PER_BLOCK = 400


@dataclass(frozen=True, slots=True, eq=False)
class LivePrediction:
    """The classes of a region.

    Parameters
    ----------
    classes
        Codes (rows, columns) within the tissue, 0 elsewhere.
    n_shapes, n_cases
        Annotations and cases that trained.
    whole
        Whether all of the region is covered.
    seconds
        Duration, s.
    """

    classes: LabelImage
    n_shapes: int
    n_cases: int
    whole: bool
    seconds: float


class LiveClasses:
    """Predicts the tissue classes of regions of one case from annotations that change.

    Not for several threads at a time.

    Parameters
    ----------
    case
        The case; its stain must be fitted.
    cohort
        Folders of all cases, whose stored annotations train, too.
    """

    def __init__(self, case: Case, cohort: Sequence[Path] = ()) -> None:
        from napari_mosaik.segment.tissue_classifier import TissueClassParams

        self.case, self._cohort = case, tuple(cohort)
        self.params = TissueClassParams(n_trees=N_TREES, max_per_class=MAX_PER_CLASS)
        self._features: RecentValues[NDArray[np.float32]] = RecentValues(
            _KEPT_BYTES, lambda array: array.nbytes
        )
        self._drawn: dict[int, _Drawn] = {}
        self._foreign: list[tuple[tuple[str, ...], NDArray[Any], NDArray[Any]]] | None = None
        self._opened: _Opened | None = None
        self._closed = False
        self._lock = threading.Lock()

    def predict(
        self,
        shapes: Sequence[AnnotatedShape],
        region: RegionUm,
        stop: Callable[[], bool] = lambda: False,
    ) -> LivePrediction:
        """Classes of a region (origin, size; µm of H&E) after training on *shapes*.

        Raises
        ------
        InputError
            Fewer than two classes are annotated, or the stain or the tissue of the case is not
            known yet.
        Cancelled
            If *stop* says so.
        """
        began = time.monotonic()
        named = [shape for shape in shapes if shape.label]
        with self._lock, cancellable(stop):
            opened = self._open()
            blocks, whole = _visible(opened.blocks, opened.reader.lattice, region)
            self._compute_features(blocks)
            names = self._class_names(named)
            samples, codes, n_cases = self._samples(named, names, blocks)
            if np.unique(codes).size < 2:
                raise InputError("draw two classes for a live prediction")
            checkpoint()
            forest = _grown(samples, codes, len(names), self.params)
            classes = self._classes(forest, blocks, names)
        return LivePrediction(classes, len(named), n_cases, whole, time.monotonic() - began)

    def read_others(self) -> None:
        """Read the annotated pixels of the other cases, as a training does; `close` stops it.

        A case that holds this slide under another name takes no part: a reader would profit from
        what another one has drawn in the same places.
        """
        from napari_mosaik.core.progress import run_to_end
        from napari_mosaik.workflow.classifier import annotated_samples

        own = source_contents(self.case, SLIDES["he"])
        with contextlib.suppress(Cancelled), cancellable(lambda: self._closed):
            self._foreign = [
                run_to_end(annotated_samples(case, self.params))
                for case in with_cohort([self.case], self._cohort or (self.case.root,))[1:]
                if case.store.origin(STAIN_FIT) is not None
                and case.annotations("he")
                and source_contents(case, SLIDES["he"]) != own
            ]

    def close(self) -> None:
        """Close the slide and forget the features; waits for a prediction that is running."""
        # Before the lock is taken: `read_others` runs without it, and ends at its next checkpoint.
        self._closed = True
        with self._lock:
            if self._opened is not None:
                self._opened.slide.close()
            self._opened = None
            self._features.clear()
            self._drawn.clear()

    # --- parts ----------------------------------------------------------------------------------
    def _open(self) -> _Opened:
        if self._opened is None:
            self._opened = _Opened.of(self.case, self.params)
        return self._opened

    def _class_names(self, shapes: Sequence[AnnotatedShape]) -> tuple[str, ...]:
        own = class_list(shapes)
        foreign = {name for names, _, _ in self._foreign or () for name in names}
        return (*own, *sorted(foreign - set(own)))

    def _compute_features(self, blocks: Sequence[Block]) -> None:
        missing = [block for block in blocks if not self._features.known(block.index)]
        for _ in in_parallel(self._features_of, missing):
            checkpoint()

    def _features_of(self, block: Block) -> NDArray[np.float32]:
        from napari_mosaik.segment.tissue_classifier import block_features

        reader = self._open().reader

        def compute() -> NDArray[np.float32]:
            spacing_um = reader.lattice.spacing_um[0] / reader.factor
            return block_features(reader.rgb(block.outer), spacing_um, self.params)[block.inner]

        return self._features.get_or_make(block.index, compute)

    def _samples(
        self, shapes: Sequence[AnnotatedShape], names: Sequence[str], visible: Sequence[Block]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], int]:
        """Features (n, f) and codes (n,) of sampled pixels of all cases; how many cases."""
        known = {name: code for code, name in enumerate(names, 1)}
        drawn = self._draw(shapes, known, visible)
        parts = [(features, codes) for features, codes in drawn if codes.size]
        owner = [np.zeros(codes.size, np.int64) for _, codes in parts]
        for number, (own, features, codes) in enumerate(self._foreign or (), 1):
            recoded = np.array([0, *(known[name] for name in own)], np.uint8)[codes]
            parts.append((features, recoded))
            owner.append(np.full(codes.size, number))
        if not parts:
            raise InputError("draw two classes for a live prediction")
        features = np.concatenate([one for one, _ in parts])
        codes = np.concatenate([one for _, one in parts])
        cases = np.concatenate(owner)
        chosen = balanced_pixels(codes, cases, MAX_PER_CLASS, np.random.default_rng(0))
        return features[chosen], codes[chosen], int(np.unique(cases).size)

    def _draw(
        self, shapes: Sequence[AnnotatedShape], known: dict[str, int], visible: Sequence[Block]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        """Sampled pixels of the annotated blocks; those of an unchanged block are kept."""
        opened = self._open()
        touching = _touching(shapes, opened.reader.lattice)
        seen = {block.index for block in visible}
        chosen = sorted(touching, key=lambda index: (index not in seen, _mixed(index)))
        blocks = [opened.blocks[index] for index in chosen[:MAX_SAMPLED]]
        self._compute_features(blocks)
        kept, self._drawn = self._drawn, {}
        parts = []
        for block in blocks:
            own = [shapes[place] for place in touching[block.index]]
            drawn = kept.get(block.index)
            if drawn is None or not drawn.is_of(own, known):
                codes = rasterise_classes(own, block.core, known)
                codes = np.where(opened.valid(block), codes, 0).astype(np.uint8)
                rng = np.random.default_rng([block.index])
                none = np.zeros(codes.size, np.int64)
                rows = balanced_pixels(codes.ravel(), none, _PER_BLOCK, rng)
                features = self._features_of(block)
                flat = features.reshape(-1, features.shape[2])
                drawn = _Drawn(tuple(own), dict(known), flat[rows], codes.ravel()[rows])
            self._drawn[block.index] = drawn
            parts.append((drawn.features, drawn.codes))
            checkpoint()
        return parts

    def _classes(self, forest: Any, blocks: Sequence[Block], names: Sequence[str]) -> LabelImage:
        """Classes of the visible blocks, every *step*-th row and column of their pixels."""
        lattice = self._open().reader.lattice
        rows = slice(min(b.rows.start for b in blocks), max(b.rows.stop for b in blocks))
        cols = slice(min(b.cols.start for b in blocks), max(b.cols.stop for b in blocks))
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        step = int(np.ceil(np.sqrt(max(1.0, shape[0] * shape[1] / MAX_PIXELS))))
        codes = np.zeros((-(-shape[0] // step), -(-shape[1] // step)), np.uint8)
        for block in blocks:
            first_row, first_col = block.rows.start - rows.start, block.cols.start - cols.start
            start = (-first_row % step, -first_col % step)
            part = self._features_of(block)[start[0] :: step, start[1] :: step]
            found = forest.predict(part.reshape(-1, part.shape[2])).argmax(axis=1) + 1
            row, col = (first_row + start[0]) // step, (first_col + start[1]) // step
            place = (slice(row, row + part.shape[0]), slice(col, col + part.shape[1]))
            codes[place] = found.reshape(part.shape[:2])
            checkpoint()
        fine = lattice.crop(rows, cols)
        spacing = (fine.spacing_um[0] * step, fine.spacing_um[1] * step)
        coarse = Lattice(fine.frame, codes.shape, spacing, fine.origin_um)
        codes[~resample_mask(coarse, self._open().tissue)] = 0
        return LabelImage(codes, coarse, {0: CLASS_NAMES[0], **dict(enumerate(names, 1))})


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Sampled pixels of a block, and the shapes and class codes that they come from."""

    shapes: tuple[AnnotatedShape, ...]
    known: dict[str, int]
    features: NDArray[np.float32]
    codes: NDArray[np.uint8]

    def is_of(self, shapes: Sequence[AnnotatedShape], known: dict[str, int]) -> bool:
        """Whether the same shapes would give the same pixels."""
        same = len(shapes) == len(self.shapes) and known == self.known
        return same and all(a is b for a, b in zip(shapes, self.shapes, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """What stays open between predictions."""

    slide: Any
    reader: ClassReader
    blocks: list[Block]
    tissue: Any

    @classmethod
    def of(cls, case: Case, params: Any) -> _Opened:
        from napari_mosaik.segment.tissue_classifier import fast_halo_um
        from napari_mosaik.tissue import StainFit

        for artifact in (STAIN_FIT, TISSUE["he"]):
            if case.store.origin(artifact) is None:
                raise InputError(
                    f"a live prediction needs {artifact.about} of case {case.name}; run the first "
                    "steps, then draw again"
                )
        stain: Any = case.store.read(STAIN_FIT)
        fit = StainFit.from_dict(stain)
        tissue = case.store.read(TISSUE["he"])
        slide = case.slide("he")
        reader = ClassReader(slide, fit, params.spacing_um, params.read_spacing_um)
        return cls(slide, reader, cut(reader.lattice, BLOCK_PX, fast_halo_um(params)), tissue)

    def valid(self, block: Block) -> NDArray[np.bool_]:
        """Which pixels (rows, columns) of a block could be decoded."""
        valid: NDArray[np.bool_] = self.slide.valid_mask(block.core)
        return valid


def _grown(samples: NDArray[np.float32], codes: NDArray[Any], n: int, params: Any) -> Any:
    from napari_mosaik.segment.tissue_classifier import grow_forest

    return grow_forest(
        samples,
        codes,
        n,
        n_trees=params.n_trees,
        max_depth=params.max_depth,
        min_leaf=params.min_leaf,
        seed=0,
    )


def _visible(
    blocks: Sequence[Block], lattice: Lattice, region: RegionUm
) -> tuple[list[Block], bool]:
    """The blocks that a region touches, at most `MAX_SIDE` along each axis; whether these are all.

    A region beside the slide has the block next to it.
    """
    spans, whole = [], True
    for axis in (0, 1):
        size_um = BLOCK_PX * lattice.spacing_um[axis]
        n = -(-lattice.shape[axis] // BLOCK_PX)
        low = (region[0][axis] - lattice.origin_um[axis]) / size_um
        high = low + region[1][axis] / size_um
        first, last = np.clip([np.floor(low), np.ceil(high) - 1], 0, n - 1).astype(int)
        if last - first + 1 > MAX_SIDE:
            whole = False
            first = int(np.clip(round((low + high) / 2 - MAX_SIDE / 2), 0, n - MAX_SIDE))
            last = first + MAX_SIDE - 1
        spans.append((first, last))
    n_cols = -(-lattice.shape[1] // BLOCK_PX)
    (top, bottom), (left, right) = spans
    places = [
        row * n_cols + col for row in range(top, bottom + 1) for col in range(left, right + 1)
    ]
    return [blocks[place] for place in places], whole


def _touching(shapes: Sequence[AnnotatedShape], lattice: Lattice) -> dict[int, list[int]]:
    """Places of the shapes whose bounds touch each block, by index of the block."""
    import shapely

    if not shapes:
        return {}
    bounds: FloatArray = shapely.bounds([shape.geometry for shape in shapes])  # x is the column
    low = (bounds[:, [1, 0]] - lattice.origin_um) / lattice.spacing_um / BLOCK_PX
    high = (bounds[:, [3, 2]] - lattice.origin_um) / lattice.spacing_um / BLOCK_PX
    counts = [-(-length // BLOCK_PX) for length in lattice.shape]
    first = np.clip(np.floor(low), 0, np.asarray(counts) - 1).astype(int)
    last = np.clip(np.floor(high), 0, np.asarray(counts) - 1).astype(int)
    touching: dict[int, list[int]] = {}
    for place, ((top, left), (bottom, right)) in enumerate(zip(first, last, strict=True)):
        for row in range(top, bottom + 1):
            for col in range(left, right + 1):
                touching.setdefault(row * counts[1] + col, []).append(place)
    return touching


def _mixed(index: int) -> int:
    """A fixed order of the blocks in which neighbours do not follow one another."""
    return (index * 2_654_435_761) % 2**32
