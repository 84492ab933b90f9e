"""Live prediction: the tissue classes of the visible region follow the strokes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from qtpy.QtCore import Signal

from napari_mosaik.core import MosaikError
from napari_mosaik.core.catalogue import CLASSES
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.layers import ANNOTATIONS_TITLE, classes_layer
from napari_mosaik.widgets.canvas.live_layers import Corners, LiveLayers, Stop, region_on_slide
from napari_mosaik.workflow.live_classes import LiveClasses, LivePrediction

if TYPE_CHECKING:
    from napari_mosaik.core import Transform
    from napari_mosaik.core.shapes import AnnotatedShape
    from napari_mosaik.widgets.annotate.annotation import Annotation
    from napari_mosaik.widgets.canvas.layer_board import LayerBoard

__all__ = ["LIVE_TITLE", "LiveTissue"]

LIVE_TITLE = "Live prediction"
_Found: TypeAlias = "tuple[LivePrediction, Transform | None]"


class LiveTissue(LiveLayers):
    """A layer of tissue classes that are predicted from the annotations as they are now.

    ``told`` carries a line of text: what it was predicted from, or what is missing.
    """

    told = Signal(str)

    def __init__(self, board: LayerBoard, annotation: Annotation) -> None:
        super().__init__(board)
        self.wanted = False
        self._annotation = annotation
        self._classes: LiveClasses | None = None
        self._names: tuple[str, ...] = ()
        annotation.changed.connect(self.again)
        annotation.opened.connect(self._opened)

    @property
    def is_on(self) -> bool:
        """Whether it is wanted and there are annotations to predict from."""
        return self.wanted and self._annotation.document is not None

    def set_wanted(self, wanted: bool) -> None:
        """Begin or end."""
        self.wanted = wanted
        self._opened()

    def shut(self) -> None:
        """End, and free what is kept."""
        self.wanted = False
        self._opened()

    def _opened(self) -> None:
        """Another document: predict for its case, or end."""
        case = self.controller.workspace.case if self.is_on else None
        if self._classes is not None and self._classes.case is not case:
            ended, self._classes = self._classes, None
            self.end()
            self.controller.read("Live prediction", ended.close, lambda _: None)
        self.told.emit("")
        if case is None:
            return
        if self._classes is not None:
            self.again()
            return
        made = self._classes = LiveClasses(case, self.controller.workspace.cohort)
        self.told.emit("Live prediction: reading the slide…")
        self.controller.read("Live prediction", made.read_others, self.again)
        self.begin([CLASSES.name])

    def prepared(self) -> Callable[[Stop], _Found] | None:
        """The prediction from the present annotations."""
        document = self._annotation.document
        if self._classes is None or document is None:
            return None
        return partial(_predicted, self._classes, document.shapes, self.corners())

    def show_result(self, result: _Found | MosaikError) -> None:
        """Show the classes below the annotations."""
        if isinstance(result, MosaikError):
            self.told.emit(f"Live prediction: {result}")
            return
        found, transform = result
        spec = replace(classes_layer(found.classes, transform), name=LIVE_TITLE)
        names = tuple(found.classes.names.values())
        if names != self._names and LIVE_TITLE in self.viewer.layers:  # a class, a colour more
            self.viewer.layers.remove(LIVE_TITLE)
        self._names = names
        new = LIVE_TITLE not in self.viewer.layers
        self.put(spec)
        if new and ANNOTATIONS_TITLE in self.viewer.layers:
            layers = self.viewer.layers
            layers.move(layers.index(LIVE_TITLE), layers.index(ANNOTATIONS_TITLE))
        where = "" if found.whole else ", middle of the view only"
        self.told.emit(
            f"Live prediction from {count(found.n_shapes, 'annotation')} here and "
            f"{count(found.n_cases, 'case')} in all, {number(self.took_s, 's', digits=2)}{where}. "
            "Not stored: Retrain makes it a model."
        )


def _predicted(
    classes: LiveClasses, shapes: tuple[AnnotatedShape, ...], corners: Corners, stop: Stop
) -> _Found:
    transform = transform_to_reference(classes.case, "he")
    return classes.predict(shapes, region_on_slide(corners, transform), stop), transform
