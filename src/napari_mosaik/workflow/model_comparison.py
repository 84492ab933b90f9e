"""Two models on one case: what each says, and which is nearer to what readers or the PET say.

classifiers: tissue blocks ─► classes by both ─► areas, changed share
             annotated blocks that neither has learned from ─► Dice of both, paired interval
predictors:  tiles ─► SUV by both ─► error of both against the measured SUV, paired interval
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import CLASS_NAMES, STAIN_FIT, TILES, TISSUE, UPTAKE
from napari_mosaik.core.errors import Blocked, InputError
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.progress import checkpoint
from napari_mosaik.core.raster import LabelImage
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.models import KnownModel
from napari_mosaik.workflow.predictor_inputs import tile_inputs
from napari_mosaik.workflow.slide_blocks import blocks_with_tissue, resample_mask
from napari_mosaik.workflow.steps.classes import BLOCK_PX, ClassReader

if TYPE_CHECKING:
    from napari_mosaik.segment.tissue_classifier import TissueModel

__all__ = ["ModelComparison", "compare_models", "predicted_difference"]

MAX_BLOCKS = 49
"""Tissue blocks that are classified by both models; those in the middle of the tissue."""
BLOCK_TILES = 8
"""Edge of the blocks of tiles that are drawn together, tiles."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelComparison:
    """What two models say about one case.

    Parameters
    ----------
    record
        JSON document: ``case``, ``kind``, ``old``, ``new`` (hashes), ``score`` (from
        `paired_difference`, None where no fair one is possible), ``why`` (why not), ``areas_mm2``
        and ``changed`` (classifiers).
    maps
        Classes (`LabelImage`) of both and where they differ, or SUV per tile (n,) of both.
    unit
        Unit of the SUV; empty for classes.
    """

    record: dict[str, Any]
    maps: tuple[Any, ...]
    unit: str = ""


def compare_models(
    case: Case, old: KnownModel, new: KnownModel
) -> Generator[Progress, None, ModelComparison]:
    """Compare two models of one kind on one case.

    Raises
    ------
    InputError
        They are of different kinds, or a predictor has seen the case.
    Blocked
        The case lacks a result that a model reads.
    """
    if old.kind != new.kind:
        raise InputError(
            f"{old.hash[:12]} is a {old.kind} and {new.hash[:12]} a {new.kind}; compare two models "
            "of one kind"
        )
    compare = _classifiers if old.is_classifier else _predictors
    return (yield from compare(case, old, new))


# --- predictors ----------------------------------------------------------------------------------
def _predictors(
    case: Case, old: KnownModel, new: KnownModel
) -> Generator[Progress, None, ModelComparison]:
    yield Progress(0, 1, "loading the network library, about 3 s")
    from napari_mosaik.predictor import TrainedModel

    for one in (old, new):
        if case.name in one.trained_on:
            raise InputError(
                f"the predictor {one.hash[:12]} was trained on case {case.name}; compare on a case "
                "that neither has seen"
            )
    models = [TrainedModel.load(one.folder) for one in (old, new)]
    yield Progress(0.3, 1, "predicting with both models")
    score, maps = predicted_difference(case, *models)
    unit = str(new.card.get("suv_unit", ""))
    record = {
        "case": case.name,
        "kind": new.kind,
        "old": old.hash,
        "new": new.hash,
        "score": score,
        "why": "" if score else "the case has no measured uptake",
    }
    return ModelComparison(record, maps, unit)


def predicted_difference(
    case: Case, old: Any, new: Any
) -> tuple[dict[str, Any] | None, tuple[FloatArray, FloatArray]]:
    """Mean absolute error of two trained predictors, paired, and the SUV (n,) that each predicts.

    The error is in the unit of the SUV; None without measured uptake.
    """
    from napari_mosaik.learning.comparison import paired_difference
    from napari_mosaik.predictor import TrainParams, predict

    units = {str(one.card["suv_unit"]) for one in (old, new)}
    if len(units) > 1:
        raise InputError(f"the two models predict in different units: {', '.join(sorted(units))}")
    if case.store.origin(TILES) is None:
        raise Blocked(f"case {case.name} has no tiles yet; run: napari-mosaik run {case.root}")
    found = []
    for one in (old, new):
        card = one.card
        inputs = tile_inputs(
            case.store.read,
            case.name,
            case.patient,
            tuple(card["proxies"]),
            TrainParams.parse(card["settings"], "model card"),
            card.get("absent", ()),
            card["features"],
        )
        checkpoint()
        found.append(predict(one, inputs))
    maps = found[0].suv, found[1].suv
    if case.store.origin(UPTAKE) is None:
        return None, maps
    uptake = case.store.read(UPTAKE)
    if uptake.unit("suv") not in units:
        raise InputError(
            f"the measured uptake of case {case.name} is in {uptake.unit('suv')}, the prediction "
            f"in {units.pop()}; use the same kind of SUV as the training cases"
        )
    measured = np.asarray(uptake["suv"], float)
    use = np.isfinite(measured) & np.isfinite(maps[0]) & np.isfinite(maps[1])
    if not use.any():
        return None, maps
    errors = [
        np.column_stack([np.abs(suv - measured)[use], np.ones(int(use.sum()))]) for suv in maps
    ]
    cells = case.store.read(TILES).cells[use] // BLOCK_TILES
    blocks = [f"{row} {col}" for row, col in cells.tolist()]
    score = {
        "score": "mean absolute error of the SUV",
        "unit": units.pop(),
        "on": f"measured tiles of case {case.name}",
        "lower_is_better": True,
        **paired_difference(errors[0], errors[1], blocks, lambda sums: sums[:, 0] / sums[:, 1]),
    }
    return score, maps


