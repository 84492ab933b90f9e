"""Live preview: the result of a step in the visible region while its settings are changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from qtpy.QtCore import QObject, Signal
from superqt.utils import qthrottled

from napari_mosaik.core import Cancelled, MosaikError
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.presentation import step_view
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.widgets.canvas.camera import visible_um
from napari_mosaik.workflow.preview import PreviewMemory
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.core import Params, Transform
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.canvas.layer_board import LayerBoard
    from napari_mosaik.workflow.preview import Preview, RegionUm

__all__ = ["PREFIX", "LivePreview"]

PREFIX = "Preview: "
_CALM_MS = 30
"""Changes in quick succession, such as panning, are combined."""
_STALE_AFTER_S = 0.5
"""A preview that takes longer is abandoned if something has changed meanwhile."""

_Answer: TypeAlias = "tuple[Preview, Transform | None] | MosaikError | None"


@dataclass(frozen=True, slots=True)
class _Request:
    """What to preview, and when it was requested."""

    case: Case
    step: str
    params: Params
    corners: list[tuple[float, float]]
    session: int
    asked: int
    began: float


class LivePreview(QObject):
    """Keeps the preview of one step up to date with its settings and the visible region.

    ``message_changed`` carries the step's name and a line of text.  One preview is computed at a
    time; changes made meanwhile trigger the next one.  While a value is dragged, each finished
    preview is shown, so that the image follows.  ``took_s`` is the duration of the last one.
    """

    message_changed = Signal(str, str)

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self._board, self._controller, self._viewer = board, board.controller, board.viewer
        self.step = ""
        self.took_s = 0.0
        self._busy = False
        self._asked, self._session = 0, 0
        self._memory = PreviewMemory()
        self._hidden: list[Layer] = []
        self._compute_soon = qthrottled(self._compute, timeout=_CALM_MS, leading=False, parent=self)
        events = self._controller.workspace.events
        events.recipe.connect(self._again)
        events.case.connect(self.stop)
        camera = self._viewer.scene.camera.events
        camera.center.connect(self._again)
        camera.zoom.connect(self._again)

    def start(self, step: str) -> None:
        """Start the preview of a step and end any other."""
        self.stop()
        if self._controller.workspace.case is None:
            return
        self.step = step
        stain = step_named(step).previews
        self._board.show_slide(stain)
        written = {artifact.name for artifact in step_named(step).writes}
        for spec in [spec for spec in self._board.specs.values() if spec.result in written]:
            layer = self._board.layer(spec.name)
            if layer is not None and layer.visible:
                layer.visible = False
                self._hidden.append(layer)
        self.message_changed.emit(step, "computing…")
        self._compute()

    def stop(self, *_: object) -> None:
        """End the preview and restore the layers that it had hidden."""
        step, self.step = self.step, ""
        self._compute_soon.cancel()
        self._session += 1
        self._forget()
        for layer in [layer for layer in self._viewer.layers if layer.name.startswith(PREFIX)]:
            self._viewer.layers.remove(layer)
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self._hidden = []
        if step:
            self.message_changed.emit(step, "")

    def _again(self, *_: object) -> None:
        if self.step:
            self._asked += 1
            self._compute_soon()

    def _forget(self) -> None:
        """Close the slide once nothing reads from it."""
        if not self.step and not self._busy:
            self._memory.close()

    def _compute(self) -> None:
        case = self._controller.workspace.case
        if not self.step or case is None or self._busy:
            return
        low, high = visible_um(self._viewer)
        corners = list(product(*zip(low, high, strict=True)))
        params = self._controller.workspace.recipe[self.step]
        now = time.monotonic()
        request = _Request(case, self.step, params, corners, self._session, self._asked, now)
        self._busy = True
        task = self._controller.read(
            "Preview", partial(self._work, request), partial(self._done, request)
        )
        task.failed.connect(self._failed)

    def _work(self, request: _Request) -> _Answer:
        """In the background: the preview with its transform, an error to report, or None."""
        try:
            return _compute_preview(request, partial(self._is_outdated, request), self._memory)
        except Cancelled:
            return None
        except MosaikError as error:
            return error

    def _is_outdated(self, request: _Request) -> bool:
        late = request.asked != self._asked and time.monotonic() - request.began > _STALE_AFTER_S
        return late or request.session != self._session

    def _done(self, request: _Request, answer: _Answer) -> None:
        self._busy = False
        self._forget()
        if request.session != self._session:
            self._compute()
            return
        self.took_s = time.monotonic() - request.began
        if isinstance(answer, MosaikError):
            self.message_changed.emit(request.step, str(answer))
        elif answer is not None:
            self._show(request.step, *answer)
        if request.asked != self._asked:
            self._compute_soon()

    def _failed(self, *_: object) -> None:
        self._busy = False
        self._forget()

    def _show(self, name: str, result: Preview, transform: Transform | None) -> None:
        view = step_view(name)
        if view.preview_layers is not None:
            for spec in view.preview_layers(result.results, transform):
                self._put(replace(spec, name=PREFIX + spec.name[:1].lower() + spec.name[1:]))
        if view.preview_line is not None:
            self.message_changed.emit(name, view.preview_line(result))

    def _put(self, spec: LayerSpec) -> None:
        from napari.layers import Layer as Base

        spec = replace(spec, result="", data=_compact(spec.data))
        if spec.name in self._viewer.layers:
            layer = self._viewer.layers[spec.name]
            if not _both_empty(layer.data, spec.data):
                layer.data = spec.data
            for key in ("scale", "translate", "affine"):  # each assignment redraws the layer
                if not np.array_equal(np.asarray(getattr(layer, key)), spec.place[key]):
                    setattr(layer, key, spec.place[key])
            if "features" in spec.style:
                layer.features = spec.style["features"]
            return
        layer = Base.create(*spec.as_layer_data())
        for key, value in spec.attributes.items():
            setattr(layer, key, value)
        layer.editable = False
        self._viewer.add_layer(layer)


def _both_empty(shown: Any, new: Any) -> bool:
    """Whether both are empty label images of the same size, so that nothing needs redrawing."""
    both = [np.asarray(one) for one in (shown, new)]
    return both[0].shape == both[1].shape and not any(one.any() for one in both)


def _compact(labels: Any) -> Any:
    """The same labels in 16 bits if they fit: napari colours them in half the time."""
    values = np.asarray(labels)
    return values.astype(np.uint16) if values.max(initial=0) < 2**16 else values


def _compute_preview(
    request: _Request, stop: Callable[[], bool], memory: PreviewMemory
) -> tuple[Preview, Transform | None]:
    from napari_mosaik.workflow.preview import preview

    step = step_named(request.step)
    transform = transform_to_reference(request.case, step.previews)
    points = np.asarray(request.corners, float)
    if transform is not None:
        points = transform.inverse().apply(points)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    region: RegionUm = ((float(low[0]), float(low[1])), (float(size[0]), float(size[1])))
    return preview(request.case, step, request.params, region, stop, memory), transform
