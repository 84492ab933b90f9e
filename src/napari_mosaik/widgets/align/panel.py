"""Manual alignment of a section on CD34, with landmarks and registration error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog
from superqt.utils import qdebounced

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import ALIGNMENT
from napari_mosaik.view.alignment import alignment_lines
from napari_mosaik.widgets.align.form import TITLES, AlignForm
from napari_mosaik.widgets.align.view import AlignmentPicture, AlignView
from napari_mosaik.widgets.canvas.active_tool import CanvasTool, ToolMode
from napari_mosaik.widgets.canvas.mouse import Pointer
from napari_mosaik.workflow.given_alignment import (
    Alignment,
    landmark_pairs_from_files,
    transform_from_file,
)
from napari_mosaik.workflow.manual_alignment import (
    AlignmentInputs,
    ManualAlignment,
    assess_uptake_while,
    read_alignment_inputs,
)
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.widgets.canvas.link import CanvasLink

__all__ = ["AlignPanel"]

WORKING = "Estimating registration error…"
_REST_MS = 250
_DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class AlignTool(CanvasTool):
    """Moves a section, or sets landmarks.

    ``shifted`` carries a step (row, column) in µm and ``turned`` an angle in degrees about
    ``about_um``, both with whether they continue the same drag; ``clicked`` a position (row,
    column) in µm of the reference section.
    """

    name = "alignment"
    modes = {  # noqa: RUF012
        "move": ToolMode("Move", "Drag to move, Shift+drag to rotate", cursor="standard"),
        "mark": ToolMode("Landmarks", "Click a landmark", pans=True),
    }
    shifted = Signal(object, bool)
    turned = Signal(float, bool)
    clicked = Signal(object)

    def __init__(self, link: CanvasLink) -> None:
        super().__init__(link)
        self.about_um = (0.0, 0.0)
        self.edits: dict[str, Callable[[], Any]] = {}
        """What its keys do."""
        self._last_um = self._here_um = (0.0, 0.0)
        self._turn_deg, self._turning = 0.0, False
        self._moves = 0

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Keys that move, rotate and scale."""
        return self.edits

    def pressed(self, pointer: Pointer) -> None:
        """A drag may begin."""
        self._last_um = self._here_um = pointer.position_um
        self._turn_deg, self._turning, self._moves = 0.0, "Shift" in pointer.modifiers, 0

    def moved(self, pointer: Pointer) -> None:
        """Add up how far the mouse went."""
        if self.mode == "move" and not pointer.is_click:
            if self._turning:
                self._turn_deg += _angle(self._here_um, pointer.position_um, self.about_um)
            self._here_um = pointer.position_um

    def sketch(self) -> None:
        """The section follows the mouse."""
        if self._here_um == self._last_um:
            return
        if self._turning:
            self.turned.emit(self._turn_deg, self._moves > 0)
        else:
            self.shifted.emit(np.subtract(self._here_um, self._last_um), self._moves > 0)
        self._moves += 1
        self._turn_deg, self._last_um = 0.0, self._here_um

    def released(self, pointer: Pointer) -> None:
        """The section is where the mouse was released; a click sets a landmark."""
        self.sketch()
        if pointer.is_click and self.mode == "mark":
            self.clicked.emit(pointer.start_um)


