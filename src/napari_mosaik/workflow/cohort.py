"""Train the uptake network on the cases of a cohort but one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    ASSOCIATION,
    PARAMETERS,
    SLIDES,
    STAIN_TITLES,
    TILE_KINETICS,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.core.errors import Blocked, CorruptArtifact, InputError
from napari_mosaik.core.params import digest
from napari_mosaik.core.progress import map_progress
from napari_mosaik.core.text import same_words
from napari_mosaik.io.case import Case
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.classifier import REPLAY, SLOWER, check_replay, training_progress
from napari_mosaik.workflow.correlations import (
    CAIX_SCORE,
    choose_proxies_of,
    cohort_correlations,
)
from napari_mosaik.workflow.held_out_block import HeldOutBlock, cut_block
from napari_mosaik.workflow.leaks import case_labels, refuse_shared_sources, source_contents
from napari_mosaik.workflow.model_comparison import predicted_difference
from napari_mosaik.workflow.models import KnownModel, journal_ranges, use_model
from napari_mosaik.workflow.parallel import one_blas_thread
from napari_mosaik.workflow.predictor_inputs import (
    ALWAYS_READ,
    OF_SLIDE,
    PREDICTOR_READS,
    tile_inputs,
)
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.steps.align import low_confidence_warning
from napari_mosaik.workflow.steps.spatial import uptake_classes

if TYPE_CHECKING:
    from napari_mosaik.learning.devices import ComputeDevice
    from napari_mosaik.learning.engine import TrainingStep
    from napari_mosaik.predictor import TileInputs, TrainedModel, TrainParams

__all__ = ["ablate_network", "train_network", "training_cases"]

SplitKind = Literal["case", "patient", "block"]
DEFAULT_FWHM_MM = 1.5
"""Resolution of a microPET scanner, assumed where a case states none."""
_FINE_TUNING_SHARE = 4
"""Fine-tuning takes this part of the epochs of a training."""

_TRAINING_REVISION: Final = 2
"""Raised where equal inputs, settings and seed give another model: it is trained again."""


def case_named(cases: Sequence[Case], name: str) -> Case:
    """The case with a name; an unknown one raises `InputError` with the known names."""
    for case in cases:
        if case.name == name:
            return case
    known = ", ".join(case.name for case in cases)
    raise InputError(f"there is no case '{name}' in the cohort; the cases are: {known}")


def training_cases(cases: Sequence[Case], test: str, split: SplitKind) -> tuple[list[Case], Any]:
    """The training cases when *test* is held out, and the split.

    Raises
    ------
    InputError
        There is no such case, two cases have one name, or two of those that take part hold the
        same slide or PET.
    """
    from napari_mosaik.predictor import leave_one_case_out, leave_one_patient_out, own_block

    held_out = case_named(cases, test)
    patients = {case.name: case.patient for case in cases}
    if len(patients) < len(cases):
        twice = [
            label for one, label in zip(cases, case_labels(cases), strict=True) if label != one.name
        ]
        raise InputError(
            f"cases of the cohort have the same name: {', '.join(twice)}; rename one in its "
            "case.toml"
        )
    kinds = {"case": leave_one_case_out, "patient": leave_one_patient_out, "block": own_block}
    chosen = kinds[split](patients, test)
    training = [case for case in cases if case.name in chosen.train]
    why = f"with {test} held out, the network would be tested on what it was trained on"
    for case in training if split != "block" else ():
        refuse_shared_sources([held_out, case], why)
    refuse_shared_sources(training, "the network would learn from it twice")
    return training, chosen


def selection_frequencies(cases: Sequence[Case], proxies: Mapping[str, str]) -> dict[str, float]:
    """Group to the bootstrap selection frequency of its proxy."""
    table = cohort_correlations([case.root for case in cases]).stability
    if table is None:
        return {}
    rows = zip(table["group"], table["parameter"], table["frequency"], strict=True)
    return {str(g): float(f) for g, p, f in rows if proxies.get(str(g)) == str(p)}


def absent_slides(cases: Sequence[Case]) -> dict[str, list[str]]:
    """The slides that a training has to do without, each with the cases that lack it."""
    found = {slide: [case.name for case in cases if not _has(case, slide)] for slide in OF_SLIDE}
    return {slide: names for slide, names in found.items() if names}


def _has(case: Case, slide: str) -> bool:
    """Whether a case has a slide, or was given what is read off it."""
    if slide in case.file.slides:
        return True
    # The curves are never given: they are computed from the CAIX scores.
    read_off = [one for one in OF_SLIDE[slide] if one is not TILE_KINETICS]
    origins = [case.store.origin(one) for one in read_off]
    return all(origin is not None and bool(origin.is_given) for origin in origins)


def _require_done(cases: Sequence[Case], absent: Collection[str] = ()) -> None:
    """Raise `Blocked` when a training case lacks a result that the training reads."""
    needed = [*ALWAYS_READ, UPTAKE, UPTAKE_CLUSTERS, ASSOCIATION]
    needed += [one for slide, own in OF_SLIDE.items() if slide not in absent for one in own]
    for case in cases:
        states = case_status(case).states
        for artifact in needed:
            maker = maker_of(artifact)
            if states[maker.name].word != "done":
                state = states[maker.name]
                todo = f"Run: napari-mosaik run {case.root}"
                if state.word == "blocked":
                    todo = "Supply what is missing, or train without this case"
                raise Blocked(
                    f"case {case.name} is not ready for training: '{maker.title}' is {state.word} "
                    f"({state.reason}). {todo}"
                )


def _fingerprint(cases: Sequence[Case], settings: dict[str, Any]) -> str:
    """Digest of everything that a training depends on."""
    widths = [case.file.pet.fwhm_mm if case.file.pet else None for case in cases]
    origins = {
        case.name: [
            origin.digest() if (origin := case.store.origin(artifact)) else ""
            for artifact in (*PREDICTOR_READS, UPTAKE, UPTAKE_CLUSTERS, ASSOCIATION)
        ]
        for case in cases
    }
    return digest([origins, widths, settings])


def _results(case: Case) -> str:
    """Digest of the origins of all that the network reads of a case."""
    origins = [case.store.origin(artifact) for artifact in (*PREDICTOR_READS, UPTAKE)]
    return digest([one.digest() if one else "" for one in origins])


def _trained_model(
    folder: Path, fingerprint: str, patients: Mapping[str, str], *, shared: bool
) -> str:
    """Hash of a model of the same training, with its patients as they are; empty: there is none.

    *patients* are those of the training cases by name; *shared* is whether the test case has one
    of them.
    """
    from napari_mosaik.predictor import TrainedModel

    for path in sorted(folder.glob("*/card.json")):
        with contextlib.suppress(InputError, CorruptArtifact):  # a damaged one is trained again
            card = TrainedModel.load(path.parent).card
            same = card.get("shared_patient") == shared and all(
                patients.get(one["case"]) == one["patient"] for one in card.get("cases", ())
            )
            if same and card.get("fingerprint") == fingerprint:
                return path.parent.name
    return ""


def training_inputs(
    case: Case,
    proxies: tuple[str, str, str],
    params: TrainParams,
    absent: Collection[str] = (),
    features: Sequence[str] | None = None,
) -> TileInputs:
    """One training case with its measured uptake; the rest as for `tile_inputs`."""
    read = case.store.read
    inputs = tile_inputs(read, case.name, case.patient, proxies, params, absent, features)
    warnings = [
        low_confidence_warning(read(ALIGNMENT[frame]), title)
        for frame, title in (("he", "H&E"), ("pet", "the PET"))
        if frame not in absent
    ]
    return replace(
        inputs,
        warnings=tuple(warning for warning in warnings if warning),
        suv=np.asarray(case.store.read(UPTAKE)["suv"], float),
        pet_label=uptake_classes(case.store.read(UPTAKE_CLUSTERS)),
    )


def scanner_width_um(cases: Sequence[Case]) -> tuple[float, str]:
    """Mean resolution of the cases' scanner in µm of CD34, and a warning where it was assumed.

    The scanner's Gaussian is as much wider on the section as the registration stretches the PET.
    """
    widths, assumed = [], []
    for case in cases:
        stated = case.file.pet.fwhm_mm if case.file.pet else None
        assumed += [] if stated else [case.name]
        scale = transform_of(case.store.read(ALIGNMENT["pet"])).scale
        widths.append((stated or DEFAULT_FWHM_MM) * 1000.0 * scale)
    warning = (
        f"the resolution of the PET is not stated for {', '.join(assumed)}: {DEFAULT_FWHM_MM:g} mm "
        "was assumed; set 'fwhm_mm' under [pet] in case.toml"
    )
    return float(np.mean(widths)), warning if assumed else ""


def train_network(
    cases: Sequence[Case],
    test: str,
    params: TrainParams,
    *,
    split: SplitKind = "case",
    guard: int | None = None,
    seed: int = 0,
    parent: KnownModel | None = None,
    replay: float = REPLAY,
) -> Generator[Progress, None, str]:
    """Train the network on all cases but *test* and store the model in the test case.

    The model's hash becomes the setting of the test case's prediction.  An interrupted training
    resumes after its last complete epoch; a complete one is not repeated.

    With *split* "block" it trains on one end of *test* itself and is tested on the other, *guard*
    tiles away (`cut_block`).

    From a *parent* the network is fine-tuned: on the tiles that have changed since, mixed with a
    share *replay* of those that it knows.  Its model is compared with the parent on the test case,
    and not used: the reader adopts it, or not.
    """
    held_out = case_named(cases, test)
    if guard is not None and (split != "block" or guard < 2):
        raise InputError(
            f"--guard {guard}: give 2 tiles or more, and only with --split block: "
            "neighbouring tiles overlap, so they leak the answer"
        )
    training, chosen = training_cases(cases, test, split)
    if parent is not None and split == "block":
        raise InputError("--from starts from a model of other cases; omit it with --split block")
    if parent is not None:
        params = _inherited(parent, held_out, split, params)
        check_replay(replay)
    absent = absent_slides(training)
    _require_done(training, absent)
    params = _without_slides(absent, params)
    block = None
    if split == "block":
        block = cut_block(held_out, guard, scanner_width_um(training)[0])
    from napari_mosaik.predictor import network_device

    device = network_device(params)
    with held_out.writing():
        settings: dict[str, Any] = {"params": params.model_dump(mode="json"), "seed": seed}
        settings |= {"split": split, "revision": _TRAINING_REVISION}
        settings |= {} if block is None else {"block": block.record}
        # the figures of a GPU differ in the last digits
        settings |= {"device": device.device.type} if device.has_gpu else {}
        if parent is not None:
            settings |= {"parent": parent.hash, "replay": replay}
        fingerprint = _fingerprint(training, settings)
        patients = {case.name: case.patient for case in training}
        model = _trained_model(
            held_out.root / "models", fingerprint, patients, shared=chosen.shared_patient
        )
        if not model:
            with one_blas_thread():
                model = yield from _train(
                    held_out,
                    training,
                    chosen,
                    params,
                    seed,
                    fingerprint,
                    parent,
                    replay,
                    block,
                    device,
                )
        if parent is None:
            use_model(held_out, "predict", model, "train")
        held_out.log("train", model=model, test=test, split=split, seed=seed)
    yield Progress(1, 1, "trained")
    return model


def _parent_model(
    parent: KnownModel | None, absent: Mapping[str, Sequence[str]]
) -> TrainedModel | None:
    """The model to start from; one that reads a slide which a case lacks is refused."""
    from napari_mosaik.predictor import TrainedModel

    if parent is None:
        return None
    model = TrainedModel.load(parent.folder)
    for slide, names in absent.items():
        if slide not in model.card.get("absent", ()):
            raise InputError(
                f"the model {parent.hash[:12]} reads {STAIN_TITLES[slide]}, which {names[0]} "
                "lacks; train a new model"
            )
    return model


def _proxies_of(card: Mapping[str, Any]) -> tuple[str, str, str]:
    first, second, third = card["proxies"]
    return first, second, third


_GROUP_OF = {"he": "nuclear", "caix": "caix"}
"""The group of proxies that is read off a slide."""


def _proxy_names(chosen: Mapping[str, str]) -> tuple[str, str, str]:
    """The three proxies; of a group that has none, the name of the group."""
    first, second, third = (chosen.get(group, group) for group in ("vascular", "nuclear", "caix"))
    return first, second, third


def _without_slides(absent: Mapping[str, Sequence[str]], params: TrainParams) -> TrainParams:
    """The settings without the parts of the network that have nothing to read."""
    from napari_mosaik.predictor import ABSENT_PARTS

    if absent and params.architecture != "slide":
        slide, names = next(iter(absent.items()))
        raise InputError(
            f"the network that reads tile by tile needs {STAIN_TITLES[slide]}, which {names[0]} "
            "lacks; use the preset 'default'"
        )
    parts = {*params.without, *(ABSENT_PARTS[slide] for slide in absent)}
    if parts == set(params.without):
        return params
    return params.parse({**params.model_dump(), "without": sorted(parts)}, "settings")


def _absence_warnings(absent: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each slide that the model does without."""
    return [
        (
            f"no {STAIN_TITLES[slide]} slide in {', '.join(names)}: the model does without "
            if names
            else f"the model that it was fine-tuned from had no {STAIN_TITLES[slide]} slide "
            "in training: it does without "
        )
        + f"{_ABSENCES[slide]}, and predicts from the other slides"
        for slide, names in absent.items()
    ]


