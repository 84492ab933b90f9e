"""Classify the tissue of the H&E slide with a trained classifier."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import (
    CLASS_NAMES,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    COMPUTED_ON,
    SLIDES,
    STAIN_FIT,
    TISSUE,
)
from napari_mosaik.core.frame import FloatArray, Lattice
from napari_mosaik.core.label_lookup import codes_at
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.uncertainty import normalised_entropy
from napari_mosaik.workflow.parallel import beside
from napari_mosaik.workflow.slide_blocks import blocks_with_tissue, resample_mask, stage_on
from napari_mosaik.workflow.step import Results, Step
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide
    from napari_mosaik.segment.tissue_classifier import TissueModel
    from napari_mosaik.tissue import StainFit

__all__ = ["TISSUE_CLASSES", "ClassParams", "ClassReader", "class_at"]

BLOCK_PX = 128
_CLASSIFIED = 0.85
"""Share of the time of the step (fraction of 1) after which all tissue is classified."""
SPACING_TOLERANCE = 0.02
"""Share by which the pixels that are read may differ from those that a model was trained on."""


class ClassParams(Params):
    """Settings of the tissue classes."""

    model: str = setting(
        "", "Hash of the trained classifier in the models folder of the case.", model=True
    )


@dataclass(frozen=True, slots=True)
class ClassReader:
    """Reads blocks of a slide for a tissue model: at its pixel size, stain-normalised."""

    slide: Slide
    fit: StainFit
    spacing_um: float
    read_spacing_um: float

    @property
    def factor(self) -> int:
        """Read pixels per class pixel along one axis."""
        return max(1, round(self.spacing_um / self.read_spacing_um))

    @property
    def fine(self) -> Lattice:
        """The lattice that is read.

        Its pixels are whole multiples of the slide's own where these come near enough to what the
        model reads, and are resampled to that size where they do not (own pixels of 0.37 µm).
        """
        lattice, wanted = self.slide.working_lattice(self.read_spacing_um), self.read_spacing_um
        near = all(abs(size - wanted) <= SPACING_TOLERANCE * wanted for size in lattice.spacing_um)
        return lattice if near else self.slide.lattice.resized(wanted)

    @property
    def lattice(self) -> Lattice:
        """The class map's lattice; its last samples may reach beyond the slide."""
        fine = self.fine
        rows, cols = (-(-length // self.factor) for length in fine.shape)
        step_row, step_col = (spacing * self.factor for spacing in fine.spacing_um)
        return Lattice(fine.frame, (rows, cols), (step_row, step_col), fine.origin_um)

    def rgb(self, lattice: Lattice) -> NDArray[np.uint8]:
        """Stain-normalised 8-bit levels of a part of the class lattice, `factor` times finer.

        Shape (rows, columns, 3), `factor` times those of the lattice; levels (count).
        """
        from napari_mosaik.tissue import normalise

        spacing_row, spacing_col = (spacing / self.factor for spacing in lattice.spacing_um)
        shape = (lattice.shape[0] * self.factor, lattice.shape[1] * self.factor)
        fine = Lattice(lattice.frame, shape, (spacing_row, spacing_col), lattice.origin_um)
        if self.fine.spacing_um == self.slide.working_lattice(self.read_spacing_um).spacing_um:
            return normalise(self.slide.read_lattice(fine).values, self.fit)
        image = self.slide.read(fine.origin_um, fine.extent_um, self.read_spacing_um)
        return normalise(image.values, self.fit)


def _body(inputs: StepContext, params: ClassParams) -> Generator[Progress, None, Results]:
    loading = Progress(0.0, 1, "loading the classifier")
    model = yield from beside(partial(_model, inputs.model_folder(params.model)), loading)
    from napari_mosaik.segment.plausible import class_doubts
    from napari_mosaik.tissue import StainFit

    mask, stain = inputs.read(TISSUE["he"]), inputs.read(STAIN_FIT)
    fit = StainFit.from_dict(stain)
    with inputs.slide("he") as slide:
        reader = ClassReader(slide, fit, model.spacing_um, model.read_spacing_um)
        lattice = reader.lattice
        every = cut(lattice, BLOCK_PX, model.halo_um)
        blocks = blocks_with_tissue(every, mask)
        probability, known = _classified_before(inputs, lattice, every, model)
        blocks, kept = [b for b in blocks if b.index not in known], blocks

        def classify(block: Block) -> dict[str, NDArray[Any]]:
            spacing_um = lattice.spacing_um[0] / reader.factor
            probability = model.predict_block(reader.rgb(block.outer), spacing_um)[block.inner]
            return {"probability": np.rint(probability * 255).astype(np.uint8)}

        parts = yield from inputs.blocks(
            stage_on("classes", model.computed_on),
            blocks,
            classify,
            "classifying tissue",
            stop=_CLASSIFIED,
        )
    for block, part in zip(blocks, parts, strict=True):
        probability[block.rows, block.cols] = part["probability"]
    for index in known - {block.index for block in kept}:  # they hold no tissue any more
        probability[every[index].rows, every[index].cols] = 0
    done = Progress(_CLASSIFIED, 1, "uncertainty of the classes")
    codes = yield from beside(lambda: _codes(probability, resample_mask(lattice, mask)), done)
    record = _record(model, params, codes, lattice, fit)
    done = Progress((1 + _CLASSIFIED) / 2, 1, done.text)
    uncertainty = yield from beside(lambda: _mean_uncertainty(probability, codes > 0), done)
    inputs.note(COMPUTED_ON, dict(model.computed_on))
    for doubt in class_doubts(record["area_mm2"]):
        inputs.warn(doubt)
    names = {0: CLASS_NAMES[0], **dict(enumerate(model.classes, 1))}
    return {
        CLASSES: LabelImage(codes, lattice, names),
        CLASS_PROBABILITY: Raster(probability, lattice, "1/255", model.classes),
        CLASS_RECORD: {
            **record,
            "mean_uncertainty": uncertainty,
        },
    }


def _model(folder: Path) -> TissueModel:
    """The trained classifier of a folder; loads its library."""
    from napari_mosaik.segment.tissue_models import load_tissue_model

    return load_tissue_model(folder)


def _classified_before(
    inputs: StepContext, lattice: Lattice, blocks: list[Block], model: TissueModel
) -> tuple[NDArray[np.uint8], set[int]]:
    """Stored probabilities (rows, columns, classes), 1/255, and the blocks that hold theirs.

    A block does not depend on the tissue mask, which says only which blocks are classified.  None
    is taken over from another device or from other versions: the record names one.
    """
    stored = inputs.previous_result(CLASS_PROBABILITY, TISSUE["he"])
    mask = None if stored is None else inputs.previous_input(TISSUE["he"])
    elsewhere = inputs.previous_record().get(COMPUTED_ON) != model.computed_on
    if stored is None or mask is None or stored.lattice != lattice or elsewhere:
        return np.zeros((*lattice.shape, len(model.classes)), np.uint8), set()
    return np.array(stored.values), {one.index for one in blocks_with_tissue(blocks, mask)}


def _codes(probability: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Code of the most probable class within the tissue mask, (rows, columns); 0 elsewhere."""
    codes = (probability.argmax(axis=-1) + 1).astype(np.uint8)
    return np.where(inside & probability.any(axis=-1), codes, 0).astype(np.uint8)


def _mean_uncertainty(probability: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float | None:
    """Mean entropy of the class probabilities, 0 to 1; None without classified tissue."""
    if not inside.any():
        return None
    return float(normalised_entropy(probability[inside]).mean())


def _record(
    model: TissueModel,
    params: ClassParams,
    codes: NDArray[np.uint8],
    lattice: Lattice,
    fit: StainFit,
) -> dict[str, Any]:
    counts = np.bincount(codes.ravel(), minlength=len(model.classes) + 1)
    area_mm2 = lattice.sample_area_um2 / 1e6
    return {
        "model": params.model,
        "method": model.name,
        "area_mm2": {
            name: float(counts[code] * area_mm2) for code, name in enumerate(model.classes, 1)
        },
        "stain_normalised": fit.usable,
        "held_out": model.training.get("held_out"),
        "warnings": list(model.notes),
    }


def class_at(classes: LabelImage, points_um: FloatArray) -> NDArray[np.int64]:
    """Class code (label), (n,), at positions (n, 2) in µm of the H&E frame; 0 outside."""
    return codes_at(classes, points_um)


TISSUE_CLASSES = Step(
    name="classes",
    title="Tissue classes",
    about="Classifies H&E tissue as neoplastic, non-neoplastic or background with a classifier "
    "trained on annotations.",
    page="Tissue classes",
    params=ClassParams,
    reads=(SLIDES["he"], TISSUE["he"], STAIN_FIT),
    writes=(CLASSES, CLASS_PROBABILITY, CLASS_RECORD),
    body=_body,
    revision=2,
    coarsest_um=2.2,
    needs_model="model",
)
