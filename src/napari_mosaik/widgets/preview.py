"""Preview here: what the settings of a step find in the visible part, while they are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mosaik.core import Cancelled, LabelImage, MosaikError
from napari_mosaik.core.catalogue import NUCLEI, VESSELS
from napari_mosaik.view import layers as view
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.view.words import count, number
from napari_mosaik.widgets.case_layers import transform_to_reference
from napari_mosaik.widgets.looking import visible_um
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.core import Artifact, Params, Transform
    from napari_mosaik.io.case import Case
    from napari_mosaik.io.slide.stream import Region
    from napari_mosaik.widgets.layer_board import LayerBoard
    from napari_mosaik.workflow.preview import Preview

__all__ = ["PREFIX", "LivePreview", "preview_line"]

PREFIX = "Preview: "
_CALM_MS = 120


@dataclass(frozen=True, slots=True)
class _Drawn:
    """How a label image is drawn and called."""

    layer: str
    one: str
    many: str
    draw: Callable[..., LayerSpec]


_DRAWN: dict[Artifact[LabelImage], _Drawn] = {
    VESSELS: _Drawn("Vessels", "vessel", "vessels", view.vessels_layer),
    NUCLEI: _Drawn("Nuclei", "nucleus", "nuclei", view.nuclei_layer),
}


class LivePreview(QObject):
    """Keeps the preview of one step up to date with its settings and with what is visible.

    ``said`` carries the step's name and a line in words; one preview is computed at a time, and
    what has changed meanwhile is computed next.
    """

    said = Signal(str, str)

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self._board, self._desk, self._viewer = board, board.desk, board.viewer
        self.step = ""
        self._busy = False
        self._asked = 0
        self._hidden: list[Layer] = []
        self._calm = QTimer(self)
        self._calm.setSingleShot(True)
        self._calm.setInterval(_CALM_MS)
        self._calm.timeout.connect(self._compute)
        events = self._desk.workspace.events
        events.recipe.connect(self._again)
        events.case.connect(self.stop)
        camera = self._viewer.scene.camera.events
        camera.center.connect(self._again)
        camera.zoom.connect(self._again)

    def start(self, step: str) -> None:
        """Show the preview of a step; that of another one ends."""
        self.stop()
        if self._desk.workspace.case is None:
            return
        self.step = step
        stain = step_named(step).previews
        self._board.show_slide(stain)
        for artifact in step_named(step).writes:
            if artifact in _DRAWN:
                layer = self._board.layer(_DRAWN[artifact].layer)
                if layer is not None and layer.visible:
                    layer.visible = False
                    self._hidden.append(layer)
        self.said.emit(step, "computing…")
        self._compute()

    def stop(self, *_: Any) -> None:
        """End the preview and show what was shown before."""
        step, self.step = self.step, ""
        self._calm.stop()
        self._asked += 1
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
            self._calm.start()

    def _compute(self) -> None:
        case = self._desk.workspace.case
        if not self.step or case is None or self._busy:
            return
        name, params = self.step, self._desk.workspace.recipe[self.step]
        low, high = visible_um(self._viewer)
        corners = list(product(*zip(low, high, strict=True)))
        self._asked += 1
        mine = self._asked
        self._busy = True

        def work() -> Any:
            try:
                return _find(case, name, params, corners, lambda: mine != self._asked)
            except Cancelled:
                return None
            except MosaikError as error:
                return error

        task = self._desk.read("Preview", work, lambda answer: self._found(name, mine, answer))
        task.failed.connect(self._failed)

    def _found(self, name: str, mine: int, answer: Any) -> None:
        self._busy = False
        if mine != self._asked:
            self._calm.start()
        elif isinstance(answer, MosaikError):
            self.said.emit(name, str(answer))
        elif answer is not None:
            self._show(name, *answer)

    def _failed(self, *_: Any) -> None:
        self._busy = False

    def _show(self, name: str, found: Preview, transform: Transform | None) -> None:
        for artifact, value in found.results.items():
            if artifact in _DRAWN and isinstance(value, LabelImage):
                spec = _DRAWN[artifact].draw(value, transform)
                self._put(replace(spec, name=PREFIX + spec.name.lower(), artifact=""))
        self.said.emit(name, preview_line(found))

    def _put(self, spec: LayerSpec) -> None:
        from napari.layers import Layer as Base

        if spec.name in self._viewer.layers:
            layer = self._viewer.layers[spec.name]
            layer.data = spec.data
            for key in ("scale", "translate", "affine"):
                setattr(layer, key, spec.place[key])
            return
        layer = Base.create(*spec.as_layer_data())
        for key, value in spec.attributes.items():
            setattr(layer, key, value)
        layer.editable = False
        self._viewer.add_layer(layer)


def _find(
    case: Case,
    name: str,
    params: Params,
    corners: list[tuple[float, float]],
    stop: Callable[[], bool],
) -> tuple[Preview, Transform | None]:
    from napari_mosaik.workflow.preview import preview

    step = step_named(name)
    transform = transform_to_reference(case, step.previews)
    points = np.asarray(corners, float)
    if transform is not None:
        points = transform.inverse().apply(points)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    region: Region = ((float(low[0]), float(low[1])), (float(size[0]), float(size[1])))
    return preview(case, step, params, region, stop), transform


def preview_line(found: Preview) -> str:
    """What a preview has found, in words."""
    lines = []
    for artifact, value in found.results.items():
        if artifact in _DRAWN and isinstance(value, LabelImage):
            labels = value.array()
            share = 100 * float((labels > 0).mean()) if labels.size else 0.0
            n = int(np.unique(labels[labels > 0]).size)
            drawn = _DRAWN[artifact]
            words = count(n, drawn.one, drawn.many)
            lines.append(f"Here: {words}, {share:.1f} % of the area.")
    if not found.whole:
        size = max(found.region[1]) / 1000
        lines.append(f"Only the middle {number(size, 'mm')} is computed: magnify to see all.")
    return " ".join(lines) or "Nothing to show here."
