"""Work over several cases: teaching the tissue classifier and the uptake network."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import ALIGNMENT, ASSOCIATION, UPTAKE, UPTAKE_CLUSTERS
from napari_mosaik.core.errors import Blocked, InputError
from napari_mosaik.core.params import digest
from napari_mosaik.core.progress import map_progress
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import read_json
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.parallel import one_blas_thread
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.steps.align import low_confidence_warning
from napari_mosaik.workflow.steps.clusters import label_column
from napari_mosaik.workflow.steps.predict import PREDICTOR_READS, tile_inputs

if TYPE_CHECKING:
    from napari_mosaik.predictor import TileInputs, TrainParams
    from napari_mosaik.spatial import ProxyChoice

__all__ = ["choose_proxies_of", "proxy_groups", "train_network", "training_cases"]

SplitKind = Literal["case", "patient"]
_NO_CLASS = 5
CAIX_SCORE = "caix_h_score"


def case_named(cases: Sequence[Case], name: str) -> Case:
    """The case with a name; an unknown one raises `InputError` with the known names."""
    for case in cases:
        if case.name == name:
            return case
    known = ", ".join(case.name for case in cases)
    raise InputError(f"there is no case '{name}' in the cohort; the cases are: {known}")


def training_cases(cases: Sequence[Case], test: str, split: SplitKind) -> tuple[list[Case], Any]:
    """The cases that teach when *test* is held out, and the split as it stands in the record."""
    from napari_mosaik.predictor import leave_one_case_out, leave_one_patient_out

    case_named(cases, test)
    patients = {case.name: case.patient for case in cases}
    if len(patients) < len(cases):
        raise InputError("two cases of the cohort have the same name; rename one in its case.toml")
    choose = leave_one_case_out if split == "case" else leave_one_patient_out
    made = choose(patients, test)
    return [case for case in cases if case.name in made.train], made


def choose_proxies_of(cases: Sequence[Case]) -> ProxyChoice:
    """The vascular and nuclear parameter that go best with the uptake, and the CAIX score."""
    from napari_mosaik.spatial import choose_proxies

    tables = {case.name: case.store.read(ASSOCIATION) for case in cases}
    return choose_proxies(tables, proxy_groups())


def proxy_groups() -> dict[str, tuple[str, ...]]:
    """The groups of parameters of which one each is chosen."""
    from napari_mosaik.features import parameters_of

    return {
        "vascular": parameters_of("vascular"),
        "nuclear": parameters_of("nuclear"),
        "caix": (CAIX_SCORE,),
    }


def selection_frequencies(cases: Sequence[Case], proxies: Mapping[str, str]) -> dict[str, float]:
    """Group to the share of draws of tiles in which its proxy would be chosen again."""
    from napari_mosaik.workflow.correlations import cohort_correlations

    table = cohort_correlations([case.root for case in cases]).stability
    if table is None:
        return {}
    share = zip(table["group"], table["parameter"], table["frequency"], strict=True)
    return {str(g): float(s) for g, p, s in share if proxies.get(str(g)) == str(p)}


def _require_done(cases: Sequence[Case]) -> None:
    """Stop when a training case lacks something that the training reads."""
    for case in cases:
        states = case_status(case).states
        for artifact in (*PREDICTOR_READS, UPTAKE, UPTAKE_CLUSTERS, ASSOCIATION):
            maker = maker_of(artifact)
            if states[maker.name].word != "done":
                state = states[maker.name]
                raise Blocked(
                    f"case {case.name} cannot teach yet: '{maker.title}' is {state.word} "
                    f"({state.reason}). Run: napari-mosaik run {case.root}"
                )


def _fingerprint(cases: Sequence[Case], settings: dict[str, Any]) -> str:
    """Stands for everything that a training depends on."""
    origins = {
        case.name: [
            origin.digest() if (origin := case.store.origin(artifact)) else ""
            for artifact in (*PREDICTOR_READS, UPTAKE, UPTAKE_CLUSTERS, ASSOCIATION)
        ]
        for case in cases
    }
    return digest([origins, settings])


def _known_model(folder: Path, fingerprint: str) -> str:
    """Hash of a model that was made by the same training; empty when there is none."""
    for card in sorted(folder.glob("*/card.json")):
        if read_json(card).get("fingerprint") == fingerprint:
            return card.parent.name
    return ""


def training_inputs(
    case: Case, proxies: tuple[str, str, str], window_px: int, curves: str
) -> TileInputs:
    """One training case with its measured uptake."""
    seen = tile_inputs(case.store.read, case.name, case.patient, proxies, window_px, curves)
    labels = np.asarray(case.store.read(UPTAKE_CLUSTERS)[label_column("suv")], np.int8)
    doubts = [
        low_confidence_warning(case.store.read(ALIGNMENT[frame]), title)
        for frame, title in (("he", "H&E"), ("pet", "the PET"))
    ]
    return replace(
        seen,
        warnings=tuple(sentence for sentence in doubts if sentence),
        suv=np.asarray(case.store.read(UPTAKE)["suv"], float),
        pet_label=np.where(labels == _NO_CLASS, -1, labels).astype(np.int8),
    )


def train_network(
    cases: Sequence[Case],
    test: str,
    params: TrainParams,
    *,
    split: SplitKind = "case",
    seed: int = 0,
) -> Generator[Progress, None, str]:
    """Teach the network on all cases but *test* and put the model into the test case.

    The model's hash becomes the setting of the test case's prediction.  A training that was
    interrupted goes on from its last finished epoch; one that was finished is not repeated.
    """
    held_out = case_named(cases, test)
    teaching, made = training_cases(cases, test, split)
    _require_done(teaching)
    with held_out.writing():
        settings = {"params": params.model_dump(mode="json"), "seed": seed, "split": split}
        mark = _fingerprint(teaching, settings)
        model = _known_model(held_out.root / "models", mark)
        if not model:
            with one_blas_thread():
                model = yield from _teach(held_out, teaching, made, params, seed, mark)
        recipe = changed(read_recipe(held_out.root), "predict", model=model)
        write_recipe(held_out.root, recipe)
        held_out.log("train", model=model, test=test, split=split, seed=seed)
    yield Progress(1, 1, "trained")
    return model


def _teach(
    held_out: Case, teaching: Sequence[Case], made: Any, params: TrainParams, seed: int, mark: str
) -> Generator[Progress, None, str]:
    yield Progress(0, 1, "loading the network library, about 3 s")
    from napari_mosaik.predictor import BaselineColumns, TrainedModel, train

    chosen = choose_proxies_of(teaching)
    proxies = (chosen.proxies["vascular"], chosen.proxies["nuclear"], chosen.proxies["caix"])
    units = {case.store.read(UPTAKE).unit("suv") for case in teaching}
    if len(units) > 1:
        raise InputError(f"the training cases' uptake has different units: {', '.join(units)}")
    seen = []
    for number, case in enumerate(teaching):
        yield Progress(0.1 * number / len(teaching), 1, f"gathering {case.name}")
        seen.append(training_inputs(case, proxies, params.window_px, params.curves))
    checkpoint = held_out.root / "scratch" / f"train-{mark}.pt"
    columns = BaselineColumns(caix=CAIX_SCORE, supply="vessel_perimeter_density_per_um")
    events = train(seen, params, seed=seed, checkpoint=checkpoint, columns=columns)
    trained = yield from map_progress(
        events,
        lambda event: Progress(
            0.1 + 0.9 * event.fraction,
            1,
            f"training the network, epoch {event.epoch} of {event.epochs}",
        ),
    )
    card = {
        **trained.card,
        "fingerprint": mark,
        "split": made.kind,
        "shared_patient": made.shared_patient,
        "test_case": held_out.name,
        "suv_unit": units.pop(),
        "choice_of_proxies": {
            "cases": list(chosen.cases),
            "leaking": chosen.leaking,
            "warnings": list(chosen.warnings),
            "selection_frequency": selection_frequencies(teaching, chosen.proxies),
        },
        "warnings": [*trained.card["warnings"], *made.warnings],
    }
    folder = TrainedModel(trained.weights, card).save(held_out.root / "models")
    checkpoint.unlink(missing_ok=True)
    return folder.name
