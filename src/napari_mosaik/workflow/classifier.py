"""Train the tissue classifier on the annotations of one or many cases."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.annotate.foreign import BUILT_IN, is_foreign, proposed_class
from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.blocks import Block, cut
from napari_mosaik.core.catalogue import ANNOTATIONS, BACKGROUND, CLASS_NAMES, SLIDES, STAIN_FIT
from napari_mosaik.core.errors import Blocked, CorruptArtifact, InputError
from napari_mosaik.core.params import Params, digest
from napari_mosaik.core.progress import checkpoint, map_progress
from napari_mosaik.core.shapes import READER, AnnotatedShape
from napari_mosaik.core.text import counted
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import saving
from napari_mosaik.segment.metrics import class_calibration
from napari_mosaik.segment.model_files import read_card
from napari_mosaik.segment.training_pixels import (
    BLOCK_UM,
    GUARD_UM,
    chosen_pixels,
    class_codes,
    class_list,
    split_by_blocks,
)
from napari_mosaik.workflow.annotations import (
    annotating_readers,
    current_annotations,
    declared_classes,
    withheld_readers,
)
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.leaks import case_labels, refuse_shared_sources
from napari_mosaik.workflow.models import KnownModel, journal_ranges, room_for_model, use_model
from napari_mosaik.workflow.parallel import in_parallel
from napari_mosaik.workflow.steps.classes import BLOCK_PX, ClassReader

if TYPE_CHECKING:
    from napari_mosaik.learning.engine import TrainingStep
    from napari_mosaik.segment.densenet.network import DenseNetParams
    from napari_mosaik.segment.tissue_classifier import TissueClassParams, TissueModel

__all__ = ["REPLAY", "annotated_samples", "check_replay", "retrain", "training_progress"]

AnnotatedCases = list[tuple[Case, tuple[AnnotatedShape, ...]]]
HELD_OUT = 0.3
"""Fraction of the annotated blocks that are held out to assess the classifier."""
ASSESSMENT_TREES = 20
"""Trees of the classifier that is only assessed: more would hardly change its scores."""
DENSENET_TILE_PX = 128
GROUP_UM = 1024.0
"""Edge of the blocks of tiles that are held out together, µm."""
REPLAY = 0.3
"""Share of known tiles when a network is fine-tuned."""
SLOWER = 10.0
"""A network is fine-tuned with its learning rate divided by this."""
REVISION = 4
"""Raised whenever the same annotations and settings would give another model."""


def retrain(
    training: Sequence[Case],
    targets: Sequence[Case],
    *,
    method: str = "fast",
    preset: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    encoder: Path | None = None,
    parent: KnownModel | None = None,
    replay: float = REPLAY,
    readers: Sequence[str] = (),
    blind: str = "",
) -> Generator[Progress, None, dict[str, Any]]:
    """Train the tissue classifier and make it the model of the target cases.

    From a *parent*, a network is fine-tuned from its weights and with its settings: on the tiles
    that were annotated or changed since, mixed with a sample of the tiles that it knows.  It is
    stored beside the parent and compared with it, but not used: the reader adopts it, or not.

    Cases without annotations take no part.  The classes are the program's three and any others that
    are annotated.  The model is stored in every target case and becomes the setting of its class
    step, so all results that depend on it become stale.  A model that was trained on the same
    annotations with the same settings is reused; an interrupted training of a network resumes after
    its last complete epoch.

    Parameters
    ----------
    training, targets
        Training cases, and cases that get the model.
    method
        "fast" or "densenet" (the paper's network).
    preset
        Settings of the network by name: "paper" (the default) or "robust".
    settings
        Settings that differ from the preset's.
    seed
        Random seed.
    encoder
        File with initial weights of the network's encoder; random initialisation if None.
    parent
        The network to start from; its learning rate is divided by ten unless one is given.
    replay
        Share of tiles that the parent knows among those that train, in [0, 1).
    readers
        Names of the readers whose annotations train; all readers if empty.
    blind
        A reader for whom it trains: of the *targets* that this reader shares with others, the marks
        of the others take no part until both have finished the same tiles (`withheld_readers`).

    Returns
    -------
    dict
        ``model`` (hash), ``method``, ``n_shapes``, ``n_cases``, ``readers`` (names of those whose
        annotations trained), ``classes``, ``held_out`` (scores per class on held-out annotations;
        None where there were too few), ``notes`` and ``warnings`` (sentences for the user).

    Raises
    ------
    InputError
        No annotation, fewer than two classes among them, a reader without any, a class of another
        program that was not mapped, an unknown method or preset.
    Blocked
        The stain fit of a training case is not done.
    """
    if method not in _METHODS:
        raise InputError(f"method '{method}' is not offered; use one of: {', '.join(_METHODS)}")
    if encoder is not None and method != "densenet":
        raise InputError(
            "only the method 'densenet' has an encoder; omit the encoder or the method"
        )
    params = _params(method, preset, settings or {})
    if parent is not None:
        params = _inherited(parent, method, preset, settings or {}, encoder)
        check_replay(replay)
    yield Progress(0, 1, "reading annotations")
    warnings: list[str] = []
    annotated, withheld = _drawn(training, targets, readers, blind, warnings)
    used = _readers_of(annotated)
    annotated = [(case, shapes) for case, shapes in annotated if shapes]
    own = [case for case, _ in annotated]
    why = "areas that are held out to assess the classifier would be among those it learns from"
    refuse_shared_sources(own, why, [SLIDES["he"]])
    _check(annotated, training, sorted({*readers} - {*used}))
    notes = _about_classes(annotated, warnings)
    initial = "" if encoder is None else _file_digest(encoder)
    if parent is not None:
        initial = f"{parent.hash} {replay}"
    chosen = [*readers, *(f"not {name}" for name in withheld)]
    fingerprint = _fingerprint(annotated, params.digest(), method, seed, initial, chosen)
    folder = _trained_before(targets, fingerprint)
    if folder is None:
        classes = class_list([shape for _, shapes in annotated for shape in shapes])
        checkpoint = targets[0].root / "scratch" / f"classes-{fingerprint}.pt"
        if parent is not None:
            classes = tuple(parent.classes) if {*classes} <= {*parent.classes} else classes
        task = ClassifierTraining(
            annotated, classes, seed, fingerprint, encoder, checkpoint, parent, replay, used
        )
        model = yield from _METHODS[method](task, params)
    else:
        from napari_mosaik.segment.tissue_models import load_tissue_model

        model = load_tissue_model(folder)
        checkpoint = None
    _install(model, targets, adopt=parent is None)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    yield Progress(1, 1, "trained")
    return {
        "model": model.hash,
        "n_shapes": sum(len(shapes) for _, shapes in annotated),
        "n_cases": len(annotated),
        "readers": list(used),
        "method": method,
        "classes": list(model.classes),
        "held_out": model.training.get("held_out"),
        "parent": model.training.get("parent", ""),
        "comparison": model.training.get("comparison"),
        "adopted": parent is None,
        "notes": [*notes, *model.training.get("notes", ())],
        "warnings": warnings,
    }


def _params(method: str, preset: str, settings: Mapping[str, Any]) -> Params:
    """Settings of a method: the preset's, changed by those that are given."""
    where = f"settings of the method {method}"
    if method == "fast":
        from napari_mosaik.segment.tissue_classifier import TissueClassParams

        if preset:
            raise InputError("the method 'fast' has no presets; omit the preset")
        return TissueClassParams.parse(settings, where)
    from napari_mosaik.segment.densenet.network import PRESETS, DenseNetParams

    if (preset or "paper") not in PRESETS:
        raise InputError(f"preset '{preset}' is not offered; use one of: {', '.join(PRESETS)}")
    return DenseNetParams.parse({**PRESETS[preset or "paper"], **settings}, where)


def _inherited(
    parent: KnownModel,
    method: str,
    preset: str,
    settings: Mapping[str, Any],
    encoder: Path | None,
) -> Params:
    """The settings for fine-tuning: those of the parent, changed by the given ones."""
    from napari_mosaik.segment.densenet.network import DenseNetParams

    if parent.method != "densenet" or method != "densenet":
        raise InputError(
            f"the model {parent.hash[:12]} is of the method '{parent.method}'; only a DenseNet "
            "is fine-tuned (train the fast classifier again, which takes seconds; a predictor by "
            "'train')"
        )
    if preset or encoder is not None:
        raise InputError("a fine-tuned model has the settings of its parent; omit the preset "
                         "and the encoder")  # fmt: skip
    own = dict(parent.card["params"])
    slower = {"learning_rate": float(own["learning_rate"]) / SLOWER}
    return DenseNetParams.parse({**own, **slower, **settings}, "settings of the parent")


def check_replay(replay: float) -> None:
    """Refuse a share that is none."""
    if not 0 <= replay < 1:
        raise InputError(f"replay = {replay}: give a share of the training tiles from 0 to below 1")


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"there are no encoder weights at {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _drawn(
    training: Sequence[Case],
    targets: Sequence[Case],
    readers: Sequence[str],
    blind: str,
    warnings: list[str],
) -> tuple[AnnotatedCases, list[str]]:
    """The annotations that train, and whose are withheld from the reader *blind*."""
    roots = {case.root.resolve() for case in targets}
    withheld = [
        withheld_readers(case, blind) if case.root.resolve() in roots else () for case in training
    ]
    annotated = [
        (case, _trainable(case, warnings, readers, others))
        for case, others in zip(training, withheld, strict=True)
    ]
    names = [name for others in withheld for name in others]
    if barred := sorted({*names} & ({*readers} - {*_readers_of(annotated)})):
        raise InputError(
            f"the annotations of reader {' and '.join(barred)} do not train for reader {blind} "
            "until both have finished the tiles in which they lie"
        )
    return annotated, names


