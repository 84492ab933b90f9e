"""The wand off the window's thread: strokes grow in order, and none is lost.

    press, drag, wheel ─► stroke (seeds, tolerance) ─► pixels of the slide for the view ─► region
                       ◄─ outline so far, and the area when the button is up

The pixels are read from the slide at the pixel size of the screen; neither the display settings nor
what the canvas has loaded so far matter.  Those of the present view are read ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, Signal

from napari_mosaik.annotate import WAND_TOLERANCE, wand_area, wand_field
from napari_mosaik.core import Lattice

if TYPE_CHECKING:
    from napari_mosaik.annotate import AnnotationDocument, Area
    from napari_mosaik.widgets.base.case_controller import CaseController
    from napari_mosaik.widgets.canvas.lazy_slide import LazySlide

__all__ = ["TOLERANCES", "WandStroke", "WandThread"]

TOLERANCES: Final = (2, 60)
"""Smallest and largest tolerance of the wand."""
_PER_NOTCH: Final = 1.1


@dataclass(slots=True, eq=False)
class WandStroke:
    """One stroke of the wand: where it went, and whether its button is up."""

    slide: LazySlide
    view: Lattice
    document: AnnotationDocument | None
    label: str
    erases: bool
    tolerance: float
    points_um: list[tuple[float, float]] = field(default_factory=list)
    released: bool = False
    grown: tuple[int, float] | None = None
    """With how many points and which tolerance the area was computed."""
    area: Area | None = None


class WandThread(QObject):
    """Grows the regions of strokes one after the other.

    ``grown`` is emitted with the stroke that is being drawn when its area has changed, and
    ``finished`` with each released stroke and its area.
    """

    grown = Signal(object)
    finished = Signal(object)
    tolerance_changed = Signal()

    def __init__(self, controller: CaseController, parent: QObject) -> None:
        super().__init__(parent)
        self._controller = controller
        self.tolerance = WAND_TOLERANCE
        self._strokes: list[WandStroke] = []
        self._ahead: tuple[LazySlide, Lattice] | None = None
        self._busy = False
        self._known: tuple[LazySlide, Lattice] | None = None
        self._field: Any = None

    @property
    def is_waiting(self) -> bool:
        """Whether strokes are not finished yet."""
        return bool(self._strokes)

    def turn(self, notches: float) -> None:
        """Change the tolerance by the wheel, also that of the stroke that is being drawn."""
        self.set_tolerance(self.tolerance * _PER_NOTCH**notches)

    def set_tolerance(self, tolerance: float) -> None:
        """Change the tolerance."""
        self.tolerance = float(min(max(tolerance, TOLERANCES[0]), TOLERANCES[1]))
        stroke = self._strokes[-1] if self._strokes else None
        if stroke is not None and not stroke.released:
            stroke.tolerance = self.tolerance
            self._go_on()
        self.tolerance_changed.emit()

    def look(self, slide: LazySlide, view: Lattice) -> None:
        """Read the pixels of a view ahead."""
        self._ahead = (slide, view)
        self._go_on()

    def begin(self, stroke: WandStroke) -> None:
        """Grow a stroke as soon as those before it are finished."""
        self._strokes.append(stroke)
        self._go_on()

    def extend(self, point_um: tuple[float, float]) -> None:
        """Add a seed to the stroke that is being drawn."""
        stroke = self._strokes[-1] if self._strokes else None
        if stroke is not None and not stroke.released and stroke.points_um[-1] != point_um:
            stroke.points_um.append(point_um)
            self._go_on()

    def release(self) -> None:
        """The button is up: the stroke is finished with all its seeds."""
        if self._strokes and not self._strokes[-1].released:
            self._strokes[-1].released = True
            self._go_on()

    def discard(self) -> None:
        """Drop the stroke that is being drawn; released ones are still finished."""
        self._strokes = [stroke for stroke in self._strokes if stroke.released]

    def clear(self) -> None:
        """Drop everything: the slide is closed."""
        self._strokes.clear()
        self._ahead = self._known = self._field = None

    # --- one piece of work at a time ------------------------------------------------------------
    def _go_on(self) -> None:
        # While work is under way nothing starts; its end calls this again.  So of all seeds and
        # tolerances that came meanwhile only the last ones are computed.
        while not self._busy and self._strokes:
            stroke = self._strokes[0]
            wanted = len(stroke.points_um), stroke.tolerance
            if stroke.grown != wanted:
                self._start(stroke, wanted)
            elif stroke.released:
                self._strokes.pop(0)
                self.finished.emit(stroke)
            else:
                return
        # Strokes first: a reader waits for them, and nobody waits for what is read ahead.
        if not self._busy and self._ahead is not None:
            (slide, view), self._ahead = self._ahead, None
            if self._known != (slide, view):
                self._read(partial(self._field_of, slide, view), self._went_ahead)

    def _start(self, stroke: WandStroke, wanted: tuple[int, float]) -> None:
        points, tolerance = stroke.points_um[: wanted[0]], wanted[1]

        def work() -> Area | None:
            pixels = self._field_of(stroke.slide, stroke.view)
            return None if pixels is None else wand_area(pixels, stroke.view, points, tolerance)

        self._read(work, partial(self._grew, stroke, wanted))

    def _read(self, work: Any, then: Any) -> None:
        self._busy = True
        task = self._controller.read("Wand", work, then)
        task.failed.connect(self._failed)

    def _field_of(self, slide: LazySlide, view: Lattice) -> Any:
        """Colour and texture of a view, on the thread; kept until another view is asked for.

        None where the slide was closed meanwhile.
        """
        case = self._controller.workspace.case
        if self._known != (slide, view):
            try:
                pixels = slide.slide.read(view.origin_um, view.extent_um, view.spacing_um[0]).values
            except Exception:
                if case is self._controller.workspace.case:
                    raise
                return None
            self._field, self._known = wand_field(pixels), (slide, view)
        return self._field

    def _grew(self, stroke: WandStroke, wanted: tuple[int, float], area: Area | None) -> None:
        self._busy = False
        stroke.grown, stroke.area = wanted, area
        if stroke in self._strokes and not stroke.released:
            self.grown.emit(stroke)
        self._go_on()

    def _went_ahead(self, _: Any) -> None:
        self._busy = False
        self._go_on()

    def _failed(self, _: object) -> None:
        """The controller shows why; the stroke is given up."""
        self._busy = False
        del self._strokes[:1]
        self._go_on()
