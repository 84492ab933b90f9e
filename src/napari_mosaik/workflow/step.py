"""A step of the pipeline: one pure computation, and the artifacts that it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.params import Params

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.workflow.step_context import StepContext

__all__ = ["Body", "Step", "StepStatus", "Word"]

P = TypeVar("P", bound=Params)
_FINEST_UM = 0.08
"""Pixel size of a slide below which it is a slip: oil immersion at 100x has about 0.1 µm."""
Word = Literal["done", "stale", "missing", "blocked"]
Results = Mapping[Artifact[Any], object]
Body = Callable[["StepContext", P], Generator[Progress, None, Results]]


@dataclass(frozen=True, slots=True)
class StepStatus:
    """Status of a step: done, stale, missing (it can run) or blocked, and the reason.

    ``warnings`` are the doubts that the step recorded about its stored results.  If what is stored
    of them, or the model that the step uses, is ``damaged``, the reason says so.
    """

    word: Word
    reason: str = ""
    warnings: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def mark(self) -> str:
        """The state as it is marked: a check mark means judged and good, so a doubt has its own."""
        return "doubtful" if self.word == "done" and self.warnings else self.word


@dataclass(frozen=True, slots=True)
class Step(Generic[P]):
    """One step of the pipeline.

    Parameters
    ----------
    name, title, about
        Name in files and commands, title in the window and in reports, one sentence on what the
        step does.
    page
        Title of the window page that shows the step; steps may share a page.
    params
        Class of its settings.
    reads
        Required sources and artifacts.
    writes
        Artifacts that it returns, always all of them.
    body
        Generator: takes the `StepContext` and the settings, yields `Progress`, returns the results.
    may_read
        Sources and artifacts that are used if available; their absence is part of the provenance.
    needs_model
        Name of the setting that holds the hash of a trained model; empty without one.
    needs_any
        Optional inputs of which at least one is required.
    coarsest_um
        Coarsest pixel size (µm) of the step's slide that gives a meaningful result; None for any.
    check
        Raises `InputError` for sources that a run could not use (a term of the SUV is missing);
        asked with the case and the settings of all steps before the run.
    check_model
        Raises `InputError` for the folder of a trained model that a run could not use.
    previews
        Stain of the slide that a preview of the step reads (`preview`); empty without a preview.
    optional
        Whether a case is complete without it: it waits for something that not every user gives.
    revision
        Raised when, and only when, the step's numbers change.
    """

    name: str
    title: str
    about: str
    page: str
    params: type[P]
    reads: tuple[Artifact[Any] | Source, ...]
    writes: tuple[Artifact[Any], ...]
    body: Body[P]
    may_read: tuple[Artifact[Any] | Source, ...] = ()
    needs_model: str = ""
    needs_any: tuple[Artifact[Any], ...] = ()
    coarsest_um: float | None = None
    check: Callable[[Case, Mapping[str, Any]], object] | None = None
    check_model: Callable[[Path], object] | None = None
    previews: str = ""
    optional: bool = False
    revision: int = 1

    def refused_pixel_size(self, spacing_um: float) -> str:
        """What pixel size is required instead of one in µm; empty where that one can be used.

        Only steps that have a `coarsest_um` look at structures whose size in pixels matters.
        """
        if self.coarsest_um is None or _FINEST_UM <= spacing_um <= self.coarsest_um:
            return ""
        if spacing_um < _FINEST_UM:
            return f"no slide scanner is finer than {_FINEST_UM:g} µm; correct it"
        return f"{self.coarsest_um:g} µm or finer is required"
