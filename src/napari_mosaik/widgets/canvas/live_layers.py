"""Layers of the visible region that follow what they depend on: the camera, settings, strokes.

change ─► again ─► (combined) ─► work on a thread ─► shown on the window's thread
                       ▲ one at a time; what changed meanwhile asks for the next one
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from qtpy.QtCore import QObject, Signal
from superqt.utils import qthrottled

from napari_mosaik.core import Cancelled, MosaikError
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.presentation import step_view
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.widgets.base.gc_tuning import (
    Turns,
    add_hidden,
    in_one_update,
    without_drawing,
)
from napari_mosaik.widgets.canvas.camera import visible_um
from napari_mosaik.workflow.preview import PreviewMemory
from napari_mosaik.workflow.steps import step_named

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.core import Params, Transform
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.canvas.case_layers import CaseLayers
    from napari_mosaik.workflow.preview import Preview, RegionUm

__all__ = ["PREFIX", "LiveLayers", "LivePreview", "region_on_slide"]

_CALM_MS = 30
"""Changes in quick succession, such as panning, are combined."""
_STALE_AFTER_S = 0.5
"""A result that takes longer is abandoned if something has changed meanwhile."""

Stop = Callable[[], bool]
T = TypeVar("T")
Corners = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Request:
    """One computation: what was valid when it was asked for."""

    session: int
    asked: int
    began: float


class LiveLayers(QObject):
    """Computes layers of the visible region in the background; the latest request wins.

    One computation runs at a time; changes made meanwhile trigger the next one.  While something
    changes continually, each finished result is shown, so that the image follows.  ``took_s`` is
    the duration of the last one.
    """

    def __init__(self, board: CaseLayers) -> None:
        super().__init__(board)
        self.board, self.controller, self.viewer = board, board.controller, board.viewer
        self.took_s = 0.0
        self._busy = False
        self._asked, self._session = 0, 0
        self._shown: set[str] = set()
        self._hidden: list[Layer] = []
        self._turns = Turns(self)
        self._compute_soon = qthrottled(self.compute, timeout=_CALM_MS, leading=False, parent=self)
        camera = self.viewer.scene.camera.events
        camera.center.connect(self.again)
        camera.zoom.connect(self.again)

    # --- what is computed -----------------------------------------------------------------------
    @property
    def is_on(self) -> bool:
        """Whether layers are to be computed."""
        raise NotImplementedError

    def prepared(self) -> Callable[[Stop], Any] | None:
        """The work for the present state, to be called on a thread; None where there is none.

        It is given a function that says whether it is asked to stop.
        """
        raise NotImplementedError

    def show_result(self, result: Any) -> None:
        """Show what the work returned, or a `MosaikError` that it raised."""
        raise NotImplementedError

    def forget(self) -> None:
        """Free what is kept, once nothing is computed and nothing is to be."""

    # --- one at a time --------------------------------------------------------------------------
    def begin(self, covered: Iterable[str]) -> None:
        """Start, and hide the layers of the results with these names."""
        names = set(covered)
        for spec in [spec for spec in self.board.specs.values() if spec.result in names]:
            layer = self.board.layer(spec.name)
            if layer is not None and layer.visible:
                layer.visible = False
                self._hidden.append(layer)
        self.compute()

    def end(self) -> None:
        """Remove the layers and show again those that were hidden; `is_on` is false already."""
        self._compute_soon.cancel()
        self._session += 1
        self._forget()
        with in_one_update(self.viewer):
            for layer in [layer for layer in self.viewer.layers if layer.name in self._shown]:
                self.viewer.layers.remove(layer)
            for layer in self._hidden:
                if layer in self.viewer.layers:
                    layer.visible = True
        self._hidden, self._shown = [], set()

    def again(self, *_: object) -> None:
        """Something has changed: compute again soon."""
        if self.is_on:
            self._asked += 1
            self._compute_soon()

    def corners(self) -> Corners:
        """Corners of the visible region on the canvas (row, column), µm."""
        return list(product(*zip(*visible_um(self.viewer), strict=True)))

    def compute(self) -> None:
        """Compute now, unless something is being computed."""
        if not self.is_on or self._busy:
            return
        work = self.prepared()
        if work is None:
            return
        request = _Request(self._session, self._asked, time.monotonic())
        self._busy = True
        task = self.controller.read(
            "Preview", partial(self._work, request, work), partial(self._done, request)
        )
        task.failed.connect(self._failed)

    def _work(self, request: _Request, work: Callable[[Stop], T]) -> T | MosaikError | None:
        """On a thread: the result, an error to report, or None."""
        try:
            return work(partial(self._is_outdated, request))
        except Cancelled:
            return None
        except MosaikError as error:
            return error

    def _is_outdated(self, request: _Request) -> bool:
        late = request.asked != self._asked and time.monotonic() - request.began > _STALE_AFTER_S
        return late or request.session != self._session

    def _done(self, request: _Request, result: Any) -> None:
        self._busy = False
        self._forget()
        if request.session != self._session:
            self.compute()
            return
        self.took_s = time.monotonic() - request.began
        if result is not None:
            with in_one_update(self.viewer):
                self.show_result(result)
        if request.asked != self._asked:
            self._compute_soon()

    def _failed(self, *_: object) -> None:
        self._busy = False
        self._forget()

    def _forget(self) -> None:
        if not self.is_on and not self._busy:
            self.forget()

    # --- showing --------------------------------------------------------------------------------
    def put(self, spec: LayerSpec) -> None:
        """Show a layer; one of the same name gets the new data."""
        from napari.layers import Layer as Base

        self._shown.add(spec.name)
        spec = replace(spec, result="", data=_compact(spec.data))
        if spec.name in self.viewer.layers:
            layer = self.viewer.layers[spec.name]
            if not _both_empty(layer.data, spec.data):
                layer.data = spec.data
            for key in ("scale", "translate", "affine"):  # each assignment redraws the layer
                if not np.array_equal(np.asarray(getattr(layer, key)), spec.place[key]):
                    setattr(layer, key, spec.place[key])
            if "features" in spec.style:
                layer.features = spec.style["features"]
            return
        layer = Base.create(*replace(spec, visible=False).as_layer_data())
        for key, value in spec.attributes.items():
            setattr(layer, key, value)
        layer.editable = False
        if spec.kind == "labels":
            without_drawing(layer)
        add_hidden(self.viewer, layer, len(self.viewer.layers))
        self._turns.soon(partial(self._reveal, layer, spec.visible))

    def _reveal(self, layer: Layer, visible: bool) -> None:
        """Show a layer that was added, in a turn of its own, unless it was removed meanwhile."""
        if layer in self.viewer.layers:
            layer.visible = visible


def region_on_slide(corners: Corners, transform: Transform | None) -> RegionUm:
    """The region (origin, size) of a slide, µm, that holds four corners on the canvas."""
    points = np.asarray(corners, float)
    if transform is not None:
        points = transform.inverse().apply(points)
    low, size = points.min(axis=0), np.ptp(points, axis=0)
    return (float(low[0]), float(low[1])), (float(size[0]), float(size[1]))


def _both_empty(shown: Any, new: Any) -> bool:
    """Whether both are empty label images of the same size, so that nothing needs redrawing."""
    both = [np.asarray(one) for one in (shown, new)]
    return both[0].shape == both[1].shape and not any(one.any() for one in both)


def _compact(labels: Any) -> Any:
    """The same labels in 16 bits if they fit: napari colours them in half the time."""
    values = np.asarray(labels)
    return values.astype(np.uint16) if values.max(initial=0) < 2**16 else values


# --- live preview ---------------------------------------------------------------------------------
PREFIX = "Preview: "
_Found: TypeAlias = "tuple[str, Preview, Transform | None]"


class LivePreview(LiveLayers):
    """Keeps the preview of one step up to date with its settings and the visible region.

    ``message_changed`` carries the step's name and a line of text.
    """

    message_changed = Signal(str, str)

    def __init__(self, board: CaseLayers) -> None:
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
