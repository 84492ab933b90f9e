"""Layers, result lines and report tables of a case, from the `StepView` records in `view.steps`.

A new file in `view.steps` is found here; there is no list to extend.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Final

import numpy as np

from napari_mosaik.annotate import DEFAULT_CLASSES
from napari_mosaik.core import MosaikError, Transform, palette
from napari_mosaik.core.catalogue import (
    ANNOTATIONS,
    CLASS_PROBABILITY,
    CLASSES,
    CLUSTERS,
    CORRECTIONS,
    DOSE,
    INPUT_SPREAD,
    MAPS,
    OBJECTS,
    PREDICTION,
    STAIN_TITLES,
    SUV,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
    UPTAKE_SENSITIVITY,
)
from napari_mosaik.core.corrections import CORRECTED_FRAMES
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.features.catalogue import parameters_of
from napari_mosaik.io.case import Case
from napari_mosaik.view import steps as views
from napari_mosaik.view.case_results import CaseResults
from napari_mosaik.view.display_settings import StainVectors, stains_of
from napari_mosaik.view.formatting import heading
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, LAYER_TITLES
from napari_mosaik.view.maps import DIFFERENCE_TITLE
from napari_mosaik.view.objects import area_lines, corrected_lines
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec, Legend, placement_um
from napari_mosaik.view.step_view import StepView
from napari_mosaik.workflow.annotations import reader_documents
from napari_mosaik.workflow.corrections import edited_objects
from napari_mosaik.workflow.step import StepStatus
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named

__all__ = [
    "SECTIONS",
    "blind_lines",
    "choices_of",
    "display_stains",
    "layers_by_hand",
    "outdated_by",
    "report_tables",
    "result_lines",
    "section_of",
    "shows_classes",
    "shows_measured",
    "shows_pet",
    "specs_for",
    "specs_of",
    "step_view",
    "step_views",
    "withheld_lines",
]


_OUTLINE_UM = 3.0
_PET, _ALL = "PET", "All sections"
SECTIONS: Final = (*STAIN_TITLES.values(), _PET, _ALL)
"""Titles under which layers are listed."""
_SECTION_OF: Final = {
    **{
        one.name: _PET
        for one in (SUV, UPTAKE, PREDICTION, INPUT_SPREAD, UPTAKE_SENSITIVITY, UPTAKE_CLUSTERS)
    },
    **{one.name: _ALL for one in (TILES, MAPS, CLUSTERS, DOSE)},
}


@cache
def _measured() -> set[str]:
    """Names of the results that hold the SUV of the PET, or were computed from it."""
    found = {SUV.name}
    for step in STEPS:  # each after those that it reads
        if found & {one.name for one in (*step.reads, *step.needs_any, *step.writes)}:
            found |= {one.name for one in step.writes}
    return found


def section_of(spec: LayerSpec) -> str:
    """The title under which a layer is listed: its section, the PET, or all sections."""
    return _SECTION_OF.get(spec.result) or STAIN_TITLES.get(spec.space, _ALL)


def shows_measured(spec: LayerSpec) -> bool:
    """Whether a layer shows the PET of the case, or what was computed from it."""
    return spec.result in _measured() or spec.name == DIFFERENCE_TITLE


def shows_pet(spec: LayerSpec) -> bool:
    """Whether a layer is the picture of the PET itself."""
    return spec.result == SUV.name


def shows_classes(spec: LayerSpec) -> bool:
    """Whether a layer shows the tissue classes that the model predicts, or their share of tiles."""
    shares = map(heading, parameters_of("tissue"))
    of_model = spec.result in (CLASSES.name, CLASS_PROBABILITY.name)
    return of_model or any(share in spec.name for share in shares)


def blind_lines(lines: Mapping[str, str]) -> dict[str, str]:
    """The summaries of the steps without those that tell the measured uptake or an error."""
    return {
        name: line
        for name, line in lines.items()
        if not any(one.name in _measured() for one in step_named(name).writes)
    }


def withheld_lines(lines: Mapping[str, str], why: str) -> dict[str, str]:
    """The summaries of the steps with the reason in place of that of a class map that is hidden."""
    return {**lines, maker_of(CLASSES).name: f"{why}."}


@cache
def step_views() -> Mapping[str, StepView]:
    """The record of every step by the step's name, in the order of the steps.

    Steps without a file in `view.steps` have an empty record.
    """
    records: dict[str, StepView] = {}
    for module in pkgutil.iter_modules(views.__path__):
        values = vars(import_module(f"{views.__name__}.{module.name}")).values()
        for value in values:
            for record in value if isinstance(value, tuple) else (value,):
                if isinstance(record, StepView):
                    records[record.step.name] = record
    return {step.name: records.get(step.name) or StepView(step=step) for step in STEPS}


def step_view(step: str) -> StepView:
    """The record of the step of that name."""
    return step_views()[step]


def specs_of(case: Case, step: str, choice: str = "") -> list[LayerSpec]:
    """The layers that show the results of one step; none while nothing is stored.

    *choice* is the parameter to be shown, for steps that have several.
    """
    return list(step_view(step).layers(CaseResults(case), choice))


def specs_for(
    case: Case, steps: Iterable[str], choices: Mapping[str, str] | None = None
) -> list[LayerSpec]:
    """The layers of several steps, each once; damaged results are skipped.

    *choices* are the parameters to be shown, by step.
    """
    specs: dict[str, LayerSpec] = {}
    results = CaseResults(case)
    for step in steps:
        try:
            made = step_view(step).layers(results, (choices or {}).get(step, ""))
        except MosaikError:
            continue
        specs.update({spec.name: spec for spec in made})
    return list(specs.values())


def choices_of(case: Case) -> dict[str, tuple[str, ...]]:
    """By step, the parameters that can be chosen; none where the result is damaged."""
    choices: dict[str, tuple[str, ...]] = {}
    for name, view in step_views().items():
        if view.choice_title:
            try:
                choices[name] = view.choices(CaseResults(case))
            except MosaikError:
                choices[name] = ()
    return choices


def result_lines(case: Case, states: Mapping[str, StepStatus]) -> dict[str, str]:
    """A summary of the results of each step; the first line is the short form."""
    lines: dict[str, str] = {}
    results = CaseResults(case)
    for step, state in states.items():
        line = step_view(step).result_line
        if state.word not in ("done", "stale") or line is None:
            continue
        try:
            lines[step] = line(results)
        except MosaikError as error:
            lines[step] = str(error)
    return lines


def report_tables(results: CaseResults) -> list[ReportTable]:
    """The tables of all steps in their order; those of one title become one table."""
    tables: dict[str, list[ReportTable]] = {}
    for view in step_views().values():
        for table in view.report(results):
            tables.setdefault(table.title, []).append(table)
    joined = [_joined(parts) for parts in tables.values()]
    return [table for table in joined if table.rows]


def _joined(parts: Sequence[ReportTable]) -> ReportTable:
    first = parts[0]
    rows = tuple(row for part in parts for row in part.rows)
    return ReportTable(first.title, first.columns, rows, first.note)


def display_stains(case: Case, stain: str) -> StainVectors:
    """The stain vectors of a slide as a step measured them, else those of Ruifrok and Johnston.

    Optical density (R, G, B) of each stain.
    """
    measured: dict[str, Sequence[float]] = {}
    results = CaseResults(case)
    for view in step_views().values():
        if view.base_slide == stain and view.stains is not None and results.has(*view.step.writes):
            measured.update(view.stains(results))
    return stains_of(stain, measured)


def outdated_by(case: Case, step: str, states: Mapping[str, StepStatus]) -> tuple[list[str], float]:
    """What new settings of a step make stale: titles of finished steps, itself first, and seconds.

    The seconds are those that these steps took when they ran last.
    """
    titles: list[str] = []
    seconds, changed = 0.0, set[str]()
    for one in STEPS:
        reads = {entry.name for entry in (*one.reads, *one.may_read, *one.needs_any)}
        if one.name != step and not reads & changed:
            continue
        changed |= {artifact.name for artifact in one.writes}
        if one.name in states and states[one.name].word == "done":
            titles.append(one.title)
            with suppress(MosaikError, OSError):
                seconds += float(case.store.record(one.writes[0]).get("seconds", 0.0))
    return titles, seconds


def layers_by_hand(case: Case, reader: str) -> list[LayerSpec]:
    """The corrections of all readers, and the annotations of *reader*; others stay unseen.

    A damaged record gives no layer; its step names it.
    """
    results, specs = CaseResults(case), list[LayerSpec]()
    for what, frame in CORRECTED_FRAMES.items():
        with suppress(MosaikError):
            corrections = case.corrections(what)
            if not corrections:
                continue
            edited = edited_objects(case, what) if what in OBJECTS else None
            title = f"Corrections: {LAYER_TITLES[what]}"
            parts = dict(
                zip(
                    (("added or edited", palette.TISSUE), ("removed", palette.REMOVED_OBJECT)),
                    corrected_lines(corrections, edited),
                    strict=True,
                )
            )
            transform = results.transform(frame)
            specs.append(_outlines(title, parts, CORRECTIONS[what].name, frame, transform))
    with suppress(MosaikError):
        documents = reader_documents(case)
        mine = documents.get(reader)
        classes = DEFAULT_CLASSES if mine is None else mine.classes
        colours = {known.name: known.colour for known in classes}
        found: dict[tuple[str, str], list[FloatArray]] = {}
        shapes = () if mine is None else mine.shapes
        for one in shapes if documents else case.annotations("he"):  # a file without a journal
            key = one.label, colours.get(one.label) or one.colour or palette.TISSUE
            found.setdefault(key, []).append(area_lines(one.geometry.wkt))
        if found:
            parts = {key: np.concatenate(lines) for key, lines in found.items()}
            title = (
                f"{ANNOTATIONS_TITLE} of {reader}" if documents else f"{ANNOTATIONS_TITLE} (file)"
            )
            specs.append(_outlines(title, parts, ANNOTATIONS.name, "he", results.transform("he")))
    return specs


def _outlines(
    title: str,
    parts: dict[tuple[str, str], FloatArray],
    result: str,
    frame: str,
    transform: Transform | None,
) -> LayerSpec:
    """Vectors (n, 2, 2) in µm of a section, by the word and the colour of each part."""
    colours = [
        np.broadcast_to(palette.rgba(colour), (len(lines), 4))
        for (_, colour), lines in parts.items()
    ]
    style = {
        "edge_color": np.concatenate(colours),
        "edge_width": _OUTLINE_UM,
        "length": 1.0,
        "vector_style": "line",
    }
    return LayerSpec(
        title,
        "vectors",
        np.concatenate(list(parts.values())),
        placement_um(frame, transform),
        style,
        legend=Legend(title, entries=tuple(key for key, lines in parts.items() if len(lines))),
        result=result,
        space=frame,
    )
