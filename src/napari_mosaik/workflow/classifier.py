"""Teach the tissue classifier from drawn shapes of one or many cases."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import ANNOTATIONS, STAIN_FIT
from napari_mosaik.core.errors import Blocked, InputError
from napari_mosaik.core.params import Params, digest
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json, saving
from napari_mosaik.workflow.parallel import in_parallel
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import outlook
from napari_mosaik.workflow.steps.classes import BLOCK_PX, ClassReader

if TYPE_CHECKING:
    from napari_mosaik.segment.compartments import TissueClassParams, TissueModel
    from napari_mosaik.segment.densenet import DenseNetParams

__all__ = ["retrain"]

Drawn = list[tuple[Case, tuple[AnnotatedShape, ...]]]
DENSENET_TILE_PX = 128
GROUP_PX = 512
Samples = tuple[NDArray[np.float32], NDArray[np.uint8]]


def retrain(
    teaching: Sequence[Case],
    targets: Sequence[Case],
    *,
    method: str = "fast",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Generator[Progress, None, dict[str, Any]]:
    """Train the tissue classifier and make it the model of the target cases.

    Only cases with annotations teach.  The model is stored in every target case and becomes the
    setting of its class step, so what depends on it is stale.  A model that was trained on the
    same shapes with the same settings is used again.

    Returns
    -------
    dict
        ``model`` (hash), ``n_shapes``, ``n_cases``, ``samples`` per class.

    Raises
    ------
    InputError
        No annotation, fewer than two classes among them, an unknown method.
    Blocked
        A teaching case whose stain fit is not done.
    """
    if method not in _METHODS:
        raise InputError(f"method '{method}' is not offered; use one of: {', '.join(_METHODS)}")
    params = _params_class(method).parse(settings or {}, f"settings of the method {method}")
    yield Progress(0, 1, "reading annotations")
    drawn = [(case, case.annotations("he")) for case in teaching]
    drawn = [(case, shapes) for case, shapes in drawn if shapes]
    _check(drawn, teaching)
    mark = _fingerprint(drawn, params.digest(), method, seed)
    place = _known(targets, mark)
    if place is None:
        model = yield from _METHODS[method](drawn, params, seed, mark)
    else:
        from napari_mosaik.segment.compartments import load_tissue_model

        model = load_tissue_model(place)
    _install(model, targets)
    yield Progress(1, 1, "trained")
    n_shapes = sum(len(shapes) for _, shapes in drawn)
    return {"model": model.hash, "n_shapes": n_shapes, "n_cases": len(drawn), "method": method}


def _check(drawn: Drawn, teaching: Sequence[Case]) -> None:
    if not drawn:
        names = ", ".join(case.name for case in teaching)
        raise InputError(
            f"nothing is annotated on the H&E of {names}; draw some shapes of at least two "
            "classes, or import them with 'napari-mosaik annotate import'"
        )
    labels = {shape.label for _, shapes in drawn for shape in shapes}
    if len(labels) < 2:
        raise InputError(
            f"only '{labels.pop()}' is annotated; a classifier needs shapes of two classes or more"
        )
    for case, _ in drawn:
        state = outlook(case).states["stain"]
        if state.word != "done":
            raise Blocked(
                f"case {case.name}: the stain of the H&E is {state.word}; run: "
                f"napari-mosaik run {case.root} --until stain"
            )


def _fingerprint(
    drawn: Drawn,
    settings: str,
    method: str,
    seed: int,
) -> str:
    """Stands for everything that the training depends on."""
    sources = []
    for case, _ in drawn:
        fit = case.store.origin(STAIN_FIT)
        sources.append([case.name, case.digest(ANNOTATIONS), fit.digest() if fit else ""])
    return digest([sources, settings, method, seed])


def _known(targets: Sequence[Case], mark: str) -> Path | None:
    """Folder of a model that was made by the same training."""
    for case in targets:
        for card in sorted((case.root / "models").glob("*/card.json")):
            if read_json(card).get("training", {}).get("fingerprint") == mark:
                return card.parent
    return None


def _teach_fast(
    drawn: Drawn,
    params: TissueClassParams,
    seed: int,
    mark: str,
) -> Generator[Progress, None, TissueModel]:
    from napari_mosaik.segment.annotations import training_pixels
    from napari_mosaik.segment.compartments import train_fast

    rng = np.random.default_rng(seed)
    pooled: list[Samples] = []
    for number, (case, shapes) in enumerate(drawn):
        text = f"looking at the shapes of {case.name}"
        share = 0.8 / len(drawn)
        yield Progress(share * number, 1, text)
        features, codes = yield from _samples(case, shapes, params, share * number, share, text)
        pooled.append(
            training_pixels(
                features[None], codes[None], params.max_per_class // len(drawn) + 1, rng
            )
        )
    yield Progress(0.85, 1, "growing trees")
    features = np.concatenate([one for one, _ in pooled])
    codes = np.concatenate([one for _, one in pooled])
    return train_fast(features, codes, params, rng, training=_training(drawn, seed, mark))


def _training(drawn: Drawn, seed: int, mark: str) -> dict[str, Any]:
    """What the card says of the training."""
    return {
        "cases": [case.name for case, _ in drawn],
        "shapes": {case.name: len(shapes) for case, shapes in drawn},
        "seed": seed,
        "fingerprint": mark,
    }


def _teach_densenet(
    drawn: Drawn, params: DenseNetParams, seed: int, mark: str
) -> Generator[Progress, None, TissueModel]:
    """The paper's network on tiles around the shapes; slow without a graphics card."""
    yield Progress(0.0, 1, "loading the network library, about 3 s")
    from napari_mosaik.segment.densenet import train_densenet

    pictures, codes, groups = [], [], []
    for number, (case, shapes) in enumerate(drawn):
        yield Progress(0.1 * number / len(drawn), 1, f"cutting tiles of {case.name}")
        for picture, code, group in _tiles(case, shapes, params):
            pictures.append(picture)
            codes.append(code)
            groups.append(group)
    steps = train_densenet(
        np.stack(pictures),
        np.stack(codes),
        params,
        np.random.default_rng(seed),
        groups=np.array(groups),
        training=_training(drawn, seed, mark),
    )
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            model: TissueModel = end.value
            return model
        done = (step.epoch - 1 + step.step / step.steps) / params.epochs
        yield Progress(0.1 + 0.9 * done, 1, f"pass {step.epoch} of {params.epochs}")