_ABSENCES = {
    "he": "tissue classes, nuclei and their clusters",
    "caix": "CAIX scores, their clusters and antibody curves",
}


def _common_parameters(cases: Sequence[Case]) -> list[str]:
    """The tile parameters that all cases have."""
    tables = [case.store.read(PARAMETERS) for case in cases]
    return [name for name in tables[0] if all(name in table for table in tables)]


def ablate_network(
    cases: Sequence[Case],
    test: str,
    params: TrainParams,
    *,
    split: SplitKind = "case",
    seed: int = 0,
) -> Generator[Progress, None, dict[str, Any]]:
    """Train without each part of the network in turn, and compare on the case *test*.

    Nothing is stored.  The networks predict alone, without boosting.

    Returns
    -------
    dict
        ``whole`` (mae, mse, r2 of the normalised SUV) and ``without``: for each part the same and
        ``mae_minus_whole`` (see `mae_difference`): above 0 the part helps.

    Raises
    ------
    InputError
        The case has no measured uptake, or the settings are those of the paper's network.
    """
    from napari_mosaik.predictor import PARTS, predict, train
    from napari_mosaik.predictor.metrics import error_metrics, mae_difference, plain_record

    held_out = case_named(cases, test)
    if params.architecture != "slide":
        raise InputError("only the parts of the network over whole slides can be cut out")
    training, _ = training_cases(cases, test, split)
    if absent := absent_slides([*training, held_out]):
        raise InputError(
            f"{STAIN_TITLES[next(iter(absent))]} is missing in "
            f"{', '.join(next(iter(absent.values())))}: the parts can only be compared where all "
            "slides are there"
        )
    _require_done([*training, held_out])
    params = params.model_copy(update={"with_companions": False, "intervals": False})
    proxies = _proxy_names(choose_proxies_of(training).proxies)
    inputs = [training_inputs(case, proxies, params) for case in training]
    tested, fwhm_um = training_inputs(held_out, proxies, params), scanner_width_um(training)[0]
    names = ("", *PARTS, "blur")
    found: dict[str, Any] = {}
    predicted: dict[str, Any] = {}
    measured = np.full(len(tested), np.nan)
    for number, name in enumerate(names):
        own = params.model_copy(update={"without": (name,) if name else ()})
        start, stop = number / len(names), (number + 1) / len(names)
        what = f"without {name}: " if name else ""
        with one_blas_thread():
            model = yield from map_progress(
                train(inputs, own, seed=seed, fwhm_um=fwhm_um),
                partial(_within, start=start, stop=stop, what=what),
            )
        measured = model.target.normalise(np.asarray(tested.suv, float), clip=False)
        predicted[name] = predict(model, tested).suv_norm
        found[name] = error_metrics(measured, predicted[name])
    for name in names[1:]:
        found[name]["mae_minus_whole"] = mae_difference(
            measured, predicted[""], predicted[name], tested.cells
        )
    whole = found.pop("")
    record = {"test_case": test, "split": split, "seed": seed, "whole": whole, "without": found}
    return dict(plain_record(record))