def _readers_of(annotated: AnnotatedCases) -> tuple[str, ...]:
    """Names of the readers of the shapes."""
    names = {shape.properties.get(READER, "") for _, shapes in annotated for shape in shapes}
    return tuple(sorted(str(name) for name in names if name))


def _trainable(
    case: Case, warnings: list[str], readers: Sequence[str] = (), withheld: Sequence[str] = ()
) -> tuple[AnnotatedShape, ...]:
    """The annotated shapes of a case that have a class; a doubt about the others."""
    shapes = current_annotations(case, "he", warnings)
    if readers:
        shapes = tuple(shape for shape in shapes if shape.properties.get(READER) in readers)
    others = sorted({str(s.properties[READER]) for s in shapes if s.properties.get(READER)})
    if others := [name for name in others if name in withheld]:
        warnings.append(
            f"case {case.name}: the annotations of {' and '.join(others)} are not used until both "
            "readers have finished the tiles in which they lie"
        )
        shapes = tuple(shape for shape in shapes if shape.properties.get(READER) not in withheld)
    declared = declared_classes(case)
    foreign = sorted({s.label for s in shapes if is_foreign(s.label) and s.label not in declared})
    if foreign:
        names = ", ".join(repr(name) for name in foreign)
        maps = " ".join(
            f"--map '{name}={proposed_class(name, BUILT_IN) or 'CLASS'}'" for name in foreign
        )
        raise InputError(
            f"the annotations of case {case.name} hold classes of another program ({names}), which "
            "the pipeline does not know; map them: napari-mosaik annotate import "
            f"{case.root} {case.annotations_path('he')} --replace {maps}"
        )
    named = tuple(shape for shape in shapes if shape.label)
    if len(named) < len(shapes):
        n = len(shapes) - len(named)
        warnings.append(f"case {case.name}: {counted(n, 'shape')} without a class: not trained on")
    unknown = sorted({shape.label for shape in named} - {*declared, *BUILT_IN})
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        warnings.append(
            f"case {case.name}: {names} is not a class of the pipeline and was not declared as one "
            "of your own; it trains as a class of its own and counts as neither neoplastic nor "
            "non-neoplastic"
        )
    return named


