"""Read-only text tables."""

from __future__ import annotations

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_mosaik.core import palette

__all__ = ["fill_table", "table_of"]


def table_of(titles: tuple[str, ...], tips: tuple[str, ...]) -> QTableWidget:
    """An empty table with column titles and their tooltips; whole rows are selected."""
    table = QTableWidget(0, len(titles))
    for place, (title, tip) in enumerate(zip(titles, tips, strict=True)):
        item = QTableWidgetItem(title)
        item.setToolTip(tip)
        table.setHorizontalHeaderItem(place, item)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    vertical, across = table.verticalHeader(), table.horizontalHeader()
    assert vertical is not None
    assert across is not None
    vertical.setVisible(False)
    vertical.setDefaultSectionSize(21)
    across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    return table


def fill_table(table: QTableWidget, rows: list[tuple[str, ...]], grey: int = -1) -> None:
    """Fill a table with text; the column *grey* is greyed out."""
    table.setRowCount(len(rows))
    for i, texts in enumerate(rows):
        for j, text in enumerate(texts):
            item = QTableWidgetItem(text)
            if j == grey:
                item.setForeground(QColor(palette.MISSING_TEXT))
            table.setItem(i, j, item)