def _inherited(
    parent: KnownModel, held_out: Case, split: SplitKind, params: TrainParams
) -> TrainParams:
    """The settings for fine-tuning; a parent that has seen the test case is refused."""
    if parent.is_classifier:
        raise InputError(f"the model {parent.hash[:12]} is not a predictor of uptake")
    card = parent.card
    content = _content(held_out, card)
    seen = [e["case"] for e in card["cases"]
            if e["case"] == held_out.name or (content and e.get("content") == content)]  # fmt: skip
    if seen:
        raise InputError(
            f"the model {parent.hash[:12]} was trained on case {seen[0]}, so nothing of it can be "
            f"held out; start from a model that was trained without {held_out.name}"
        )
    patients = {same_words(entry["patient"]) for entry in card["cases"]}
    if split == "patient" and same_words(held_out.patient) in patients:
        raise InputError(
            f"the model {parent.hash[:12]} was trained on cases of the patient of "
            f"{held_out.name}; use --split case, or start from another model"
        )
    own = {**card["settings"], "learning_rate": card["settings"]["learning_rate"] / SLOWER}
    own["epochs"] = math.ceil(own["epochs"] / _FINE_TUNING_SHARE)
    own |= {name: getattr(params, name) for name in params.model_fields_set}
    return type(params).parse(own, "settings of the parent")


