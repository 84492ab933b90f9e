"""The widgets of manual alignment; their actions are in `panel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QListWidget, QSlider, QWidget

from napari_mosaik.core.catalogue import ALIGNMENT, STAIN_TITLES
from napari_mosaik.view.formatting import count, number
from napari_mosaik.widgets.base.controls import Collapsible, button, column, row, wrapped_label

if TYPE_CHECKING:
    from napari_mosaik.workflow.manual_alignment import ManualAlignment

__all__ = ["TITLES", "AlignForm"]

TITLES = {frame: STAIN_TITLES.get(frame, "PET") for frame in ALIGNMENT}
_LOOKS = (("Blend", "blend"), ("Checkerboard", "checkerboard"), ("Outline", "outline"))
_KINDS = (
    ("Similarity", "similarity"),
    ("Rigid", "rigid"),
    ("Affine", "affine"),
)
_KEYS = (
    "Keys: arrow keys move by 10 µm, with Shift by 100 µm; , and . rotate by 0.5°, with Shift by "
    "5°; - and + scale by 1 %; Ctrl+Z and Ctrl+Shift+Z undo and redo."
)
_LANDMARK_TIP = (
    "Click a point on the section, then the same point on CD34; each is shown alone for its click"
)


class AlignForm(QFrame):
    """Section, overlay, moves, landmarks, registration error, Accept and Cancel.

    ``asked`` carries the action of a button; ``used`` whether manual alignment is active.
    """

    asked = Signal(str)
    used = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._choosing()
        self._moving()
        self._marking()
        self._ending()
        self._lay_out()

    def _ask(self, what: str) -> Callable[[], None]:
        return lambda: self.asked.emit(what)

    def _choosing(self) -> None:
        self.target = QComboBox()
        for frame, title in TITLES.items():
            self.target.addItem(f"{title} on CD34", frame)
        self.begin = button(
            "Align manually",
            self._ask("start"),
            "Move the section with the mouse, or set landmarks",
        )
        self.automatic = button(
            "Reset to automatic alignment",
            self._ask("reset_alignment"),
            "Discards the given alignment and runs the automatic registration",
        )
        self.message = wrapped_label(small=True)

    def _moving(self) -> None:
        self.look = QComboBox()
        for title, key in _LOOKS:
            self.look.addItem(title, key)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(50)
        self.opacity.setToolTip("Opacity of the section over CD34")
        self.move_button = button("Move", self._ask("move"), _KEYS)
        self.move_button.setCheckable(True)
        self.undo_button = button("Undo", self._ask("undo"), "Ctrl+Z")
        self.redo_button = button("Redo", self._ask("redo"), "Ctrl+Shift+Z")
        self.flip_button = button(
            "Flip horizontally", self._ask("flip_horizontally"), "Mirrors the section"
        )
        self.hint = wrapped_label(small=True)
        self.figures = wrapped_label()

    def _marking(self) -> None:
        self.landmark_button = button("Set landmarks", self._ask("mark"), _LANDMARK_TIP)
        self.landmark_button.setCheckable(True)
        self.list = QListWidget()
        self.list.setMaximumHeight(120)
        self.warnings = wrapped_label(small=True)
        self.delete_button = button(
            "Delete", self._ask("delete_landmark"), "Deletes the selected landmark"
        )
        self.swap_button = button(
            "Swap landmark pair",
            self._ask("swap_landmarks"),
            "Swaps the two landmarks on CD34 that appear to be interchanged",
        )
        self.kind = QComboBox()
        for title, key in _KINDS:
            self.kind.addItem(title, key)
        self.kind.setToolTip("Similarity: rotation, shift, scale. Rigid: rotation, shift.")
        self.fit_button = button(
            "Fit to landmarks", self._ask("fit"), "Least-squares fit to all pairs"
        )

    def _ending(self) -> None:
        self.transform_button = button(
            "Import transform…",
            self._ask("choose_transform"),
            "Matrix of another program: 3 × 3, (row, column) in µm",
        )
        self.landmarks_button = button(
            "Import landmarks…",
            self._ask("choose_landmarks"),
            "Two CSV files with columns X and Y in pixels",
        )
        self.accept_button = button(
            "Accept", self._ask("accept"), "Saves this alignment and updates the registration"
        )
        self.cancel_button = button("Cancel", self._ask("leave"), "Discards the changes")

    def _lay_out(self) -> None:
        self.hand = QWidget()
        marks = Collapsible(
            "Landmarks",
            _framed(
                row(self.landmark_button, self.delete_button, self.swap_button, 1),
                self.list,
                self.warnings,
                row(self.kind, self.fit_button),
            ),
            opened=True,
        )
        self.hand.setLayout(
            column(
                row(self.look, self.opacity),
                row(self.move_button, self.flip_button, self.undo_button, self.redo_button, 1),
                self.hint,
                self.figures,
                marks,
                row(self.transform_button, self.landmarks_button, 1),
                row(self.accept_button, self.cancel_button, 1),
            )
        )
        self.setLayout(
            column(
                wrapped_label("Manual alignment", bold=True),
                row(self.target, self.begin, 1),
                row(self.automatic, 1),
                self.message,
                self.hand,
                margin=6,
            )
        )

    # --- landmarks ------------------------------------------------------------------------------
    @property
    def frame(self) -> str:
        """The section being aligned: "he", "caix" or "pet"."""
        return str(self.target.currentData())

    def show_landmarks(self, alignment: ManualAlignment | None) -> None:
        """List the landmarks with their residuals and warnings."""
        chosen = self.list.currentRow()
        self.list.clear()
        lines: list[str] = []
        if alignment is not None:
            residuals = alignment.residuals_um()
            for n, residual in enumerate(residuals, 1):
                self.list.addItem(f"{n}: residual {number(residual, 'µm')}")
            if alignment.now.unpaired is not None:
                self.list.addItem(f"{len(residuals) + 1}: no partner on CD34 yet")
            self.list.setCurrentRow(min(chosen, self.list.count() - 1))
            warnings = alignment.now.landmarks.warnings(self.kind.currentData())
            lines = [f"⚠ {text}" for text in warnings]
            if len(residuals):
                middle = number(float(np.median(residuals)), "µm")
                lines.append(f"{count(len(residuals), 'pair')}, median residual {middle}")
        self.warnings.setText("\n".join(lines))
        self.warnings.setVisible(bool(lines))

    def swapped_pair(self, alignment: ManualAlignment | None) -> tuple[int, int] | None:
        """The first two landmarks that appear to be interchanged."""
        if alignment is None:
            return None
        for one in alignment.now.landmarks.outliers(self.kind.currentData()):
            if one.swapped_with is not None:
                return one.row, one.swapped_with
        return None

    def show_buttons(self, alignment: ManualAlignment | None) -> None:
        """Enable the buttons that apply."""
        n = 0 if alignment is None else len(alignment.now.landmarks)
        self.undo_button.setEnabled(alignment is not None and alignment.can_undo)
        self.redo_button.setEnabled(alignment is not None and alignment.can_redo)
        self.delete_button.setEnabled(self.list.currentRow() >= 0)
        self.swap_button.setEnabled(self.swapped_pair(alignment) is not None)
        self.fit_button.setEnabled(n >= (3 if self.kind.currentData() == "affine" else 2))

    def hint_for(self, mode: str, alignment: ManualAlignment | None) -> str:
        """What the mouse does."""
        title = TITLES[self.frame]
        if mode == "move":
            return f"Drag {title} to move it, Shift+drag to rotate it. {_KEYS}"
        if mode == "mark":
            waiting = alignment is not None and alignment.now.unpaired is not None
            target = "the same point on CD34" if waiting else f"a point on {title}"
            return f"Click {target}. Scroll to zoom."
        return "Drag to pan."


def _framed(*items: Any) -> QWidget:
    widget = QWidget()
    widget.setLayout(column(*items))
    return widget
