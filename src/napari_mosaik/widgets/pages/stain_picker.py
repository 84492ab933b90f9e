"""Pick the colours of haematoxylin and DAB from the CD34 slide, on the page 'Vessels'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from napari_mosaik.core import MosaikError
from napari_mosaik.widgets.base.controls import button, column, row, wrapped_label
from napari_mosaik.widgets.correct.correct_tool import CorrectTool
from napari_mosaik.workflow.steps.vessels import FIND_VESSELS

if TYPE_CHECKING:
    from napari_mosaik.core import Params
    from napari_mosaik.segment import VesselParams
    from napari_mosaik.widgets.canvas.link import CanvasLink
    from napari_mosaik.workflow.picking import Picked

__all__ = ["StainPicker"]

_STEP = FIND_VESSELS.name
_TITLES = {"haematoxylin": "Haematoxylin", "dab": "DAB"}
_HINTS = {
    "haematoxylin": "Click a blue nucleus without brown over it, or drag around one.",
    "dab": "Click a piece of brown wall without a nucleus below it, or drag around one.",
}


class StainPicker(QWidget):
    """Two tools that fill the stain vectors of the vessels, and the colours now in use.

    A pick changes the settings as typing them would; 'Undo pick' brings back those before it,
    'From the slide' those that the program finds itself.
    """

    def __init__(self, link: CanvasLink) -> None:
        super().__init__()
        self._board, self._controller = link.board, link.board.controller
        self.tool = CorrectTool(link)
        self._before: list[Params] = []
        self._busy = False
        self._said = ""
        self.buttons = {
            stain: button(f"Pick {title[0].lower() + title[1:] if stain != 'dab' else title}",
                          lambda stain=stain: self.toggle(stain), _HINTS[stain])
            for stain, title in _TITLES.items()
        }  # fmt: skip
        self.undo = button("Undo pick", self.take_back, "Brings back the colours before the pick")
        self.own = button(
            "From the slide", self.use_own, "Let the program find the colours on the slide again"
        )
        self.line, self.hint = wrapped_label(small=True), wrapped_label(small=True)
        self.setLayout(
            column(
                self.line,
                row(*self.buttons.values(), 1),
                row(self.undo, self.own, 1),
                self.hint,
            )
        )
        self.tool.keys = {"Escape": lambda: self.tool.take("")}
        self.tool.changed.connect(self._show)
        self.tool.clicked.connect(lambda place: self._pick([place]))
        self.tool.drawn.connect(self._pick)
        events = self._controller.workspace.events
        events.case.connect(self._case_changed)
        for signal in (events.recipe, events.states):
            signal.connect(self._show)
        self._show()

    def toggle(self, stain: str) -> None:
        """Take the tool for "haematoxylin" or "dab", or put it away again."""
        case = self._controller.workspace.case
        if case is None or self._busy:
            return
        self._said = ""
        if self.tool.mode != stain:
            self._board.show_slide("cd34")
        self.tool.take("" if self.tool.mode == stain else stain)

    def stop(self) -> None:
        """Put the tool away."""
        if self.tool.mode:
            self.tool.take("")

    def shut(self) -> None:
        """Leave the viewer as it was found; called when the window closes."""
        self.tool.shut()

    def _case_changed(self, *_: Any) -> None:
        self.stop()
        self._before, self._said = [], ""
        self._show()

    def _pick(self, place: Any) -> None:
        """Read the place in the background, then change the settings, or say why not."""
        case, stain = self._controller.workspace.case, self.tool.mode
        if case is None or self._busy or stain not in _TITLES:
            return
        params: Any = self._controller.workspace.recipe[_STEP]
        self._busy = True

        def work() -> Any:
            from napari_mosaik.workflow.picking import pick_vessel_stain

            try:
                return pick_vessel_stain(case, stain, place, params)  # type: ignore[arg-type]
            except MosaikError as error:
                return error

        task = self._controller.read(
            "Pick a stain", work, lambda answer: self._picked(case, answer)
        )
        task.failed.connect(self._freed)

    def _freed(self, *_: Any) -> None:
        self._busy = False

    def _picked(self, case: Any, answer: Picked | MosaikError) -> None:
        self._busy = False
        space = self._controller.workspace
        if case is not space.case:
            return
        if isinstance(answer, MosaikError):
            self._said = f"⚠ {answer}"
            self._show()
            return
        found = answer.picked
        self._said = (
            f"{_TITLES[found.stain]} picked from {found.pixels} pixels, {found.angle_deg:.0f}° "
            f"from the usual colour. The other stain: {answer.other}."
        )
        self._before.append(space.recipe[_STEP])
        self.tool.take("")
        self._controller.set_params(_STEP, answer.params)
        self._show()

    def take_back(self) -> None:
        """Bring back the colours before the last pick; other settings stay as they are."""
        if self._before:
            before: Any = self._before.pop()
            self._change(
                "The pick is taken back.",
                stains=before.stains,
                haematoxylin_vector=before.haematoxylin_vector,
                dab_vector=before.dab_vector,
            )

    def use_own(self) -> None:
        """Let the program find the colours on the slide."""
        self._before = []
        self._change("The program finds the colours on the slide.", stains="slide")

    def _change(self, said: str, **values: Any) -> None:
        self.stop()
        self._said = said
        now = self._controller.workspace.recipe[_STEP]
        self._controller.set_params(_STEP, now.model_copy(update=values))
        self._show()

    def _show(self, *_: Any) -> None:
        space = self._controller.workspace
        params: Any = space.recipe.get(_STEP)
        opened = space.case is not None and params is not None
        for stain, made in self.buttons.items():
            made.setCheckable(True)
            made.setChecked(self.tool.mode == stain)
            made.setEnabled(opened)
        self.undo.setVisible(bool(self._before))
        self.own.setVisible(opened and params.stains != "slide")
        self.line.setText(self._colours(params) if opened else "")
        said = self._said
        if self.tool.mode and not said.startswith("⚠"):
            said = f"{_HINTS[self.tool.mode]} Escape leaves the colours as they are."
        self.hint.setText(said)
        self.hint.setVisible(bool(said))

    def _colours(self, params: VesselParams) -> str:
        """The colours in use as coloured squares with their numbers, and where they come from."""
        from napari_mosaik.segment.stain_sampling import stain_colour
        from napari_mosaik.workflow.picking import stains_in_use

        case = self._controller.workspace.case
        assert case is not None
        vectors, source = stains_in_use(case, params)
        parts = [
            f"<span style='color:{stain_colour(vector)}'>■</span>&nbsp;{_TITLES[name]}&nbsp;"
            + "&nbsp;".join(f"{value:.2f}" for value in vector)
            for name, vector in vectors.items()
        ]
        return f"Stain colours, {source} (optical density in red, green, blue):<br>" + "<br>".join(
            parts
        )
