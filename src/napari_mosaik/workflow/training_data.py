"""What drawn shapes teach: labelled pixels for the fast classifier, tiles for the network."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import STAIN_FIT
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.parallel import in_parallel
from napari_mosaik.workflow.steps.classes import BLOCK_PX, ClassReader

if TYPE_CHECKING:
    from napari_mosaik.segment.densenet.network import DenseNetParams
    from napari_mosaik.segment.tissue_classifier import TissueClassParams

__all__ = [
    "DENSENET_TILE_PX",
    "ClassifierTraining",
    "Drawn",
    "Samples",
    "annotated_pixels",
    "annotated_tiles",
]

Drawn = list[tuple[Case, tuple[AnnotatedShape, ...]]]
DENSENET_TILE_PX = 128
GROUP_PX = 512


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierTraining:
    """What a method is taught with, whatever the method is."""

    drawn: Drawn
    classes: tuple[str, ...]
    seed: int
    mark: str
    encoder: Path | None
    checkpoint: Path

    @property
    def codes(self) -> dict[str, int]:
        """Code of each class name."""
        return {name: code for code, name in enumerate(self.classes, start=1)}

    def record(self) -> dict[str, Any]:
        """What the card says of the training."""
        return {
            "cases": [case.name for case, _ in self.drawn],
            "shapes": {case.name: len(shapes) for case, shapes in self.drawn},
            "seed": self.seed,
            "fingerprint": self.mark,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled pixels: features (n, f), class codes (n,), and the shape (n,) that each lies in."""

    features: NDArray[np.float32]
    codes: NDArray[np.uint8]
    shapes: NDArray[np.int64]

    def rows(self, which: NDArray[Any]) -> Samples:
        """Some of the pixels."""
        return Samples(self.features[which], self.codes[which], self.shapes[which])

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """The pixels of all parts, one after another."""
        return cls(
            np.concatenate([one.features for one in parts]),
            np.concatenate([one.codes for one in parts]),
            np.concatenate([one.shapes for one in parts]),
        )


def annotated_tiles(
    case: Case,
    shapes: tuple[AnnotatedShape, ...],
    names: Mapping[str, int],
    params: DenseNetParams,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], str]]:
    """Stain-normalised tiles that hold labelled pixels, their codes, and their spatial group."""
    from napari_mosaik.segment.training_pixels import rasterise_classes
    from napari_mosaik.tissue import StainFit

    stain: Any = case.store.read(STAIN_FIT)
    with case.slide("he") as slide:
        spacing_um = params.read_spacing_um
        reader = ClassReader(slide, StainFit.from_dict(stain), spacing_um, spacing_um)
        codes = rasterise_classes(shapes, reader.lattice, names)
        for block in cut(reader.lattice, DENSENET_TILE_PX, 0.0):
            own = codes[block.rows, block.cols]
            if own.shape == (DENSENET_TILE_PX, DENSENET_TILE_PX) and own.any():
                row, col = block.rows.start // GROUP_PX, block.cols.start // GROUP_PX
                pixels = reader.rgb(block.core)
                own = np.where(slide.sound(block.core), own, 0).astype(own.dtype)
                yield pixels, own, f"{case.name} {row} {col}"


def annotated_pixels(
    case: Case,
    shapes: tuple[AnnotatedShape, ...],
    names: Mapping[str, int],
    params: TissueClassParams,
    start: float,
    share: float,
) -> Generator[Progress, None, Samples]:
    """Every labelled pixel of one case, in raster order of blocks; shapes that touch are one."""
    from scipy import ndimage

    from napari_mosaik.segment.tissue_classifier import block_features, fast_halo_um
    from napari_mosaik.segment.training_pixels import rasterise_classes
    from napari_mosaik.tissue import StainFit

    stain: Any = case.store.read(STAIN_FIT)
    fit = StainFit.from_dict(stain)
    with case.slide("he") as slide:
        reader = ClassReader(slide, fit, params.spacing_um, params.read_spacing_um)
        codes = rasterise_classes(shapes, reader.lattice, names)
        member, _ = ndimage.label(codes > 0)
        first = int.from_bytes(hashlib.blake2b(case.name.encode(), digest_size=4).digest(), "big")
        blocks = [
            block
            for block in cut(reader.lattice, BLOCK_PX, fast_halo_um(params))
            if codes[block.rows, block.cols].any()
        ]
        found: dict[int, Samples] = {}

        def look(block: Block) -> None:
            spacing_um = reader.lattice.spacing_um[0] / reader.factor
            features = block_features(reader.rgb(block.outer), spacing_um, params)[block.inner]
            own = np.where(slide.sound(block.core), codes[block.rows, block.cols], 0)
            numbers = (first << 24) + member[block.rows, block.cols].astype(np.int64)
            found[block.index] = Samples(features[own > 0], own[own > 0], numbers[own > 0])

        for done in in_parallel(look, blocks):
            text = f"looking at the shapes of {case.name}"
            yield Progress(start + share * done / len(blocks), 1, text)
    return Samples.joined([found[block.index] for block in blocks])