def _lacks(case: Case, card: Mapping[str, Any]) -> bool:
    """Whether a case lacks a result that a model reads."""
    absent = card.get("absent", ())
    needed = [*ALWAYS_READ, *(o for s, own in OF_SLIDE.items() if s not in absent for o in own)]
    return any(case.store.origin(artifact) is None for artifact in needed)


def _content(held_out: Case, card: Mapping[str, Any]) -> str:
    """Digest of the tissue of the test case as the network sees it; empty where it is not ready."""
    if _lacks(held_out, card):
        return ""
    from napari_mosaik.predictor import TrainParams

    first, second, third = card["proxies"]
    settings = TrainParams.parse(card["settings"], "model card")
    read = held_out.store.read
    inputs = tile_inputs(
        read,
        held_out.name,
        held_out.patient,
        (first, second, third),
        settings,
        card.get("absent", ()),
        card["features"],
    )
    return inputs.content()


def _compared(held_out: Case, before: TrainedModel, after: TrainedModel) -> dict[str, Any] | None:
    """The error of both on the test case; None where it lacks what the network reads, or a PET."""
    if _lacks(held_out, before.card):
        return None
    return predicted_difference(held_out, before, after)[0]


def _train(
    held_out: Case,
    training: Sequence[Case],
    split: Any,
    params: TrainParams,
    seed: int,
    fingerprint: str,
    parent: KnownModel | None,
    replay: float,
    block: HeldOutBlock | None,
    device: ComputeDevice,
) -> Generator[Progress, None, str]:
    yield Progress(0, 1, "loading the network library, about 3 s")
    from napari_mosaik.predictor import TrainedModel, train, with_baselines, with_range

    absent = absent_slides(training)
    features = _common_parameters(training) if absent else None
    lost = [_GROUP_OF[slide] for slide in absent]
    choice = choose_proxies_of(training, lost) if block is None else block.choose_proxies(lost)
    proxies, before = _proxy_names(choice.proxies), _parent_model(parent, absent)
    without = tuple(absent)
    if before is not None:  # it reads what its parent reads, also where a case has more
        proxies, features = _proxies_of(before.card), before.card["features"]
        without = tuple(before.card.get("absent", ()))
    units = {case.store.read(UPTAKE).unit("suv") for case in training}
    if len(units) > 1:
        raise InputError(f"the training cases' uptake has different units: {', '.join(units)}")
    inputs = []
    for number, case in enumerate(training):
        yield Progress(0.1 * number / len(training), 1, f"reading {case.name}")
        inputs.append(training_inputs(case, proxies, params, without, features))
    if block is not None:
        inputs = [block.masked(one) for one in inputs]
    checkpoint = held_out.root / "scratch" / f"train-{fingerprint}.pt"
    fwhm_um, assumed = scanner_width_um(training)
    steps = train(
        inputs,
        params,
        seed=seed,
        checkpoint=checkpoint,
        parent=before,
        replay=replay,
        fwhm_um=fwhm_um,
        device=device,
    )
    with_fits = params.intervals and before is None
    ready = 0.5 if with_fits else 0.95
    trained = yield from map_progress(steps, lambda step: _within(step, 0.0, ready))
    yield Progress(ready, 1, "fitting the baselines")
    trained = with_baselines(trained, inputs, caix=CAIX_SCORE, fwhm_um=fwhm_um)
    trained = with_range(trained, inputs, fwhm_um)
    if before is not None:
        trained = _with_intervals_of(trained, before)
    else:
        trained = yield from _with_intervals(trained, inputs, params, checkpoint, ready, device)
    card: dict[str, Any] = {
        **trained.card,
        "fingerprint": fingerprint,
        "split": split.kind,
        "shared_patient": split.shared_patient,
        "test_case": held_out.name,
        "data": {
            case.name: {
                "slides": [case.digest(one) for one in SLIDES.values()],
                "files": source_contents(case),
                "results": _results(case),
            }
            for case in training
        },
        **journal_ranges(
            training, ["annotation", "correction"], {} if before is None else before.card
        ),
        "suv_unit": units.pop(),
        "device": device.description,
        "notes": list(dict.fromkeys(device.notes)),
        "absent": list(without),
        "choice_of_proxies": {
            "cases": list(choice.cases),
            "leaking": choice.leaking,
            "warnings": list(choice.warnings),
            "selection_frequency": (
                selection_frequencies(training, choice.proxies) if block is None else {}
            ),
        },
        **({} if block is None else {"block": block.record}),
        "warnings": [
            *trained.card["warnings"],
            *split.warnings,
            *(block.warnings if block is not None else ()),
            *filter(None, [assumed]),
            *_absence_warnings({slide: absent.get(slide, ()) for slide in without}),
        ],
    }
    if before is not None:
        yield Progress(1, 1, "comparing with the model before")
        card["comparison"] = _compared(held_out, before, TrainedModel(trained.weights, card))
    folder = TrainedModel(trained.weights, card).save(held_out.root / "models")
    for file in checkpoint.parent.glob(f"{checkpoint.stem}*{checkpoint.suffix}"):
        file.unlink()
    return folder.name


