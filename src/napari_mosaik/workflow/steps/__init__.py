"""The steps of the pipeline, in the order in which they run.

Each file here defines one or more `Step` records, and all of them are found: there is no list to
extend.  Steps run in the order in which `core.catalogue` defines what they write.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from napari_mosaik.core.artifact import Artifact, defined_artifacts
from napari_mosaik.core.errors import InputError
from napari_mosaik.workflow.step import Step

__all__ = ["STEPS", "maker_of", "step_named"]


def _defined_steps() -> Iterator[Step[Any]]:
    """The steps of all files of this folder; one that a file imports from another comes twice."""
    for module in pkgutil.iter_modules(__path__):
        for value in vars(import_module(f"{__name__}.{module.name}")).values():
            for step in value if isinstance(value, tuple) else (value,):
                if isinstance(step, Step):
                    yield step


def _in_order() -> tuple[Step[Any], ...]:
    steps = {step.name: step for step in _defined_steps()}
    place = {artifact.name: n for n, artifact in enumerate(defined_artifacts())}
    ordered = sorted(steps.values(), key=lambda step: place[step.writes[0].name])
    written: set[str] = set()
    for step in ordered:
        for entry in (*step.reads, *step.may_read):
            if isinstance(entry, Artifact) and entry.name not in written:
                raise ValueError(
                    f"step '{step.name}' reads '{entry.name}', which no earlier step writes; "
                    "define its results in core/catalogue.py in the order of the pipeline"
                )
        written.update(artifact.name for artifact in step.writes)
    return tuple(ordered)


STEPS: tuple[Step[Any], ...] = _in_order()
_BY_NAME = {step.name: step for step in STEPS}
_MAKERS = {artifact.name: step for step in STEPS for artifact in step.writes}


def step_named(name: str) -> Step[Any]:
    """The step with this name; raises `InputError` with the known names if there is none."""
    if name not in _BY_NAME:
        close = get_close_matches(name, _BY_NAME, 1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"unknown step '{name}'; {hint}the steps are: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def maker_of(artifact: Artifact[Any]) -> Step[Any]:
    """The step that writes an artifact."""
    return _MAKERS[artifact.name]
