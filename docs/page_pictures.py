"""Take a picture of every page of the window, in three sizes and two themes, to be looked at.

    .venv/bin/python docs/page_pictures.py COHORT --out FOLDER [--size 1366x768] [--theme dark]

COHORT is one on which the demo has been run; it is copied first.  Starts a virtual display of each
size with a window manager, so that nothing can be larger than the screen (apt install xvfb
openbox).  A line is printed for every widget that does not fit its place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES = ("1366x768", "1920x1080", "3840x2160")
THEMES = ("dark", "light")


class Pictures:
    """The pages of one window; without a cohort the window before a case is open."""

    def __init__(self, cohort: Path | None, out: Path, size: tuple[int, int], theme: str) -> None:
        from napari.settings import get_settings
        from screenshots import Studio

        get_settings().appearance.theme = theme
        self.studio = Studio(cohort, out, size)
        self.studio.window.showMaximized()
        self.studio.settle(2.0)
        self.dock = self.studio.dock

    def shoot(self, name: str) -> None:
        """One picture; what does not fit is printed."""
        from qtpy.QtWidgets import QApplication

        self.studio.shoot(name)
        screen = QApplication.primaryScreen().availableGeometry()
        for top in QApplication.topLevelWidgets():
            if top.isVisible() and not screen.contains(top.geometry()):
                print(f"! {name}: {type(top).__name__} {top.windowTitle()} is outside the screen")
        for line in clipped(self.dock):
            print(f"! {name}: {line}")

    def parts(self, name: str, area: Any, top: int, height: int) -> None:
        """Pictures of what a scrolled area shows from *top* on, *height* pixels of it."""
        seen = area.viewport().height()
        for part in range(1 + max(0, height - 1) // seen):
            area.verticalScrollBar().setValue(top + part * seen)
            self.shoot(f"{name}_{part + 1}")

    def welcome(self) -> None:
        """Before a case is open, and the form of a new case."""
        self.shoot("00_welcome")
        self.dock.case_page.open_new()
        self.shoot("01_new_case")
        self.studio.close()

    def pages(self, only: tuple[str, ...] = ("",)) -> None:
        """Each page of the tab Steps whose title begins with one of *only*, settings unfolded."""
        area = self.dock.page_area
        for number, page in enumerate(self.dock._all_pages(), 2):
            if not page.title.startswith(only):
                continue
            page.set_open(True)
            for section in getattr(page, "sections", {}).values():
                if section.fold is not None:
                    section.fold.set_open(True)
            self.studio.settle(1.0)
            self.studio.until(lambda page=page: not waits(page))
            self.studio.settle(1.0)
            top = page.mapTo(area.widget(), page.rect().topLeft()).y()
            name = page.title.lower().replace(" ", "_")
            self.parts(f"{number:02d}_{name}", area, top, page.height())
            page.set_open(False)

    def tabs(self) -> None:
        """The other tabs, with a tile in the inspector."""
        dock = self.dock
        grid = dock.workspace.tile_data.grid
        dock.workspace.tile = len(grid.centres_um) // 2
        for tab in range(1, dock.tabs.count()):
            dock.side_by_side.leave()
            dock.tabs.setCurrentIndex(tab)
            if tab == dock.review_tab:
                dock.show_review()
            if tab == dock.annotate_tab:
                dock.show_annotate()
            self.studio.settle(1.0)
            area = dock.tabs.widget(tab)
            name = f"{20 + tab}_{dock.tabs.tabText(tab).lower()}"
            self.parts(name, area, 0, area.widget().height())


def pictures(
    cohort: Path, out: Path, size: tuple[int, int], theme: str, only: tuple[str, ...]
) -> None:
    """All pictures of one size and theme, or those of some pages."""
    if not only:
        Pictures(None, out, size, theme).welcome()
    opened = Pictures(cohort, out, size, theme)
    opened.pages(only or ("",))
    if not only:
        opened.tabs()
    opened.studio.close()


def waits(root: Any) -> bool:
    """Whether a visible text says that something is being read or prepared."""
    from qtpy.QtWidgets import QLabel

    texts = [label.text() for label in root.findChildren(QLabel) if label.isVisible()]
    return any(text.startswith(("Reading", "Preparing", "Computing")) for text in texts)


def clipped(root: Any) -> list[str]:
    """Visible texts that have less room than they need, or that their parent cuts off."""
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel, QStyle, QStyleOptionComboBox

    from napari_mosaik.widgets.base.controls import ELIDED

    found = clipped_values(root)
    for box in root.findChildren(QComboBox):
        option = QStyleOptionComboBox()
        box.initStyleOption(option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        room = box.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, box)
        need = box.fontMetrics().horizontalAdvance(box.currentText())
        whole = box.property(ELIDED)  # lacks its middle, and the tooltip has it all
        if box.isVisible() and not box.isEditable() and not whole and need > room.width():
            found.append(f"QComboBox '{box.currentText()[:60]}' does not fit")
    for kind in (QLabel, QAbstractButton):
        for widget in root.findChildren(kind):
            if not widget.isVisible() or not widget.text():
                continue
            if isinstance(widget, QLabel) and widget.wordWrap():
                short = widget.height() < widget.heightForWidth(widget.width()) - 2
            else:
                need = widget.minimumSizeHint()
                short = widget.width() < need.width() - 2 or widget.height() < need.height() - 2
            if short or widget.geometry().right() > widget.parentWidget().width() + 2:
                found.append(f"{kind.__name__} '{widget.text()[:60]}' does not fit")
    return found


def clipped_values(root: Any) -> list[str]:
    """Visible numbers that their field cuts off, with their units."""
    from qtpy.QtWidgets import QAbstractSpinBox

    lines = [spin.lineEdit() for spin in root.findChildren(QAbstractSpinBox) if spin.isVisible()]
    return [
        f"field '{line.text()}' does not fit"
        for line in lines
        if line.fontMetrics().horizontalAdvance(line.text()) > line.width()
    ]


def main() -> None:
    """All windows, each in a process and on a display of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--theme", choices=THEMES, nargs="+", default=THEMES)
    parser.add_argument("--pages", nargs="+", help="only pages whose title begins so")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        width, height = (int(number) for number in options.size[0].split("x"))
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["NAPARI_CONFIG"] = str(Path(scratch) / "settings.yaml")
            copy = shutil.copytree(options.cohort, Path(scratch) / "cohort")
            only = tuple(options.pages or ())
            pictures(copy, options.out, (width, height), options.theme[0], only)
        return
    for size in options.size:
        for theme in options.theme:
            folder = options.out / f"{size}_{theme}"
            folder.mkdir(parents=True, exist_ok=True)
            screen = ["xvfb-run", "-a", "-s", f"-screen 0 {size}x24 +extension GLX"]
            again = [sys.executable, __file__, str(options.cohort), "--out", str(folder), "--here"]
            again += ["--pages", *options.pages] if options.pages else []
            inner = ["sh", "-c", 'openbox & exec "$@"', "sh", *again]
            print(f"== {size} {theme}", flush=True)
            environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
            subprocess.run(
                [*screen, *inner, "--size", size, "--theme", theme], check=True, env=environment
            )


if __name__ == "__main__":
    main()
