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

SIZES = ("1366x768", "1920x1080", "3840x2160")
THEMES = ("dark", "light")


def pictures(cohort: Path | None, out: Path, size: tuple[int, int], theme: str) -> None:
    """All pages of one window; without a cohort the window before a case is open."""
    from napari.settings import get_settings
    from qtpy.QtWidgets import QApplication
    from screenshots import Studio

    get_settings().appearance.theme = theme
    studio = Studio(cohort, out, size)
    window, dock = studio.window, studio.dock
    window.showMaximized()
    studio.settle(2.0)

    def shoot(name: str) -> None:
        studio.shoot(name)
        screen = QApplication.primaryScreen().availableGeometry()
        for top in QApplication.topLevelWidgets():
            if top.isVisible() and not screen.contains(top.geometry()):
                print(f"! {name}: {type(top).__name__} {top.windowTitle()} is outside the screen")
        for line in clipped(dock):
            print(f"! {name}: {line}")

    if cohort is None:
        shoot("00_welcome")
        dock.case_page.open_new()
        shoot("01_new_case")
        studio.close()
        return
    number = 2
    for page in dock._all_pages():
        page.set_open(True)
        studio.settle(1.0)
        bar = dock.page_area.verticalScrollBar()
        height = dock.page_area.viewport().height()
        top = page.mapTo(dock.page_area.widget(), page.rect().topLeft()).y()
        for part in range(1 + max(0, page.height() - 1) // height):
            bar.setValue(top + part * height)
            shoot(f"{number:02d}_{page.title.lower().replace(' ', '_')}_{part + 1}")
        page.set_open(False)
        number += 1
    dock.workspace.tile = len(dock.workspace.tile_data.grid) // 2
    for tab in range(1, dock.tabs.count()):
        dock.tabs.setCurrentIndex(tab)
        if tab == dock.review_tab:
            dock.show_review()
        if tab == dock.annotate_tab:
            dock.side_by_side.leave()
            dock.show_annotate()
        studio.settle(1.0)
        area = dock.tabs.widget(tab)
        bar, height = area.verticalScrollBar(), area.viewport().height()
        for part in range(1 + max(0, area.widget().height() - 1) // height):
            bar.setValue(part * height)
            shoot(f"{number:02d}_{dock.tabs.tabText(tab).lower()}_{part + 1}")
        number += 1
    studio.close()


def clipped(root: object) -> list[str]:
    """Visible widgets that are smaller than they need, or that their parent cuts off."""
    from qtpy.QtWidgets import QAbstractButton, QLabel, QWidget

    found = []
    for widget in root.findChildren(QWidget):  # type: ignore[attr-defined]
        if not widget.isVisible() or not isinstance(widget, (QLabel, QAbstractButton)):
            continue
        text = widget.text()
        if not text:
            continue
        need = widget.minimumSizeHint()
        if isinstance(widget, QLabel) and widget.wordWrap():
            short = widget.height() < widget.heightForWidth(widget.width()) - 2
        else:
            short = widget.width() < need.width() - 2 or widget.height() < need.height() - 2
        parent = widget.parentWidget()
        if short or (parent is not None and widget.geometry().right() > parent.width() + 2):
            found.append(f"{type(widget).__name__} '{text[:60]}' does not fit")
    return found


def main() -> None:
    """All windows, each in a process and on a display of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES)
    parser.add_argument("--theme", choices=THEMES, nargs="+", default=THEMES)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        width, height = (int(number) for number in options.size[0].split("x"))
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["NAPARI_CONFIG"] = str(Path(scratch) / "settings.yaml")
            copy = shutil.copytree(options.cohort, Path(scratch) / "cohort")
            pictures(None, options.out, (width, height), options.theme[0])
            pictures(copy, options.out, (width, height), options.theme[0])
        return
    for size in options.size:
        for theme in options.theme:
            folder = options.out / f"{size}_{theme}"
            folder.mkdir(parents=True, exist_ok=True)
            screen = ["xvfb-run", "-a", "-s", f"-screen 0 {size}x24 +extension GLX"]
            again = [sys.executable, __file__, str(options.cohort), "--out", str(folder), "--here"]
            inner = ["sh", "-c", 'openbox & exec "$@"', "sh", *again]
            print(f"== {size} {theme}", flush=True)
            environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
            subprocess.run(
                [*screen, *inner, "--size", size, "--theme", theme], check=True, env=environment
            )


if __name__ == "__main__":
    main()
