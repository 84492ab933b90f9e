"""What the window is about at this moment: one observed record that every page is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psygnal import SignalGroupDescriptor

from napari_mosaik.core import Params
from napari_mosaik.view.tile_data import Facts

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.worker import Job
    from napari_mosaik.workflow.step import StepStatus

__all__ = ["LoopChange", "Problem", "Workspace"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong, for the banner: the sentence, and details for a report.

    ``about`` names the step or action; ``fault`` is True when the program itself is to blame.
    """

    about: str
    sentence: str
    details: str = ""
    fault: bool = False


@dataclass(frozen=True, slots=True)
class LoopChange:
    """What a correction changed: lines in words, made by `view`."""

    lines: tuple[str, ...]


@dataclass
class Workspace:
    """The state of the window; each field announces its changes through ``events.FIELD``.

    Pages read it and set it; none looks it up globally.

    Parameters
    ----------
    cohort
        Case folders of the cohort that was opened, in order.
    case
        The open case.
    recipe
        Settings of every step for the open case, as the forms show them.
    states
        State of every step by name.
    results
        One line in words about the result of each finished step.
    facts
        Everything known of every tile.
    tile
        Row number of the selected tile, -1 for none.
    job
        What is running in the background, None when nothing is.
    running
        Name of the step that runs now, empty when none does.
    problem
        What went wrong last, None when nothing did or it was dismissed.
    change
        What the last correction changed.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    cohort: tuple[Path, ...] = ()
    case: Case | None = None
    recipe: dict[str, Params] = field(default_factory=dict)
    states: dict[str, StepStatus] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    tile: int = -1
    job: Job | None = None
    running: str = ""
    problem: Problem | None = None
    change: LoopChange | None = None
