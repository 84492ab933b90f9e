"""Preview here: what the settings of a step find in the visible part, while they are changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

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
    from napari_mosaik.io.slide.read.stream import Region
    from napari_mosaik.widgets.canvas.layer_board import LayerBoard
    from napari_mosaik.workflow.preview import Preview

__all__ = ["PREFIX", "LivePreview"]

PREFIX = "Preview: "
_CALM_MS = 30
"""Changes that come together, such as a drag of the view, are taken as one."""
_PATIENCE_S = 0.5
"""A preview that takes longer is given up when something has changed meanwhile."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be previewed, and when it was asked for."""

    case: Case
    step: str
    params: Params
    corners: list[tuple[float, float]]
    session: int
    asked: int
    began: float


class LivePreview(QObject):
    """Keeps the preview of one step up to date with its settings and with what is visible.

    ``said`` carries the step's name and a line in words; one preview is computed at a time, and
    what has changed meanwhile is computed next.  While a value is dragged, each finished preview is
    shown, so that the picture follows.  ``took_s`` holds how long the last one took.
    """

    said = Signal(str, str)

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self._board, self._controller, self._viewer = board, board.controller, board.viewer
        self.step = ""
        self.took_s = 0.0
        self._busy = False
        self._asked, self._session = 0, 0
        self._memory = PreviewMemory()
        self._hidden: list[Layer] = []
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._compute)
        events = self._controller.workspace.events
        events.recipe.connect(self._again)
        events.case.connect(self.stop)
        camera = self._viewer.scene.camera.events
        camera.center.connect(self._again)
        camera.zoom.connect(self._again)

    def start(self, step: str) -> None:
        """Show the preview of a step; that of another one ends."""
        self.stop()
        if self._controller.workspace.case is None:
            return
        self.step = step
        stain = step_named(step).previews
        self._board.show_slide(stain)
        written = {artifact.name for artifact in step_named(step).writes}
        for spec in [spec for spec in self._board.specs.values() if spec.artifact in written]:
            layer = self._board.layer(spec.name)
            if layer is not None and layer.visible:
                layer.visible = False
                self._hidden.append(layer)
        self.said.emit(step, "computing…")
        self._compute()

    def stop(self, *_: Any) -> None:
        """End the preview and show what was shown before."""
        step, self.step = self.step, ""
        self._calm.stop()
        self._session += 1
        self._forget()
        for layer in [layer for layer in self._viewer.layers if layer.name.startswith(PREFIX)]:
            self._viewer.layers.remove(layer)
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self._hidden = []
        if step:
            self.said.emit(step, "")

    def _again(self, *_: Any) -> None:
        if self.step:
            self._asked += 1
            if not self._calm.isActive():
                self._calm.start()

    def _forget(self) -> None:
        """Close the slide once nothing reads it."""
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
        wish = _Wish(case, self.step, params, corners, self._session, self._asked, now)
        self._busy = True
        task = self._controller.read(
            "Preview", partial(self._work, wish), partial(self._done, wish)
        )
        task.failed.connect(self._failed)

    def _work(self, wish: _Wish) -> Any:
        """In the background: the preview with its transform, an error to be said, or nothing."""
        try:
            return _find(wish, partial(self._gives_up, wish), self._memory)
        except Cancelled:
            return None
        except MosaikError as error:
            return error

    def _gives_up(self, wish: _Wish) -> bool:
        late = wish.asked != self._asked and time.monotonic() - wish.began > _PATIENCE_S
        return late or wish.session != self._session

    def _done(self, wish: _Wish, answer: Any) -> None:
        self._busy = False
        self._forget()
        if wish.session != self._session:
            self._compute()
            return
        self.took_s = time.monotonic() - wish.began
        if isinstance(answer, MosaikError):
            self.said.emit(wish.step, str(answer))
        elif answer is not None:
            self._show(wish.step, *answer)
        if wish.asked != self._asked and not self._calm.isActive():
            self._calm.start()

    def _failed(self, *_: Any) -> None:
        self._busy = False
        self._forget()

    def _show(self, name: str, found: Preview, transform: Transform | None) -> None:
        view = step_view(name)
        if view.preview_layers is not None:
            for spec in view.preview_layers(found.results, transform):
                self._put(replace(spec, name=PREFIX + spec.name.lower()))
        if view.preview_line is not None:
            self.said.emit(name, view.preview_line(found))

    def _put(self, spec: LayerSpec) -> None:
        from napari.layers import Layer as Base

        spec = replace(spec, artifact="", data=_light(spec.data))
        if spec.name in self._viewer.layers:
            layer = self._viewer.layers[spec.name]
            if not _alike(layer.data, spec.data):
                layer.data = spec.data
            for key in ("scale", "translate", "affine"):  # each one draws the layer anew
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


def _alike(shown: Any, new: Any) -> bool:
    """Whether both are labels of the same size without any object: nothing is to be drawn."""
    both = [np.asarray(one) for one in (shown, new)]
    return both[0].shape == both[1].shape and not any(one.any() for one in both)


def _light(labels: Any) -> Any:
    """The same labels in 16 bits where they fit: napari colours them in half the time."""
    values = np.asarray(labels)
    return values.astype(np.uint16) if values.max(initial=0) < 2**16 else values


def _find(
    wish: _Wish, stop: Callable[[], bool], memory: PreviewMemory
) -> tuple[Preview, Transform | None]:
    from napari_mosaik.workflow.preview import preview

    step = step_named(wish.step)
    transform = transform_to_reference(wish.case, step.previews)
    points = np.asarray(wish.corners, float)
    if transform is not None:
        points = transform.inverse().apply(points)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    region: Region = ((float(low[0]), float(low[1])), (float(size[0]), float(size[1])))
    return preview(wish.case, step, wish.params, region, stop, memory), transform
