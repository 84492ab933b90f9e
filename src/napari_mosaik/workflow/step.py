"""A step: one pure computation of the main job, bound to the artifacts that it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from napari_mosaik.core.artifact import Artifact, Progress, Source
from napari_mosaik.core.params import Params

if TYPE_CHECKING:
    from napari_mosaik.workflow.step_context import StepContext

__all__ = ["Body", "Step", "StepStatus", "Word"]

P = TypeVar("P", bound=Params)
Word = Literal["done", "stale", "missing", "blocked"]
Results = Mapping[Artifact[Any], object]
Body = Callable[["StepContext", P], Generator[Progress, None, Results]]


@dataclass(frozen=True, slots=True)
class StepStatus:
    """Where a step stands: done, stale, missing (can run), or blocked, and why."""

    word: Word
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step(Generic[P]):
    """One step of the main job.

    Parameters
    ----------
    name, title, about
        Name for files and commands, words for the row, and one sentence on what it does.
    page
        Words of the page on which the step stands; several steps may share one.
    params
        Class of its settings.
    reads
        Sources and artifacts without which it cannot run.
    writes
        Artifacts that it makes, always all of them.
    body
        Generator: takes the inputs and the settings, yields `Progress`, returns the results.
    may_read
        Sources and artifacts that are used when they can be had; their absence is recorded.
    needs_model
        Name of the setting that holds a model's hash, when a model is used.
    needs_any
        Of these optional inputs at least one must be there.
    coarsest_um
        Coarsest pixel size of the step's slide at which its result means anything; None for any.
    previews
        Stain whose slide the step passes over, if it can be tried on a region of it (`preview`).
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
    previews: str = ""
    revision: int = 1