def _about_classes(annotated: AnnotatedCases, warnings: list[str]) -> list[str]:
    """Notes about the classes and the readers of a training; a doubt where a class is missing."""
    notes = []
    shapes = [shape for _, own in annotated for shape in own]
    labels = {shape.label for shape in shapes}
    warnings += [
        f"nothing is annotated as '{name}': the classifier cannot find any, and parameters within "
        "it will be empty"
        for name in BUILT_IN
        if name not in labels and name != CLASS_NAMES[BACKGROUND]
    ]
    own_classes = sorted(labels - set(BUILT_IN))
    if own_classes:
        notes.append(f"trained with the classes of your own: {', '.join(own_classes)}")
    for case, own in annotated:
        counts = Counter(str(shape.properties.get(READER, "")) for shape in own)
        if len(counts) > 1:
            each = ", ".join(
                f"{name or 'unnamed'} ({counted(n, 'shape')})" for name, n in counts.items()
            )
            notes.append(
                f"case {case.name}: annotations of several readers together: {each}; where they "
                "differ, the majority's class trains with less weight, and a tie does not train"
            )
    return notes


def _check(annotated: AnnotatedCases, training: Sequence[Case], absent: Sequence[str]) -> None:
    """Refuse what cannot train; *absent* are readers without annotations."""
    if absent:
        known = ", ".join(annotating_readers(training)) or "none"
        raise InputError(
            f"reader {', '.join(absent)} has no annotations to train on; the readers are: {known}"
        )
    if not annotated:
        names = ", ".join(case.name for case in training)
        raise InputError(
            f"nothing is annotated on the H&E of {names}; annotate at least two classes, or "
            "import annotations with 'napari-mosaik annotate import'"
        )
    labels = {shape.label for _, shapes in annotated for shape in shapes}
    if len(labels) < 2:
        raise InputError(
            f"only '{labels.pop()}' is annotated; a classifier needs shapes of two classes or more"
        )
    for case, _ in annotated:
        state = case_status(case).states["stain"]
        if state.word != "done":
            raise Blocked(
                f"case {case.name}: the stain of the H&E is {state.word}; run: "
                f"napari-mosaik run {case.root} --until stain"
            )