class AlignPanel(AlignForm):
    """Aligns H&E, CAIX or the PET manually to CD34; nothing is stored before Accept."""

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self.link, self.controller = link, link.board.controller
        self.tool, self.view = link.tool(AlignTool), AlignView(link.board)
        self.alignment: ManualAlignment | None = None
        self.inputs: AlignmentInputs | None = None
        self._request = 0
        self._assess_soon = qdebounced(self._assess, timeout=_REST_MS, parent=self)
        self._connect()
        self._show()

    def _connect(self) -> None:
        self.asked.connect(self._run_action)
        self.target.currentIndexChanged.connect(self._other)
        self.look.currentIndexChanged.connect(self._looks)
        self.opacity.valueChanged.connect(self._looks)
        self.list.currentRowChanged.connect(self._show_buttons)
        self.tool.shifted.connect(lambda step, on: self._act("shift", step, continued=on))
        self.tool.turned.connect(
            lambda angle, on: self._act("rotate", angle, self.tool.about_um, continued=on)
        )
        self.tool.clicked.connect(self._clicked)
        self.tool.changed.connect(self._show_tool)
        self.kind.currentIndexChanged.connect(self._show_landmarks)
        self.tool.edits = self._edits()
        self.controller.workspace.events.case.connect(self._case_changed)
        self.controller.workspace.events.states.connect(self._show)
        self.controller.workspace.events.blind.connect(self._blinded)
        self.link.events.active_tool.connect(self._tool_changed)

    def _edits(self) -> dict[str, Callable[[], Any]]:
        """What the keys do, by the actions of the table of shortcuts."""
        edits: dict[str, Callable[[], Any]] = {"undo": self.undo, "redo": self.redo}
        for name, direction in _DIRECTIONS.items():
            for prefix, um in (("", 10.0), ("far ", 100.0)):
                step = (direction[0] * um, direction[1] * um)
                edits[prefix + name] = partial(self._act, "shift", step)
        for name, angle in (("left", 0.5), ("far left", 5.0), ("right", -0.5), ("far right", -5.0)):
            edits[f"rotate {name}"] = partial(self._act_about, "rotate", angle)
        edits["enlarge"] = partial(self._act_about, "scale", 1.01)
        edits["shrink"] = partial(self._act_about, "scale", 1 / 1.01)
        return edits

    def _run_action(self, name: str) -> None:
        acts: dict[str, Callable[[], Any]] = {
            "start": self.start, "reset_alignment": self.reset_alignment, "accept": self.accept,
            "leave": self.leave, "undo": self.undo, "redo": self.redo,
            "flip_horizontally": self.flip_horizontally, "delete_landmark": self.delete_landmark,
            "swap_landmarks": self.swap_landmarks, "fit": self.fit,
            "choose_transform": self.choose_transform, "choose_landmarks": self.choose_landmarks,
            "move": lambda: self.tool.take("move"), "mark": lambda: self.tool.take("mark"),
        }  # fmt: skip
        acts[name]()

    # --- beginning and ending -------------------------------------------------------------------
    def start(self) -> None:
        """Read the sections in the background, then show the section over CD34."""
        case = self.controller.workspace.case
        if case is None:
            return
        self.leave()
        frame = self.frame
        if self._is_hidden():
            return
        self.begin.setEnabled(False)
        self.message.setText("Reading the sections…")
        task = self.controller.read_for(
            case, "Manual alignment", lambda: read_alignment_inputs(case, frame), self._started
        )
        task.failed.connect(lambda _problem: self._show())

    def _started(self, inputs: AlignmentInputs) -> None:
        self._show()
        if inputs.frame != self.frame or self._is_hidden():
            return  # another section was chosen meanwhile, or the PET was hidden
        self.inputs = inputs
        self.alignment = ManualAlignment(inputs.start, inputs.landmarks)
        self.tool.about_um = inputs.centre_um
        self.tool.take("move")  # layouts restore the canvas before the section is drawn on it
        masks = inputs.assessment
        picture = AlignmentPicture(
            inputs.frame, masks.moving, masks.fixed, inputs.picture, inputs.fwhm_um
        )
        self.view.enter(picture, self.alignment.now)
        self._show()
        self._again()

    def leave(self) -> None:
        """Restore the canvas and discard the changes."""
        self._assess_soon.cancel()
        self._request += 1
        self.tool.release()
        self.view.leave()
        self.alignment = self.inputs = None
        self._show()

    def accept(self) -> None:
        """Store the alignment in ``case.toml`` and run the alignment step."""
        case, alignment = self.controller.workspace.case, self.alignment
        if case is None or alignment is None:
            return
        entry, frame = alignment.entry(), alignment.frame
        self.leave()
        given: dict[Any, Any] = {**case.file.given_alignments, frame: entry}
        self._store(given, frame)

    def reset_alignment(self) -> None:
        """Discard the given alignment and run the automatic registration."""
        case, frame = self.controller.workspace.case, self.frame
        if case is None:
            return
        self.leave()
        given = {key: one for key, one in case.file.given_alignments.items() if key != frame}
        self._store(given, frame)

    def _store(self, given: Mapping[Any, Any], frame: str) -> None:
        self.controller.update_case(given_alignments=given)
        if self.controller.workspace.problem is None:
            self.controller.run_steps((maker_of(ALIGNMENT[frame]).name,))

    # --- acting ---------------------------------------------------------------------------------
    def _act(self, name: str, *values: Any, **more: Any) -> None:
        if self.alignment is None:
            return
        try:
            getattr(self.alignment, name)(*values, **more)
        except MosaikError as error:
            self.controller.report(error, "Manual alignment")
            return
        self._again()

    def _act_about(self, name: str, value: float) -> None:
        self._act(name, value, self.tool.about_um)

    def undo(self) -> None:
        """Undo the last change."""
        self._act("undo")

    def redo(self) -> None:
        """Redo the last undone change."""
        self._act("redo")

    def flip_horizontally(self) -> None:
        """Flip the section horizontally."""
        self._act("flip_horizontally", self.tool.about_um)

    def _clicked(self, place_um: Any) -> None:
        self._act("add_landmark", place_um)

    def delete_landmark(self) -> None:
        """Delete the selected landmark."""
        if self.list.currentRow() >= 0:
            self._act("delete_landmark", self.list.currentRow())

    def swap_landmarks(self) -> None:
        """Swap the first two landmarks that appear to be interchanged."""
        pair = self.swapped_pair(self.alignment)
        if pair is not None:
            self._act("swap_landmarks", *pair)

    def fit(self) -> None:
        """Fit the alignment to the landmarks."""
        self._act("fit_to_landmarks", self.kind.currentData())

    def import_transform(self, path: Path) -> None:
        """Import a transform from a file."""
        try:
            transform = transform_from_file(path, self.frame)
        except MosaikError as error:
            self.controller.report(error, "Import transform")
            return
        self._act("import_transform", transform, "file", path.name)

    def import_landmarks(self, moving: Path, fixed: Path) -> None:
        """Import landmark files of the section and of CD34."""
        if self.inputs is None:
            return
        try:
            sizes_um = self.inputs.spacing_um, self.inputs.reference_spacing_um
            landmarks = landmark_pairs_from_files(moving, fixed, *sizes_um)
        except MosaikError as error:
            self.controller.report(error, "Import landmarks")
            return
        self._act("set_landmarks", landmarks)

    def choose_transform(self) -> None:
        """Ask for a matrix file."""
        path = QFileDialog.getOpenFileName(
            self, "Transform to CD34 (3 × 3 matrix, row and column in µm)"
        )[0]
        if path:
            self.import_transform(Path(path))

    def choose_landmarks(self) -> None:
        """Ask for two landmark files."""
        title = TITLES[self.frame]
        moving = QFileDialog.getOpenFileName(self, f"Landmarks on {title}", "", "CSV (*.csv)")[0]
        if moving:
            fixed = QFileDialog.getOpenFileName(self, "Landmarks on CD34", "", "CSV (*.csv)")[0]
            if fixed:
                self.import_landmarks(Path(moving), Path(fixed))

    # --- showing --------------------------------------------------------------------------------
    def _again(self) -> None:
        """Draw at once; the assessment follows when the mouse rests."""
        if self.alignment is None:
            return
        self._show_one_section()
        self.view.show(self.alignment.now)
        self._show_landmarks()
        self._request += 1
        self._assess_soon()

    def _show_one_section(self) -> None:
        waiting = self.alignment is not None and self.alignment.now.unpaired is not None
        self.view.marking = "" if self.tool.mode != "mark" else "partner" if waiting else "own"

    def _looks(self, *_: Any) -> None:
        self.view.look = self.look.currentData()
        self.view.opacity = self.opacity.value() / 100
        if self.alignment is not None:
            self.view.show(self.alignment.now)

    def _assess(self) -> None:
        """Assess the alignment in the background: by the outlines, then by the PET."""
        alignment, inputs = self.alignment, self.inputs
        if alignment is None or inputs is None:
            return
        request, masks, transform = self._request, inputs.assessment, alignment.now.transform
        self.figures.setText("Comparing the outlines…")
        self.controller.read(
            "Manual alignment",
            lambda: masks.assess(transform),
            lambda alignment: self._assessed(request, alignment),
        )

    def _assessed(self, request: int, alignment: Alignment) -> None:
        inputs = self.inputs
        if not self._is_current(request) or inputs is None:
            return
        if inputs.assessment.pet is None:
            self._show_assessment(alignment)
            return
        self._show_assessment(alignment, WORKING)
        work = partial(
            assess_uptake_while,
            inputs.assessment,
            alignment.transform,
            lambda: self._is_current(request),
        )
        self.controller.read(
            "Manual alignment",
            work,
            lambda by_pet: self._assessed_by_pet(request, alignment, by_pet),
        )

    def _assessed_by_pet(
        self, request: int, by_outline: Alignment, by_pet: Alignment | str
    ) -> None:
        if not self._is_current(request):
            return
        if isinstance(by_pet, str):
            self._show_assessment(by_outline, f"Registration error unknown: {by_pet}")
        else:
            self._show_assessment(by_pet)

    def _is_current(self, request: int) -> bool:
        """Whether the section was not moved since the request."""
        return request == self._request and self.alignment is not None

    def _show_assessment(self, alignment: Alignment, more: str = "") -> None:
        lines = [*alignment_lines(alignment.to_dict()), *([more] if more else [])]
        self.figures.setText("\n".join(lines))

    def _is_hidden(self) -> bool:
        """Whether the chosen section is the PET, which the reader may not see."""
        return self.frame == "pet" and self.controller.workspace.blind

    def _blinded(self, *_: Any) -> None:
        if self.alignment is not None and self._is_hidden():
            self.leave()
        self._show()

    def _show(self, *_: Any) -> None:
        case, on = self.controller.workspace.case, self.alignment is not None
        self.hand.setVisible(on)
        self.used.emit(on)
        hidden = self._is_hidden()
        self.begin.setEnabled(case is not None and not on and not hidden)
        self.automatic.setVisible(
            case is not None and self.frame in case.file.given_alignments and not on
        )
        entry = case.file.given_alignment(self.frame) if case is not None else None
        given = "" if entry is None else f"Given alignment ({entry.source}): {entry.note}"
        if hidden:
            given = "The PET is hidden until the review queue is finished: align it after that."
        self.message.setText("" if on else given)
        self.message.setVisible(bool(self.message.text()))
        if not on:
            self.figures.setText("")
        self._show_tool()
        self._show_landmarks()

    def _show_tool(self) -> None:
        self.move_button.setChecked(self.tool.mode == "move")
        self.landmark_button.setChecked(self.tool.mode == "mark")
        self.hint.setText(self.hint_for(self.tool.mode, self.alignment))
        if self.alignment is not None:
            self._show_one_section()
            self.view.show(self.alignment.now)

    def _show_landmarks(self, *_: Any) -> None:
        self.show_landmarks(self.alignment)
        self.hint.setText(self.hint_for(self.tool.mode, self.alignment))
        self._show_buttons()

    def _show_buttons(self, *_: Any) -> None:
        self.show_buttons(self.alignment)

    def _other(self, *_: Any) -> None:
        self.leave()

    def _tool_changed(self, tool: CanvasTool | None) -> None:
        """End the alignment when a tool that needs the canvas for itself becomes active."""
        if self.alignment is None or tool is None or tool is self.tool:
            return
        if tool.exclusive:
            self.leave()

    def hideEvent(self, event: Any) -> None:
        """A page that is closed lets the section go; another tab does not."""
        body = self.parentWidget()
        if body is not None and body.isHidden() and self.alignment is not None:
            self.leave()
        super().hideEvent(event)

    def _case_changed(self, *_: Any) -> None:
        if self.inputs is not None and self.inputs.case is not self.controller.workspace.case:
            self.leave()
        self._show()


def _angle(start: Any, end: Any, about: Any) -> float:
    """Angle from one position to another about a third, degrees, positive from rows to columns."""
    a, b = np.subtract(start, about), np.subtract(end, about)
    cross, dot = a[0] * b[1] - a[1] * b[0], float(a @ b)
    return float(np.degrees(np.arctan2(cross, dot)))