def _tiles(
    case: Case, shapes: tuple[AnnotatedShape, ...], params: DenseNetParams
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], str]]:
    """Stain-normalised tiles that hold labelled pixels, their codes, and their spatial group."""
    from napari_mosaik.segment.annotations import rasterise
    from napari_mosaik.tissue import StainFit

    stain = case.store.read(STAIN_FIT)
    with case.slide("he") as slide:
        spacing_um = params.read_spacing_um
        reader = ClassReader(slide, StainFit.from_dict(stain), spacing_um, spacing_um)
        codes = rasterise(shapes, reader.lattice)
        for block in cut(reader.lattice, DENSENET_TILE_PX, 0.0):
            own = codes[block.rows, block.cols]
            if own.shape == (DENSENET_TILE_PX, DENSENET_TILE_PX) and own.any():
                row, col = block.rows.start // GROUP_PX, block.cols.start // GROUP_PX
                pixels = reader.rgb(block.core)
                own = np.where(slide.sound(block.core), own, 0).astype(own.dtype)
                yield pixels, own, f"{case.name} {row} {col}"


def _params_class(method: str) -> type[Params]:
    if method == "fast":
        from napari_mosaik.segment.compartments import TissueClassParams

        return TissueClassParams
    from napari_mosaik.segment.densenet import DenseNetParams

    return DenseNetParams


def _samples(
    case: Case,
    shapes: tuple[AnnotatedShape, ...],
    params: TissueClassParams,
    start: float,
    share: float,
    text: str,
) -> Generator[Progress, None, Samples]:
    """Features and codes of every labelled pixel of one case, in raster order of blocks."""
    from napari_mosaik.segment.annotations import rasterise
    from napari_mosaik.segment.compartments import block_features, fast_halo_um
    from napari_mosaik.tissue import StainFit

    stain = case.store.read(STAIN_FIT)
    fit = StainFit.from_dict(stain)
    with case.slide("he") as slide:
        reader = ClassReader(slide, fit, params.spacing_um, params.read_spacing_um)
        codes = rasterise(shapes, reader.lattice)
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
            found[block.index] = features[own > 0], own[own > 0]

        for done in in_parallel(look, blocks):
            yield Progress(start + share * done / len(blocks), 1, text)
    parts = [found[block.index] for block in blocks]
    return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])


def _install(model: TissueModel, targets: Sequence[Case]) -> None:
    """Put the model into every target case and choose it there."""
    for case in targets:
        with case.writing():
            folder = case.model_folder(model.hash)
            if not (folder / "card.json").is_file():
                _save(model, folder)
            recipe = changed(read_recipe(case.root), "classes", model=model.hash)
            write_recipe(case.root, recipe)
            case.log("retrain", model=model.hash)


def _save(model: TissueModel, folder: Path) -> None:
    scratch = folder.with_name(f".{uuid.uuid4().hex}")
    with saving("the model", folder.parent):
        try:
            model.save(scratch)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


_METHODS: dict[str, Callable[..., Generator[Progress, None, TissueModel]]] = {
    "fast": _teach_fast,
    "densenet": _teach_densenet,
}