def _fingerprint(
    annotated: AnnotatedCases,
    settings: str,
    method: str,
    seed: int,
    initial: str,
    readers: Sequence[str] = (),
) -> str:
    """Digest of everything that the training depends on."""
    sources = []
    for case, _ in annotated:
        fit = case.store.origin(STAIN_FIT)
        sources.append([case.name, case.digest(ANNOTATIONS), fit.digest() if fit else ""])
    chosen = [sorted(readers)] if readers else []
    return digest([sources, settings, method, seed, initial, REVISION, *chosen])


def _trained_before(targets: Sequence[Case], fingerprint: str) -> Path | None:
    """Folder of a model of the same training."""
    for case in targets:
        for card in sorted((case.root / "models").glob("*/card.json")):
            with contextlib.suppress(InputError, CorruptArtifact):  # a damaged one is trained again
                found, _ = read_card(card.parent)
                if found.get("training", {}).get("fingerprint") == fingerprint:
                    return card.parent
    return None


def _train_fast(
    task: ClassifierTraining, params: TissueClassParams
) -> Generator[Progress, None, TissueModel]:
    from napari_mosaik.segment.tissue_classifier import train_fast
    from napari_mosaik.segment.training_pixels import balanced_pixels

    rng = np.random.default_rng(task.seed)
    pooled: list[PixelSamples] = []
    for number, (case, shapes) in enumerate(task.annotated):
        share = 0.7 / len(task.annotated)
        yield Progress(share * number, 1, f"reading the annotated pixels of {case.name}")
        own = yield from _annotated_pixels(case, shapes, task.codes, params, share * number, share)
        own = replace(own, places=np.insert(own.places, 0, number, axis=1))
        pooled.append(own.rows(chosen_pixels(own.codes, params.max_per_class, rng)))
    samples = PixelSamples.joined(pooled)
    samples = samples.rows(
        balanced_pixels(samples.codes, samples.places[:, 0], params.max_per_class, rng)
    )
    yield Progress(0.75, 1, "assessing on held-out annotations")
    record = {**task.record(), **_assessment(samples, task, params)}
    yield Progress(0.85, 1, "growing trees")
    return train_fast(
        samples.features, samples.codes, params, rng, task.classes, record, samples.weights
    )


