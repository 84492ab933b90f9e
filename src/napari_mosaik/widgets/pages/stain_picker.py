"""Pick the stain vectors of haematoxylin and DAB on the CD34 slide, on the page 'Vessels'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import VESSELS
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.canvas.active_tool import ToolMode
from napari_mosaik.widgets.canvas.path_tool import PathTool
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mosaik.core import Params
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.workflow.picking import Picked, VesselParams

__all__ = ["StainPicker"]

_STEP = maker_of(VESSELS).name
_TITLES = {"haematoxylin": "Haematoxylin", "dab": "DAB"}


class StainTool(PathTool):
    """Samples a stain by a click, or by dragging around a region."""

    name = "stain-sampling"
    modes = {  # noqa: RUF012
        "haematoxylin": ToolMode(
            "Pick haematoxylin", "Click a blue nucleus without DAB, or drag around one."
        ),
        "dab": ToolMode(
            "Pick DAB", "Click DAB-positive vessel wall without a nucleus, or drag around it."
        ),
    }

    def actions(self) -> Mapping[str, Callable[[], Any]]:
        """Escape ends it."""
        return {"end": self.release}


class StainPicker(QWidget):
    """Two tools that set the stain vectors of the vessel step, and the vectors in use.

    A pick changes the settings of the step; 'Undo pick' restores the previous ones, 'Estimate from
    slide' returns to automatic estimation.
    """

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._board, self._controller = link.board, link.board.controller
        self.tool = link.tool(StainTool)
        self._previous: list[Params] = []
        self._busy = False
        self._message = ""
        self.buttons = {
            stain: button(mode.title, partial(self.toggle, stain), mode.hint)
            for stain, mode in StainTool.modes.items()
        }
        self.undo = button(
            "Undo pick", self.undo_pick, "Restore the stain vectors before the last pick"
        )
        self.automatic = button(
            "Estimate from slide", self.use_automatic, "Estimate the stain vectors automatically"
        )
        self.line, self.hint = wrapped_label(small=True), wrapped_label(small=True)
        self.setLayout(
            column(
                self.line,
                row(*self.buttons.values(), 1),
                row(self.undo, self.automatic, 1),
                self.hint,
            )
        )
        self.tool.changed.connect(self._show)
        self.tool.clicked.connect(lambda place: self._pick([place]))
        self.tool.drawn.connect(self._pick)
        events = self._controller.workspace.events
        events.case.connect(self._case_changed)
        for signal in (events.recipe, events.states):
            signal.connect(self._show)
        self._show()

    def toggle(self, stain: str) -> None:
        """Switch the tool for "haematoxylin" or "dab" on or off."""
        case = self._controller.workspace.case
        if case is None or self._busy:
            return
        self._message = ""
        self.tool.toggle(stain)
        if self.tool.is_active:
            self._board.show_slide("cd34")

    def _case_changed(self, *_: object) -> None:
        self.tool.release()
        self._previous, self._message = [], ""
        self._show()

    def _pick(self, place: Sequence[tuple[float, float]]) -> None:
        """Sample the stain in the background, then change the settings or show the error."""
        case, stain = self._controller.workspace.case, self.tool.mode
        if case is None or stain not in _TITLES:
            return
        if self._busy:
            self._message = "⚠ The previous pick is still being sampled; pick again"
            self._show()
            return
        params: Any = self._controller.workspace.recipe[_STEP]
        self._busy = True

        def work() -> Picked | MosaikError:
            from napari_mosaik.workflow.picking import pick_vessel_stain

            try:
                return pick_vessel_stain(case, stain, place, params)  # type: ignore[arg-type]
            except MosaikError as error:
                return error

        task = self._controller.read(
            "Stain picking", work, lambda answer: self._picked(case, answer)
        )
        task.failed.connect(self._unlock)

    def _unlock(self, *_: object) -> None:
        self._busy = False

    def _picked(self, case: Case, answer: Picked | MosaikError) -> None:
        self._busy = False
        space = self._controller.workspace
        if case is not space.case:
            return
        if isinstance(answer, MosaikError):
            self._message = f"⚠ {answer}"
            self._show()
            return
        picked = answer.picked
        self._message = (
            f"{_TITLES[picked.stain]} picked from {picked.pixels} pixels, {picked.angle_deg:.0f}° "
            f"from the reference vector. Other stain: {answer.other}."
        )
        self._previous.append(space.recipe[_STEP])
        self.tool.release()
        self._controller.set_params(_STEP, answer.params)
        self._show()

    def undo_pick(self) -> None:
        """Restore the stain vectors before the last pick; other settings stay unchanged."""
        if self._previous:
            previous: Any = self._previous.pop()
            self._change(
                "Pick undone.",
                stains=previous.stains,
                haematoxylin_vector=previous.haematoxylin_vector,
                dab_vector=previous.dab_vector,
            )

    def use_automatic(self) -> None:
        """Return to automatic estimation of the stain vectors."""
        self._previous = []
        self._change("Stain vectors are estimated from the slide.", stains="slide")

    def _change(self, message: str, **values: Any) -> None:
        self.tool.release()
        self._message = message
        now = self._controller.workspace.recipe[_STEP]
        self._controller.set_params(_STEP, now.model_copy(update=values))
        self._show()

    def _show(self, *_: object) -> None:
        space = self._controller.workspace
        params: Any = space.recipe.get(_STEP)
        opened = space.case is not None and params is not None
        for stain, made in self.buttons.items():
            made.setCheckable(True)
            made.setChecked(self.tool.mode == stain)
            made.setEnabled(opened)
        self.undo.setVisible(bool(self._previous))
        self.automatic.setVisible(opened and params.stains != "slide")
        self.line.setText(self._colours(params) if opened else "")
        message = self._message
        if self.tool.mode and not message.startswith("⚠"):
            message = f"{self.tool.hint} Press Escape to cancel."
        self.hint.setText(message)
        self.hint.setVisible(bool(message))

    def _colours(self, params: VesselParams) -> str:
        """The stain vectors in use, with a colour sample each, and their source."""
        from napari_mosaik.workflow.picking import stain_colour, stains_in_use

        case = self._controller.workspace.case
        assert case is not None
        vectors, source = stains_in_use(case, params)
        parts = [
            f"<span style='color:{stain_colour(vector)}'>■</span>&nbsp;{_TITLES[name]}&nbsp;"
            + "&nbsp;".join(f"{value:.2f}" for value in vector)
            for name, vector in vectors.items()
        ]
        return f"Stain vectors, {source} (direction in R, G, B):<br>" + "<br>".join(parts)
