"""State of the window: one observed record that is passed to every page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psygnal import SignalGroupDescriptor

from napari_mosaik.core import Params
from napari_mosaik.view.tile_data import TileData
from napari_mosaik.workflow.update import WaitingUpdate

if TYPE_CHECKING:
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.base.worker import Job, Problem
    from napari_mosaik.workflow.step import StepStatus

__all__ = ["LoopChange", "Workspace"]


@dataclass(frozen=True, slots=True)
class LoopChange:
    """What a retraining or an update changed, as lines of text made by `view`."""

    lines: tuple[str, ...]


@dataclass
class Workspace:
    """State of the window; each field reports its changes through ``events.FIELD``.

    It is passed to the pages, which read and set it; there is no global instance.

    Parameters
    ----------
    cohort
        Case folders of the cohort that was opened, in order.
    case
        The open case.
    recipe
        Settings of every step of the open case, as shown in the forms.
    states
        Status of every step by name.
    doubts
        What is doubtful about a slide ("he"), the "pet" or the "injection" that is there.
    results
        Summary of the results of each finished step.
    tile_data
        Measurements and predictions of all tiles.
    tile
        Index of the selected tile, -1 for none.
    job
        The running job, None if nothing is running.
    running
        Name of the running step, "" if none is.
    problem
        The last error, None if there was none or it was dismissed.
    change
        What the last retraining or update changed.
    waiting
        What there is to update, and how long it will take.
    reader
        Name of the reader who annotates, corrects and rates, until the window closes; empty until
        it was given.
    blind
        Whether the measured uptake is hidden from the reader: a blind review queue of theirs is not
        finished.
    device
        Where networks compute: "auto", "cpu", "cuda" or "mps", until the window closes.
    development
        Whether the open case is a development case, or would be after a correction; in words, empty
        where nothing measured was shown.
    withheld
        Why the class map is hidden from the reader, in words; empty where it is not.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    cohort: tuple[Path, ...] = ()
    case: Case | None = None
    recipe: dict[str, Params] = field(default_factory=dict)
    states: dict[str, StepStatus] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    tile_data: TileData = field(default_factory=TileData)
    tile: int = -1
    job: Job | None = None
    running: str = ""
    problem: Problem | None = None
    change: LoopChange | None = None
    waiting: WaitingUpdate = field(default_factory=WaitingUpdate)
    reader: str = ""
    blind: bool = False
    development: str = ""
    withheld: str = ""
    device: str = "auto"