def annotated_samples(
    case: Case, params: TissueClassParams
) -> Generator[Progress, None, tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.uint8]]]:
    """Class names, features (n, f), OD, and codes (n,), label, of annotated pixels of one case."""
    shapes = _trainable(case, [])
    names = class_list(shapes)
    own = yield from _annotated_pixels(case, shapes, class_codes(names), params, 0.0, 1.0)
    chosen = chosen_pixels(own.codes, params.max_per_class, np.random.default_rng(0))
    return names, own.features[chosen], own.codes[chosen]


def _assessment(
    samples: PixelSamples, task: ClassifierTraining, params: TissueClassParams
) -> dict[str, Any]:
    """The split by blocks, and the scores on what it holds out; None with too few annotations."""
    from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
    from napari_mosaik.segment.tissue_classifier import train_fast

    rng = np.random.default_rng([task.seed, 1])
    train, held_out = split_by_blocks(
        samples.codes, samples.places, params.spacing_um, HELD_OUT, rng
    )
    seen, unseen = samples.rows(train), samples.rows(held_out)
    split = {
        "kind": "block",
        "block_um": BLOCK_UM,
        "guard_um": GUARD_UM,
        "training_pixels": int(train.sum()),
        "held_out_pixels": int(held_out.sum()),
        "final_model": "trained on all annotations",
    }
    if not held_out.any() or np.unique(seen.codes).size < 2:
        return {"split": split, "held_out": None}
    fewer = params.model_copy(update={"n_trees": max(1, min(ASSESSMENT_TREES, params.n_trees))})
    model = train_fast(seen.features, seen.codes, fewer, rng, task.classes, weights=seen.weights)
    probability = model.forest.predict(unseen.features)
    confusion = confusion_matrix(unseen.codes, probability.argmax(axis=1) + 1, len(task.classes))
    scores = {
        **class_metrics(confusion).to_dict(task.classes),
        "shapes": int(np.unique(unseen.shapes).size),
        "calibration": class_calibration(unseen.codes, probability),
    }
    return {"split": split, "held_out": scores}


def _train_densenet(
    task: ClassifierTraining, params: DenseNetParams
) -> Generator[Progress, None, TissueModel]:
    """The paper's network on tiles around the annotations; slow without a GPU."""
    yield Progress(0.0, 1, "loading the network library, about 3 s")
    from napari_mosaik.segment.densenet.network import load_densenet
    from napari_mosaik.segment.densenet.training import Tiles, train_densenet
    from napari_mosaik.segment.densenet.weights import read_encoder_weights

    encoder = None if task.encoder is None else read_encoder_weights(task.encoder)
    images, codes, weights, groups, places = [], [], [], [], []
    for number, (case, shapes) in enumerate(task.annotated):
        yield Progress(0.1 * number / len(task.annotated), 1, f"cutting tiles of {case.name}")
        tiles = _annotated_tiles(case, shapes, task.codes, params)
        for image, code, weight, group, place in tiles:
            images.append(image)
            codes.append(code)
            weights.append(weight)
            groups.append(case.name if params.split == "slide" else group)
            places.append(place)
            checkpoint()
    if not images:
        raise InputError(
            f"no tile of {DENSENET_TILE_PX} pixels of {params.read_spacing_um:g} µm lies within "
            "the slide and holds an annotation; draw larger shapes or use the method 'fast'"
        )
    steps = train_densenet(
        Tiles(
            np.stack(images),
            np.stack(codes),
            np.array(groups),
            np.array(places),
            np.stack(weights),
        ),
        params,
        task.seed,
        classes=task.classes,
        encoder=encoder,
        checkpoint=task.checkpoint,
        training=task.record(),
        parent=None if task.parent is None else load_densenet(task.parent.folder),
        replay=task.replay,
    )
    return (yield from map_progress(steps, training_progress))


