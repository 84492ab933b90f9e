"""Teach the tissue classifier from drawn shapes of one or many cases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.catalogue import ANNOTATIONS, STAIN_FIT
from napari_mosaik.core.errors import Blocked, InputError
from napari_mosaik.core.params import Params, digest
from napari_mosaik.core.progress import map_progress
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json, saving
from napari_mosaik.segment.training_pixels import class_list
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.training_data import (
    DENSENET_TILE_PX,
    ClassifierTraining,
    Drawn,
    Samples,
    annotated_pixels,
    annotated_tiles,
)

if TYPE_CHECKING:
    from napari_mosaik.segment.densenet.network import DenseNetParams
    from napari_mosaik.segment.tissue_classifier import TissueClassParams, TissueModel

__all__ = ["retrain"]

HELD_OUT = 0.3
ASSESSMENT_TREES = 20
"""Trees of the classifier that is only judged: more would hardly change its scores."""
REVISION = 2
"""Raised whenever the same shapes and settings would give another model."""


def retrain(
    teaching: Sequence[Case],
    targets: Sequence[Case],
    *,
    method: str = "fast",
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    encoder: Path | None = None,
) -> Generator[Progress, None, dict[str, Any]]:
    """Train the tissue classifier and make it the model of the target cases.

    Only cases with annotations teach.  The classes are the program's three and any others that are
    drawn.  The model is stored in every target case and becomes the setting of its class step, so
    what depends on it is stale.  A model that was trained on the same shapes with the same settings
    is used again; a network whose training was cut off goes on after its last finished pass.

    Parameters
    ----------
    teaching, targets
        Cases whose shapes teach, and cases that get the model.
    method
        "fast" or "densenet" (the paper's network).
    preset
        Settings of the network by name: "paper" (the default) or "robust".
    settings
        Settings that differ from the preset's.
    seed
        Source of all chance.
    encoder
        File with weights for the network's encoder; training begins from chance without.

    Returns
    -------
    dict
        ``model`` (hash), ``method``, ``n_shapes``, ``n_cases``, ``classes``, ``held_out`` (scores
        per class on shapes that did not teach; None where there were too few) and ``notes``
        (sentences for the user).

    Raises
    ------
    InputError
        No annotation, fewer than two classes among them, an unknown method or preset.
    Blocked
        A teaching case whose stain fit is not done.
    """
    if method not in _METHODS:
        raise InputError(f"method '{method}' is not offered; use one of: {', '.join(_METHODS)}")
    if encoder is not None and method != "densenet":
        raise InputError("only the method 'densenet' has an encoder that can begin from weights")
    params = _params(method, preset, settings or {})
    yield Progress(0, 1, "reading annotations")
    drawn = [(case, case.annotations("he")) for case in teaching]
    drawn = [(case, shapes) for case, shapes in drawn if shapes]
    _check(drawn, teaching)
    begin = "" if encoder is None else _file_digest(encoder)
    mark = _fingerprint(drawn, params.digest(), method, seed, begin)
    place = _known(targets, mark)
    if place is None:
        classes = class_list([shape for _, shapes in drawn for shape in shapes])
        checkpoint = targets[0].root / "scratch" / f"classes-{mark}.pt"
        lesson = ClassifierTraining(drawn, classes, seed, mark, encoder, checkpoint)
        model = yield from _METHODS[method](lesson, params)
    else:
        from napari_mosaik.segment.tissue_classifier import load_tissue_model

        model = load_tissue_model(place)
        checkpoint = None
    _install(model, targets)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    yield Progress(1, 1, "trained")
    return {
        "model": model.hash,
        "n_shapes": sum(len(shapes) for _, shapes in drawn),
        "n_cases": len(drawn),
        "method": method,
        "classes": list(model.classes),
        "held_out": model.training.get("held_out"),
        "notes": list(model.training.get("notes", ())),
    }


def _params(method: str, preset: str, settings: Mapping[str, Any]) -> Params:
    """Settings of a method: the preset's, changed by those that are given."""
    where = f"settings of the method {method}"
    if method == "fast":
        from napari_mosaik.segment.tissue_classifier import TissueClassParams

        if preset:
            raise InputError("the method 'fast' has no presets; leave the preset out")
        return TissueClassParams.parse(settings, where)
    from napari_mosaik.segment.densenet.network import PRESETS, DenseNetParams

    if (preset or "paper") not in PRESETS:
        raise InputError(f"preset '{preset}' is not offered; use one of: {', '.join(PRESETS)}")
    return DenseNetParams.parse({**PRESETS[preset or "paper"], **settings}, where)


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"there are no encoder weights at {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        state = case_status(case).states["stain"]
        if state.word != "done":
            raise Blocked(
                f"case {case.name}: the stain of the H&E is {state.word}; run: "
                f"napari-mosaik run {case.root} --until stain"
            )


def _fingerprint(drawn: Drawn, settings: str, method: str, seed: int, begin: str) -> str:
    """Stands for everything that the training depends on."""
    sources = []
    for case, _ in drawn:
        fit = case.store.origin(STAIN_FIT)
        sources.append([case.name, case.digest(ANNOTATIONS), fit.digest() if fit else ""])
    return digest([sources, settings, method, seed, begin, REVISION])


def _known(targets: Sequence[Case], mark: str) -> Path | None:
    """Folder of a model that was made by the same training."""
    for case in targets:
        for card in sorted((case.root / "models").glob("*/card.json")):
            if read_json(card).get("training", {}).get("fingerprint") == mark:
                return card.parent
    return None


def _teach_fast(
    lesson: ClassifierTraining, params: TissueClassParams
) -> Generator[Progress, None, TissueModel]:
    from napari_mosaik.segment.tissue_classifier import train_fast
    from napari_mosaik.segment.training_pixels import chosen_pixels

    rng = np.random.default_rng(lesson.seed)
    pooled: list[Samples] = []
    for number, (case, shapes) in enumerate(lesson.drawn):
        share = 0.7 / len(lesson.drawn)
        yield Progress(share * number, 1, f"looking at the shapes of {case.name}")
        found = yield from annotated_pixels(
            case, shapes, lesson.codes, params, share * number, share
        )
        most = params.max_per_class // len(lesson.drawn) + 1
        pooled.append(found.rows(chosen_pixels(found.codes, most, rng)))
    samples = Samples.joined(pooled)
    yield Progress(0.75, 1, "judging by shapes that are held out")
    record = {**lesson.record(), "held_out": _judged(samples, lesson, params)}
    yield Progress(0.85, 1, "growing trees")
    return train_fast(samples.features, samples.codes, params, rng, lesson.classes, record)


def _judged(
    samples: Samples, lesson: ClassifierTraining, params: TissueClassParams
) -> dict[str, Any] | None:
    """Scores of a classifier that has not seen three of ten shapes; None with too few shapes."""
    from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
    from napari_mosaik.segment.tissue_classifier import train_fast
    from napari_mosaik.segment.training_pixels import held_out_groups

    rng = np.random.default_rng([lesson.seed, 1])
    held = held_out_groups(samples.codes, samples.shapes, HELD_OUT, rng)
    taught, judged = samples.rows(~held), samples.rows(held)
    if not held.any() or np.unique(taught.codes).size < 2:
        return None
    fewer = params.model_copy(update={"n_trees": max(1, min(ASSESSMENT_TREES, params.n_trees))})
    model = train_fast(taught.features, taught.codes, fewer, rng, lesson.classes)
    found = model.forest.predict(judged.features).argmax(axis=1) + 1
    confusion = confusion_matrix(judged.codes, found, len(lesson.classes))
    n_shapes = int(np.unique(judged.shapes).size)
    return {**class_metrics(confusion).to_dict(lesson.classes), "shapes": n_shapes}


def _teach_densenet(
    lesson: ClassifierTraining, params: DenseNetParams
) -> Generator[Progress, None, TissueModel]:
    """The paper's network on tiles around the shapes; slow without a graphics card."""
    yield Progress(0.0, 1, "loading the network library, about 3 s")
    from napari_mosaik.segment.densenet.training import Tiles, train_densenet
    from napari_mosaik.segment.densenet.weights import read_encoder_weights

    encoder = None if lesson.encoder is None else read_encoder_weights(lesson.encoder)
    pictures, codes, groups = [], [], []
    for number, (case, shapes) in enumerate(lesson.drawn):
        yield Progress(0.1 * number / len(lesson.drawn), 1, f"cutting tiles of {case.name}")
        for picture, code, group in annotated_tiles(case, shapes, lesson.codes, params):
            pictures.append(picture)
            codes.append(code)
            groups.append(case.name if params.split == "slide" else group)
    if not pictures:
        raise InputError(
            f"no tile of {DENSENET_TILE_PX} pixels of {params.read_spacing_um:g} µm lies within "
            "the slide and holds a shape; draw larger shapes or use the method 'fast'"
        )
    steps = train_densenet(
        Tiles(np.stack(pictures), np.stack(codes), np.array(groups)),
        params,
        lesson.seed,
        classes=lesson.classes,
        encoder=encoder,
        checkpoint=lesson.checkpoint,
        training=lesson.record(),
    )
    return (
        yield from map_progress(
            steps,
            lambda step: Progress(
                0.1 + 0.9 * step.fraction, 1, step.note or f"epoch {step.epoch} of {step.epochs}"
            ),
        )
    )


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
    with saving("the model", folder.parent), atomic_folder(folder) as scratch:
        model.save(scratch)


_METHODS: dict[str, Callable[..., Generator[Progress, None, TissueModel]]] = {
    "fast": _teach_fast,
    "densenet": _teach_densenet,
}
