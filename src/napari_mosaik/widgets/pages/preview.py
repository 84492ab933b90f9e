"""Live preview: the result of a step in the visible region while its settings are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from qtpy.QtCore import Signal

from napari_mosaik.core import MosaikError
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.presentation import step_view
from napari_mosaik.widgets.canvas.live_layers import Corners, LiveLayers, Stop, region_on_slide
from napari_mosaik.workflow.preview import PreviewMemory
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari_mosaik.core import Params, Transform
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.canvas.layer_board import LayerBoard
    from napari_mosaik.workflow.preview import Preview

__all__ = ["PREFIX", "LivePreview"]

PREFIX = "Preview: "
_Found: TypeAlias = "tuple[str, Preview, Transform | None]"


class LivePreview(LiveLayers):
    """Keeps the preview of one step up to date with its settings and the visible region.

    ``message_changed`` carries the step's name and a line of text.
    """

    message_changed = Signal(str, str)

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self.step = ""
        self._memory = PreviewMemory()
        events = self.controller.workspace.events
        events.recipe.connect(self.again)
        events.case.connect(self.stop)

    @property
    def is_on(self) -> bool:
        """Whether a step is previewed."""
        return bool(self.step)

    def start(self, step: str) -> None:
        """Start the preview of a step and end any other."""
        self.stop()
        if self.controller.workspace.case is None:
            return
        self.step = step
        self.board.show_slide(step_named(step).previews)
        self.message_changed.emit(step, "computing…")
        self.begin(artifact.name for artifact in step_named(step).writes)

    def stop(self, *_: object) -> None:
        """End the preview and restore the layers that it had hidden."""
        step, self.step = self.step, ""
        self.end()
        if step:
            self.message_changed.emit(step, "")

    def forget(self) -> None:
        """Close the slide once nothing reads from it."""
        self._memory.close()

    def prepared(self) -> Callable[[Stop], _Found] | None:
        """The preview with the present settings."""
        case, step = self.controller.workspace.case, self.step
        if case is None:
            return None
        params = self.controller.workspace.recipe[step]
        return partial(_preview, case, step, params, self.corners(), self._memory)

    def show_result(self, result: _Found | MosaikError) -> None:
        """Show the layers of the preview and its line of text."""
        if isinstance(result, MosaikError):
            self.message_changed.emit(self.step, str(result))
            return
        name, found, transform = result
        view = step_view(name)
        if view.preview_layers is not None:
            for spec in view.preview_layers(found.results, transform):
                self.put(replace(spec, name=PREFIX + spec.name[:1].lower() + spec.name[1:]))
        if view.preview_line is not None:
            self.message_changed.emit(name, view.preview_line(found))


def _preview(
    case: Case, name: str, params: Params, corners: Corners, memory: PreviewMemory, stop: Stop
) -> _Found:
    from napari_mosaik.workflow.preview import preview

    step = step_named(name)
    transform = transform_to_reference(case, step.previews)
    region = region_on_slide(corners, transform)
    return name, preview(case, step, params, region, stop, memory), transform