def training_progress(step: TrainingStep) -> Progress:
    """Progress of the training of a network after its inputs were read, with the losses so far."""
    text = step.note or f"epoch {step.epoch} of {step.epochs}"
    return Progress(0.1 + 0.9 * step.fraction, 1, text, step.history)


def _install(model: TissueModel, targets: Sequence[Case], *, adopt: bool) -> None:
    """Store the model in every target case, and select it there if it is adopted."""
    for case in targets:
        with case.writing():
            folder = case.model_folder(model.hash)
            try:
                read_card(folder)
            except CorruptArtifact:  # damaged, or not there
                room_for_model(folder)
                _save(model, folder)
            if adopt:
                use_model(case, "classes", model.hash, "retrain")
            case.log("retrain", model=model.hash)


def _save(model: TissueModel, folder: Path) -> None:
    with saving("the model", folder.parent), atomic_folder(folder) as scratch:
        model.save(scratch)


_METHODS: dict[str, Callable[..., Generator[Progress, None, TissueModel]]] = {
    "fast": _train_fast,
    "densenet": _train_densenet,
}


# --- training data -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class ClassifierTraining:
    """What both methods are trained with."""

    annotated: AnnotatedCases
    classes: tuple[str, ...]
    seed: int
    fingerprint: str
    encoder: Path | None
    checkpoint: Path
    parent: KnownModel | None = None
    replay: float = 0.0
    readers: tuple[str, ...] = ()

    @property
    def codes(self) -> dict[str, int]:
        """Code of each class name."""
        return {name: code for code, name in enumerate(self.classes, start=1)}

    @property
    def labels(self) -> list[str]:
        """Label of each case."""
        return case_labels([case for case, _ in self.annotated])

    def record(self) -> dict[str, Any]:
        """Entries of the model's card."""
        return {
            "cases": self.labels,
            "shapes": {
                label: len(shapes)
                for label, (_, shapes) in zip(self.labels, self.annotated, strict=True)
            },
            "data": {
                label: {
                    "slide": case.digest(SLIDES["he"]),
                    "annotations": case.digest(ANNOTATIONS),
                    "area_mm2": _areas_mm2(shapes),
                }
                for label, (case, shapes) in zip(self.labels, self.annotated, strict=True)
            },
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            **journal_ranges(
                [case for case, _ in self.annotated],
                ["annotation"],
                {} if self.parent is None else self.parent.training,
                self.readers,
            ),
        }


def _areas_mm2(shapes: Sequence[AnnotatedShape]) -> dict[str, float]:
    """Annotated area of each class, mm²; where shapes overlap it counts for each."""
    areas: dict[str, float] = {}
    for shape in shapes:
        areas[shape.label] = areas.get(shape.label, 0.0) + shape.geometry.area / 1e6
    return areas


@dataclass(frozen=True, slots=True, eq=False)
class PixelSamples:
    """Annotated pixels.

    Parameters
    ----------
    features
        (n, f) pixel features, dimensionless.
    codes
        (n,) class codes.
    shapes
        (n,) number of the shape that each pixel lies in.
    places
        (n, 2) row and column on the class lattice, (n, 3) after the number of the case.
    weights
        (n,) how much each pixel counts, fraction (`weighted_classes`).
    """

    features: NDArray[np.float32]
    codes: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    places: NDArray[np.int64]
    weights: NDArray[np.float32]

    def rows(self, rows: NDArray[Any]) -> PixelSamples:
        """Some of the pixels: indices (m,) or a mask (n,)."""
        parts = (self.features, self.codes, self.shapes, self.places, self.weights)
        return PixelSamples(*(part[rows] for part in parts))

    @classmethod
    def joined(cls, parts: Sequence[PixelSamples]) -> PixelSamples:
        """The pixels of all parts, one after another."""
        return cls(
            np.concatenate([one.features for one in parts]),
            np.concatenate([one.codes for one in parts]),
            np.concatenate([one.shapes for one in parts]),
            np.concatenate([one.places for one in parts]),
            np.concatenate([one.weights for one in parts]),
        )


