"""Two readers in the window: who has finished, kappa and Dice, differences as a queue, decisions.

    finished tiles (journals) ─► Compare ─► table, layer of differences, list (largest first)
        ─► one press per region ─► journal of the person who decides ─► export of the agreed set

Nothing that another reader has drawn is shown before both have finished the same tiles.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QListWidget,
    QWidget,
)
from superqt.utils import qthrottled

from napari_mosaik.core import MosaikError
from napari_mosaik.core.progress import map_progress
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import count, number
from napari_mosaik.view.layers import DISAGREEMENT_TITLE, NOTHING_DRAWN, disagreement_layer
from napari_mosaik.view.measurements import area_words
from napari_mosaik.widgets.annotate.drawing import AnnotationPicture
from napari_mosaik.widgets.base.controls import (
    button,
    column,
    fill_table,
    row,
    shrinkable,
    table_of,
    wrapped_label,
)
from napari_mosaik.widgets.base.reader import with_reader
from napari_mosaik.widgets.canvas.camera import fit
from napari_mosaik.widgets.canvas.keys import bind_widget_keys, key_text
from napari_mosaik.workflow.agreement import compared_readers, readers_state

if TYPE_CHECKING:
    from napari_mosaik.annotate import Difference
    from napari_mosaik.io.case import Case
    from napari_mosaik.widgets.annotate.annotation import Annotation
    from napari_mosaik.widgets.base.worker import Steps
    from napari_mosaik.widgets.canvas.case_layers import CaseLayers
    from napari_mosaik.workflow.agreement import Comparison
    from napari_mosaik.workflow.annotations import FinishedTiles

__all__ = ["TwoReaders", "finished_words"]

_LISTED = 200
_DRAW_MS = 60
_ROW_PX = 22


def finished_words(state: FinishedTiles | None) -> str:
    """Which tiles a reader has finished, in words."""
    if state is None or not state.any:
        return "not finished"
    if state.complete:
        return "all tiles finished"
    tiles = count(len(state.tiles), "tile")
    return f"all but {tiles} finished" if state.whole else f"{tiles} finished"


class TwoReaders(QWidget):
    """Agreement of two readers of the H&E slide, and the decision of each difference.

    ``several`` is emitted with whether the case has two readers or more.
    """

    several = Signal(bool)

    def __init__(self, board: CaseLayers, annotation: Annotation) -> None:
        super().__init__()
        self._board, self._controller = board, board.controller
        self._annotation = annotation
        self._case: Case | None = None
        self._found: Comparison | None = None
        self._record: dict[str, Any] = {}
        self._decided: dict[str, str] = {}
        self._transform: Any = None
        self._asked = 0
        self._states: dict[str, FinishedTiles | None] = {}
        self.picture = DifferencePicture(board)
        self.who = wrapped_label()
        self.first, self.second = shrinkable(QComboBox()), shrinkable(QComboBox())
        self._pair = _group(row(QLabel("Readers"), self.first, self.second, 1))
        self.compare = button(
            "Compare", self.start, "Kappa, Dice and differences in tiles that both have finished"
        )
        self.table = table_of(
            ("Agreement", "Value", "95 % interval"),
            ("", "1 is perfect; kappa 0 is agreement by chance", "Block bootstrap over tiles"),
            wide=0,
        )
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.notes = wrapped_label(small=True)
        self.shown = QCheckBox("Show the differences (striped)")
        self.shown.setChecked(True)
        self.shown.toggled.connect(self._redraw)
        self.left = wrapped_label(bold=True)
        self.columns = wrapped_label(small=True)
        self.list = QListWidget()
        self.list.setFixedHeight(8 * _ROW_PX)
        self.list.currentRowChanged.connect(self._go)
        self.choose = {
            name: button("", partial(self._decide_as, name))
            for name in ("first", "second", "neither", "take back")
        }
        self.other = shrinkable(QComboBox())
        self.other.setToolTip("Another class for this region")
        self.other.activated.connect(lambda _: self._decide(self.other.currentData()))
        self.next = button(_keyed("Next", "next"), partial(self._step, 1), "By area")
        self.back = button(_keyed("Previous", "back"), partial(self._step, -1))
        self.rest = shrinkable(QComboBox())
        self.rest.setToolTip("How regions without a decision are exported")
        self.export_button = button(
            "Export agreed set…", self._choose_export, "GeoJSON; decided_by says who decided"
        )
        self.message = wrapped_label(small=True)
        bind_widget_keys(
            self,
            "readers",
            {
                **{name: partial(self._decide_as, name) for name in self.choose},
                "next": partial(self._step, 1),
                "back": partial(self._step, -1),
            },
        )
        self._body = _group(
            column(
                self.table,
                self.notes,
                self.shown,
                self.left,
                self.columns,
                self.list,
                self.choose["first"],  # a row each: names and classes are long
                self.choose["second"],
                row(self.other, self.choose["neither"], self.choose["take back"]),
                row(self.back, self.next, 1),
                wrapped_label("Regions without a decision, when exported", small=True),
                row(self.rest, self.export_button),
                self.message,
                1,  # takes the room that the labels would spread over
                spacing=5,
            )
        )
        self.setLayout(column(self.who, self._pair, row(self.compare, 1), self._body, spacing=5))
        events = self._controller.workspace.events
        events.case.connect(self._case_changed)
        events.reader.connect(self._clear)  # decisions are those of one person
        for signal in (annotation.opened, annotation.saved, annotation.finished):
            signal.connect(self.refresh)
        self._clear()
        self._show_readers()

    # --- readers --------------------------------------------------------------------------------
    def _case_changed(self, *_: Any) -> None:
        case = self._controller.workspace.case
        if case is self._case:  # told again, for example after a job
            return
        self._case = case
        self._clear()
        self._states = {}
        self._show_readers()
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Ask in the background who has finished what."""
        case = self._controller.workspace.case
        self._asked += 1
        if case is not None:
            known = partial(self._readers_known, self._asked)
            self._controller.read_for(case, "Two readers", partial(readers_state, case), known)

    def _readers_known(self, asked: int, states: dict[str, FinishedTiles | None]) -> None:
        if asked != self._asked:  # a newer answer is on its way, or there
            return
        if states != self._states:
            self._clear()  # what was compared is no longer what is drawn
        self._states = states
        chosen = [self.first.currentText(), self.second.currentText()]
        if chosen[0] == chosen[1] or not set(chosen) <= set(states):
            chosen = list(states)[:2]
        for box, reader in zip((self.first, self.second), chosen, strict=False):
            box.clear()
            box.addItems(list(states))
            box.setCurrentText(reader)
        self._show_readers()

    def _show_readers(self) -> None:
        states = self._states
        lines = [f"{reader}: {finished_words(state)}" for reader, state in states.items()]
        open_ = [reader for reader, state in states.items() if state is None or not state.any]
        if open_:
            lines.append("Each sees only their own marks until both have finished the same tiles.")
        self.who.setText("\n".join(lines))
        self._pair.setVisible(len(states) > 2)
        self.compare.setEnabled(len(states) - len(open_) >= 2)
        self.several.emit(len(states) > 1)

    # --- comparing ------------------------------------------------------------------------------
    def start(self) -> None:
        """Ask for the reader where none was given, then compare in the background."""
        with_reader(self._controller, self, self._start)

    def _start(self) -> None:
        case, pair = self._controller.workspace.case, (self.first.currentText(),
                                                       self.second.currentText())  # fmt: skip
        if case is None:
            return
        self._clear()

        def steps() -> Steps:
            work = compared_readers(case, pair)
            found = yield from map_progress(work, lambda progress: ("Two readers", progress))
            return found, transform_to_reference(case, "he")

        job = self._controller.start("Compare two readers", steps)
        if job is not None:
            job.done.connect(self._compared)

    def _compared(self, answer: tuple[Any, Any]) -> None:
        (self._record, self._found, made), self._transform = answer
        self._decided = dict(made.get(self._controller.workspace.reader, {}))
        found = self._found
        self.other.clear()
        for name in found.colours:
            self.other.addItem(name, name)
        self.other.setCurrentIndex(-1)
        self.other.setPlaceholderText("Another class…")
        self.rest.clear()
        self.rest.addItem("exclude", "")
        for reader in found.readers:
            self.rest.addItem(f"as {reader}", reader)
        self._fill_table()
        self._fill_list()
        self._board.show_slide("he")
        self.list.setCurrentRow(0)
        self._show()
        self._redraw()

    def _clear(self, *_: Any) -> None:
        self._found, self._decided = None, {}
        self.list.clear()
        self.message.setText("")
        self.picture.show(None, None)
        self._show()

    def _fill_table(self) -> None:
        record = self._record
        rows = [
            (f"Kappa, {word}", number(record[name], missing="undefined"),
             _interval(record[f"{name}_low"], record[f"{name}_high"]))
            for word, name in (("area", "kappa"), ("per tile", "tile_kappa"))
        ]  # fmt: skip
        rows += [(f"Dice, {name}", number(value), "") for name, value in record["dice"].items()]
        fill_table(self.table, rows)
        self.table.setFixedHeight(26 + 21 * len(rows))
        tiles = count(record["n_tiles"], "tile")
        lines = [f"On {area_words(1e6 * record['area_mm2'])} that both have drawn, in {tiles}."]
        self.notes.setText("\n".join([*lines, *(f"⚠ {why}" for why in record["warnings"])]))

    # --- differences ----------------------------------------------------------------------------
    @property
    def differences(self) -> tuple[Difference, ...]:
        """The regions that are listed, largest first."""
        return () if self._found is None else self._found.consensus.differences[:_LISTED]

    @property
    def chosen(self) -> Difference | None:
        """The region that is looked at."""
        place = self.list.currentRow()
        return self.differences[place] if 0 <= place < len(self.differences) else None

    def _fill_list(self) -> None:
        self.list.clear()
        self.list.addItems([self._line(i) for i in range(len(self.differences))])

    def _line(self, place: int) -> str:
        one = self.differences[place]
        drawn = " | ".join(label or NOTHING_DRAWN for label in (one.first, one.second))
        line = f"{place + 1} · {area_words(one.geometry.area)} · {drawn}"
        label = self._decided.get(one.key)
        return line if label is None else f"{line} → {label or 'neither'}"

    def _step(self, by: int) -> None:
        place = self.list.currentRow() + by
        if 0 <= place < self.list.count():
            self.list.setCurrentRow(place)

    def _go(self, *_: Any) -> None:
        """Lead the camera to the region that was chosen."""
        one, found = self.chosen, self._found
        if one is None or found is None:
            return
        left, top, right, bottom = one.geometry.bounds
        corners = np.array([(top, left), (top, right), (bottom, left), (bottom, right)])
        if self._transform is not None:
            corners = self._transform.apply(corners)
        low, high = corners.min(axis=0), corners.max(axis=0)
        around = max(float((high - low).max()) / 2, 50.0)
        fit(self._board.viewer, low - around, high + around)
        self._show()
        self._redraw()

    # --- decisions ------------------------------------------------------------------------------
    def _decide_as(self, name: str) -> None:
        one = self.chosen
        if one is None or not self.choose[name].isEnabled():
            return
        labels = {"first": one.first, "second": one.second, "neither": "", "take back": None}
        self._decide(labels[name])

    def _decide(self, label: str | None) -> None:
        """Write the decision to the journal of the person who decides, then show it."""
        one, found = self.chosen, self._found
        if one is None or found is None:
            return
        try:
            self._annotation.decide(one.key, label, found.readers)
        except MosaikError as error:
            self._controller.report(error, "Two readers")
            return
        self._decided.pop(one.key, None)
        if label is not None:
            self._decided[one.key] = label
        place = self.list.currentRow()
        item = self.list.item(place)
        if item is not None:
            item.setText(self._line(place))
        self.other.setCurrentIndex(-1)
        if label is not None:
            self._step(1)
        self._show()

    # --- files ----------------------------------------------------------------------------------
    def _choose_export(self) -> None:
        case = self._controller.workspace.case
        if case is None or self._found is None:
            return
        given = str(Path.home() / f"{case.name}-agreed.geojson")
        name = QFileDialog.getSaveFileName(self, "Export the agreed set", given, "*.geojson")[0]
        if name:
            path = Path(name)
            self.export(path if path.suffix else path.with_suffix(".geojson"))

    def export(self, path: Path) -> None:
        """Write the agreed and the decided regions as GeoJSON, on a thread."""
        found, by = self._found, self._controller.workspace.reader
        if found is None:
            return
        decided, prefer = dict(self._decided), str(self.rest.currentData() or "")

        def then(record: dict[str, Any]) -> None:
            lines = [f"{count(record['shapes'], 'shape')} exported to {path}"]
            if record["undecided"]:
                area = area_words(1e6 * record["undecided_mm2"])
                lines.append(f"⚠ {count(record['undecided'], 'region')} ({area}) excluded")
            self.message.setText("\n".join(lines))

        work = partial(found.write, path, by, decided, prefer)
        self._controller.read_for(found.case, "Export", work, then)

    # --- showing --------------------------------------------------------------------------------
    def _show(self) -> None:
        found, one = self._found, self.chosen
        self._body.setVisible(found is not None)
        if found is None:
            return
        regions = found.consensus.differences
        area = area_words(sum(region.geometry.area for region in regions))
        n = sum(region.key in self._decided for region in regions)
        agreed = area_words(found.consensus.area_um2())
        listed = f", the {_LISTED} largest listed" if len(regions) > _LISTED else ""
        self.left.setText(
            f"{count(len(regions), 'difference')} on {area}{listed}; {n} decided. "
            f"Agreed on {agreed}."
        )
        for name, label, reader in (
            ("first", one and one.first, found.readers[0]),
            ("second", one and one.second, found.readers[1]),
        ):
            self.choose[name].setText(_keyed(f"{reader}: {label or NOTHING_DRAWN}", name))
            self.choose[name].setEnabled(bool(label))
        self.choose["neither"].setText(_keyed("Neither", "neither"))
        self.choose["take back"].setText(_keyed("Take back", "take back"))
        self.columns.setText(f"Area · {found.readers[0]} | {found.readers[1]} → decision")
        for made in (self.choose["neither"], self.other):
            made.setEnabled(one is not None)
        self.choose["take back"].setEnabled(one is not None and one.key in self._decided)
        self.back.setEnabled(self.list.currentRow() > 0)
        self.next.setEnabled(self.list.currentRow() < self.list.count() - 1)

    def _redraw(self, *_: Any) -> None:
        self.picture.show(self._found if self.shown.isChecked() else None, self.chosen)

    def shut(self) -> None:
        """Follow the camera no longer; called when the window closes."""
        self.picture.detach()