# --- classifiers ---------------------------------------------------------------------------------
def _classifiers(
    case: Case, old: KnownModel, new: KnownModel
) -> Generator[Progress, None, ModelComparison]:
    from napari_mosaik.segment.tissue_models import load_tissue_model
    from napari_mosaik.tissue import StainFit

    for artifact in (STAIN_FIT, TISSUE["he"]):
        if case.store.origin(artifact) is None:
            raise Blocked(
                f"case {case.name} lacks {artifact.about}; run: napari-mosaik run {case.root}"
            )
    yield Progress(0, 1, "loading both models")
    stain: Any = case.store.read(STAIN_FIT)
    fit, tissue = StainFit.from_dict(stain), case.store.read(TISSUE["he"])
    names = list(dict.fromkeys([*old.classes, *new.classes]))
    known = {name: code for code, name in enumerate(names, 1)}
    with case.slide("he") as slide:
        sides = [
            _Side.of(load_tissue_model(one.folder), one, case, slide, fit, tissue, known)
            for one in (old, new)
        ]
        total = sum(len(side.mapped) + len(side.annotated) for side in sides)
        done = 0
        for side in sides:
            for _ in side.run():
                done += 1
                yield Progress(done, total, f"classifying {case.name} with both models")
                checkpoint()
    maps = sides[0].picture(names), sides[1].picture(names)
    share, differing = _changed(*maps)
    record = {
        "case": case.name,
        "kind": new.kind,
        "old": old.hash,
        "new": new.hash,
        "areas_mm2": {
            name: [side.area_mm2(code) for side in sides] for name, code in known.items()
        },
        "changed": share,
        **_fair_score(case, sides, (old, new)),
    }
    return ModelComparison(record, (*maps, differing))


@dataclass(slots=True, eq=False)
class _Side:
    """One of two classifiers, with the blocks that it classifies."""

    model: TissueModel
    reader: ClassReader
    tissue: Any
    recode: NDArray[np.uint8]
    mapped: list[Block]
    annotated: list[Block]
    drawn: NDArray[np.uint8]
    n_classes: int
    codes: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: TissueModel,
        known_model: KnownModel,
        case: Case,
        slide: Any,
        fit: Any,
        tissue: Any,
        known: dict[str, int],
    ) -> _Side:
        from napari_mosaik.segment.training_pixels import rasterise_classes
        from napari_mosaik.workflow.annotations import current_annotations

        reader = ClassReader(slide, fit, model.spacing_um, model.read_spacing_um)
        lattice = reader.lattice
        blocks = cut(lattice, BLOCK_PX, model.halo_um)
        shapes = [one for one in current_annotations(case) if one.label in known]
        drawn = (
            rasterise_classes(shapes, lattice, known)
            if shapes
            else np.zeros(lattice.shape, np.uint8)
        )
        with_tissue = blocks_with_tissue(blocks, tissue)
        return cls(
            model,
            reader,
            tissue,
            np.array([0, *(known[name] for name in model.classes)], np.uint8),
            _middle(with_tissue),
            [block for block in blocks if drawn[block.rows, block.cols].any()],
            drawn,
            len(known),
        )

    def run(self) -> Iterator[None]:
        """Classify all blocks; yields after each."""
        for block in {one.index: one for one in (*self.mapped, *self.annotated)}.values():
            spacing_um = self.reader.lattice.spacing_um[0] / self.reader.factor
            probability = self.model.predict_block(self.reader.rgb(block.outer), spacing_um)
            self.codes[block.index] = self.recode[probability[block.inner].argmax(axis=2) + 1]
            yield

    def picture(self, names: Sequence[str]) -> LabelImage:
        """The classes of the mapped blocks within the tissue."""
        blocks = self.mapped
        rows = slice(min(b.rows.start for b in blocks), max(b.rows.stop for b in blocks))
        cols = slice(min(b.cols.start for b in blocks), max(b.cols.stop for b in blocks))
        lattice = self.reader.lattice.crop(rows, cols)
        codes = np.zeros(lattice.shape, np.uint8)
        for block in blocks:
            place = (
                slice(block.rows.start - rows.start, block.rows.stop - rows.start),
                slice(block.cols.start - cols.start, block.cols.stop - cols.start),
            )
            codes[place] = self.codes[block.index]
        codes[~resample_mask(lattice, self.tissue)] = 0
        return LabelImage(codes, lattice, {0: CLASS_NAMES[0], **dict(enumerate(names, 1))})

    def area_mm2(self, code: int) -> float:
        """Area of a class in the mapped blocks within the tissue, mm²."""
        inside = 0
        for block in self.mapped:
            mask = resample_mask(block.core, self.tissue)
            inside += int((self.codes[block.index][mask] == code).sum())
        return inside * self.reader.lattice.sample_area_um2 / 1e6


