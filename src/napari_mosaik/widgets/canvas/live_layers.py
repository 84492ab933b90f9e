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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from qtpy.QtCore import QObject
from superqt.utils import qthrottled

from napari_mosaik.core import Cancelled, MosaikError
from napari_mosaik.view.spec import LayerSpec
from napari_mosaik.widgets.canvas.camera import visible_um

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mosaik.core import Transform
    from napari_mosaik.widgets.canvas.layer_board import LayerBoard
    from napari_mosaik.workflow.preview import RegionUm

__all__ = ["LiveLayers", "region_on_slide"]

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

    def __init__(self, board: LayerBoard) -> None:
        super().__init__(board)
        self.board, self.controller, self.viewer = board, board.controller, board.viewer
        self.took_s = 0.0
        self._busy = False
        self._asked, self._session = 0, 0
        self._shown: set[str] = set()
        self._hidden: list[Layer] = []
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
        layer = Base.create(*spec.as_layer_data())
        for key, value in spec.attributes.items():
            setattr(layer, key, value)
        layer.editable = False
        self.viewer.add_layer(layer)


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