class DifferencePicture(AnnotationPicture):
    """A read-only labels layer of the differences over the visible part of the H&E slide."""

    def __init__(self, board: CaseLayers) -> None:
        super().__init__(board.viewer)
        self._board = board
        self._found: Comparison | None = None
        self._chosen: Difference | None = None
        self._bounds = np.zeros((0, 4))
        self._soon = qthrottled(self._draw, timeout=_DRAW_MS, leading=False, parent=board)
        self.viewer.scene.camera.events.connect(self._moved)

    def layer(self) -> Layer | None:
        """The layer, or None where no comparison is shown."""
        found = (one for one in self.viewer.layers if one.name == DISAGREEMENT_TITLE)
        return next(found, None)

    def show(self, found: Comparison | None, chosen: Difference | None) -> None:
        """Show the differences of a comparison, one of them outlined; None removes the layer."""
        self._found, self._chosen = found, chosen
        if found is None:
            self.remove()
            return
        regions = found.consensus.differences
        self._bounds = np.array([one.geometry.bounds for one in regions]).reshape(-1, 4)
        self._soon()

    def detach(self) -> None:
        """Follow the camera no longer."""
        self._soon.cancel()
        self.viewer.scene.camera.events.disconnect(self._moved)

    def _moved(self, *_: Any) -> None:
        if self._found is not None:
            self._soon()

    def _draw(self) -> None:
        slide, lazy = self._board.slide_layer("he"), self._board.slides.get("he")
        if self._found is None or slide is None or lazy is None:
            return
        lattice = self.visible(slide, lazy.lattices[0])
        if lattice is None:
            return
        top, left = lattice.origin_um
        bottom, right = top + lattice.extent_um[0], left + lattice.extent_um[1]
        box = self._bounds
        seen = (box[:, 0] < right) & (box[:, 2] > left) & (box[:, 1] < bottom) & (box[:, 3] > top)
        regions = [self._found.consensus.differences[i] for i in np.flatnonzero(seen).tolist()]
        spec = disagreement_layer(self._found, regions, lattice, self._chosen)
        data, options, kind = spec.as_layer_data()
        layer = self.layer()
        if layer is None:
            layer = Layer.create(data, options, kind)
            layer.editable = False
            self.viewer.add_layer(layer)
            self.viewer.layers.selection.clear()
        else:
            layer.colormap, layer.data = options["colormap"], data
            layer.scale, layer.translate = spec.place["scale"], spec.place["translate"]
        layer.affine = slide.affine


def _keyed(title: str, name: str) -> str:
    """What a button says, with the key that does the same."""
    return f"{title} ({key_text('readers', name)})"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def _group(layout: Any) -> QWidget:
    made = QWidget()
    made.setLayout(layout)
    return made