def _middle(blocks: Sequence[Block]) -> list[Block]:
    """At most `MAX_BLOCKS` blocks: those nearest to the middle of all."""
    if not blocks:
        raise Blocked("there is no tissue to classify; check the tissue mask")
    places = np.array([[block.rows.start, block.cols.start] for block in blocks], float)
    away = np.square(places - places.mean(axis=0)).sum(axis=1)
    return [blocks[place] for place in sorted(np.argsort(away, kind="stable")[:MAX_BLOCKS])]


def _changed(old: LabelImage, new: LabelImage) -> tuple[float | None, LabelImage]:
    """Fraction of the tissue to which the models give different classes, and where that is."""
    from napari_mosaik.core.label_lookup import codes_at

    lattice, codes = new.lattice, new.array()
    row, col = np.nonzero(codes)
    before = codes_at(old, lattice.to_um(np.column_stack([row, col])))
    both = before > 0
    differs = both & (before != codes[row, col])
    where = np.zeros(codes.shape, np.uint8)
    where[row[differs], col[differs]] = 1
    share = float(differs.sum() / both.sum()) if both.any() else None
    return share, LabelImage(where, lattice, {0: "same", 1: "changed"})


def _fair_score(case: Case, sides: Sequence[_Side], models: Sequence[KnownModel]) -> dict[str, Any]:
    """Dice of both on annotated blocks of which neither has learned, or why there is none."""
    from napari_mosaik.learning.comparison import mean_dice, paired_difference
    from napari_mosaik.segment.metrics import confusion_matrix

    if not sides[1].annotated:
        return {"score": None, "why": f"nothing is annotated on case {case.name}"}
    learned = [one for one in models if case.name in one.trained_on]
    if any(one.method != "densenet" for one in learned):
        names = " and ".join(one.hash[:12] for one in learned)
        return {
            "score": None,
            "why": f"{names} learned from the annotations of case {case.name}; compare on a case "
            "whose annotations neither has seen",
        }
    allowed = [set((one.training.get("split") or {}).get("held_out", ())) for one in learned]
    found: list[dict[str, NDArray[np.int64]]] = []
    for side in sides:
        counts: dict[str, NDArray[np.int64]] = {}
        for block, group, part in _groups(case, side):
            if all(group in own for own in allowed):
                drawn = side.drawn[block.rows, block.cols][part]
                confusion = confusion_matrix(drawn, side.codes[block.index][part], side.n_classes)
                counts[group] = counts.get(group, 0) + confusion
        found.append({group: own for group, own in counts.items() if own.any()})
    common = sorted(found[0].keys() & found[1].keys())
    if not common:
        why = "no annotated block of the case is held out from both models"
        return {"score": None, "why": why}
    old, new = (np.array([own[group] for group in common]) for own in found)
    score = {
        "score": "mean Dice",
        "on": f"annotations of case {case.name} that neither model has learned from",
        "lower_is_better": False,
        **paired_difference(old, new, common, mean_dice),
    }
    return {"score": score, "why": ""}


def _groups(case: Case, side: _Side) -> Iterator[tuple[Block, str, tuple[slice, slice]]]:
    """The annotated parts of the blocks that belong to one group of training tiles."""
    from napari_mosaik.workflow.classifier import GROUP_UM, group_name

    spacing_um = side.reader.lattice.spacing_um
    edge = [max(1, round(GROUP_UM / spacing)) for spacing in spacing_um]
    for block in side.annotated:
        shape = side.codes[block.index].shape
        for row in _cuts(block.rows.start, shape[0], edge[0]):
            for col in _cuts(block.cols.start, shape[1], edge[1]):
                place = (
                    (block.rows.start + row.start) // edge[0],
                    (block.cols.start + col.start) // edge[1],
                )
                yield block, group_name(case, *place), (row, col)


def _cuts(start: int, length: int, edge: int) -> list[slice]:
    """The parts of a span that lie in different cells of a lattice of *edge* samples."""
    borders = [0, *(b - start for b in range((start // edge + 1) * edge, start + length, edge))]
    return [slice(a, b) for a, b in zip(borders, [*borders[1:], length], strict=True)]