def group_name(case: Case, row: int, col: int) -> str:
    """Name of a block of `GROUP_UM` of a case, by its row and column."""
    return f"{case.name} {row} {col}"


def _annotated_tiles(
    case: Case,
    shapes: tuple[AnnotatedShape, ...],
    names: Mapping[str, int],
    params: DenseNetParams,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], str, str]]:
    """Stain-normalised tiles with annotated pixels: codes, weights, spatial group and place.

    Tiles (128, 128, 3) uint8, codes (128, 128) label, weights (128, 128) fraction.
    """
    from napari_mosaik.segment.training_pixels import weighted_classes
    from napari_mosaik.tissue import StainFit

    stain: Any = case.store.read(STAIN_FIT)
    with case.slide("he") as slide:
        spacing_um = params.read_spacing_um
        reader = ClassReader(slide, StainFit.from_dict(stain), spacing_um, spacing_um)
        codes, weights = weighted_classes(shapes, reader.lattice, names)
        group_px = max(1, round(GROUP_UM / spacing_um))
        for block in cut(reader.lattice, DENSENET_TILE_PX, 0.0):
            own = codes[block.rows, block.cols]
            if own.shape == (DENSENET_TILE_PX, DENSENET_TILE_PX) and own.any():
                row, col = (
                    block.rows.start // DENSENET_TILE_PX,
                    block.cols.start // DENSENET_TILE_PX,
                )
                pixels = reader.rgb(block.core)
                own = np.where(slide.valid_mask(block.core), own, 0).astype(own.dtype)
                group = group_name(case, block.rows.start // group_px, block.cols.start // group_px)
                weight = weights[block.rows, block.cols]
                yield pixels, own, weight, group, f"{case.name} {row} {col}"


def _annotated_pixels(
    case: Case,
    shapes: tuple[AnnotatedShape, ...],
    names: Mapping[str, int],
    params: TissueClassParams,
    start: float,
    share: float,
) -> Generator[Progress, None, PixelSamples]:
    """All annotated pixels of one case, in raster order of blocks; touching shapes are one."""
    from scipy import ndimage

    from napari_mosaik.segment.tissue_classifier import block_features, fast_halo_um
    from napari_mosaik.segment.training_pixels import weighted_classes
    from napari_mosaik.tissue import StainFit

    stain: Any = case.store.read(STAIN_FIT)
    fit = StainFit.from_dict(stain)
    with case.slide("he") as slide:
        reader = ClassReader(slide, fit, params.spacing_um, params.read_spacing_um)
        codes, weights = weighted_classes(shapes, reader.lattice, names)
        member, _ = ndimage.label(codes > 0)
        first = int.from_bytes(hashlib.blake2b(case.name.encode(), digest_size=4).digest(), "big")
        blocks = [
            block
            for block in cut(reader.lattice, BLOCK_PX, fast_halo_um(params))
            if codes[block.rows, block.cols].any()
        ]
        if not blocks:
            raise InputError(
                f"nothing annotated on case {case.name} can train: it lies outside the slide, or "
                "its readers differ everywhere; let somebody adjudicate, or annotate more"
            )
        samples: dict[int, PixelSamples] = {}

        def read(block: Block) -> None:
            spacing_um = reader.lattice.spacing_um[0] / reader.factor
            features = block_features(reader.rgb(block.outer), spacing_um, params)[block.inner]
            own = np.where(slide.valid_mask(block.core), codes[block.rows, block.cols], 0)
            numbers = (first << 24) + member[block.rows, block.cols].astype(np.int64)
            drawn = own > 0
            places = np.argwhere(drawn) + np.array([block.rows.start, block.cols.start])
            weight = weights[block.rows, block.cols]
            samples[block.index] = PixelSamples(
                features[drawn], own[drawn], numbers[drawn], places, weight[drawn]
            )

        for done in in_parallel(read, blocks):
            text = f"reading the annotated pixels of {case.name}"
            yield Progress(start + share * done / len(blocks), 1, text)
    return PixelSamples.joined([samples[block.index] for block in blocks])