def _within(step: TrainingStep, start: float, stop: float, what: str = "") -> Progress:
    """Progress of a training that is a part of the whole work."""
    own = training_progress(step)
    return replace(own, done=start + (stop - start) * own.done, text=f"{what}{own.text}")


def _with_intervals(
    model: TrainedModel,
    inputs: Sequence[TileInputs],
    params: TrainParams,
    checkpoint: Path,
    start: float,
    device: ComputeDevice,
) -> Generator[Progress, None, TrainedModel]:
    """The model with its intervals, where the settings ask for them."""
    from napari_mosaik.predictor import held_out_cases, with_intervals

    if not params.intervals:
        return with_intervals(model, ())
    steps = held_out_cases(
        inputs,
        params,
        model.target,
        seed=int(model.card["seed"]),
        fwhm_um=float(model.card["fwhm_um"]),
        checkpoint=checkpoint,
        device=device,
    )
    what = "intervals: one case held out, "
    found = yield from map_progress(steps, lambda step: _within(step, start, 0.98, what))
    return with_intervals(model, found)


def _with_intervals_of(model: TrainedModel, parent: TrainedModel) -> TrainedModel:
    """The model with the intervals of the one that it was fine-tuned from."""
    record = parent.card.get("intervals")
    if record is not None:
        note = f"the intervals are those of the model {parent.hash[:12]}, before fine-tuning"
        record = {**record, "notes": [*record["notes"], note]}
    own = {
        "companion_weights": dict(parent.card.get("companion_weights", {})),
        "intervals": record,
    }
    return type(model)(model.weights, {**model.card, **own})
