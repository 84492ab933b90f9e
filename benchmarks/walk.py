"""A walk through the window with real events of the X server: how late it is, how well it obeys.

python benchmarks/walk.py [--cohort FOLDER] [--busy 2] [--stations NAME ...] [--why] [--json]
python benchmarks/walk.py --case FOLDER [--stations ...] [--shots FOLDER] [--why] [--json]

The window opens a finished case (a copy of a case of FOLDER, or a tiny sample made here), and the
walk opens every page, starts a preview, shows and hides every overlay, enters and leaves the
layouts, draws circles and quick strokes, turns the wheel over the fields of every page, runs the
dose what-if, the twin and a virtual cohort, cancels steps, and switches between cases.  xdotool
moves the mouse.  A timer of 10 ms in the window's own loop notes how late the window comes to it.
Bars: the 99th percentile of lateness <= 50 ms, worst <= 250 ms; a circle of 0.3 s keeps 98 % of its
area; no quick stroke becomes a dot; cancelling is acknowledged within 100 ms; 20 case switches cost
<= 20 MB.
Exit code 1 when a bar is missed.
The processor time of the window's thread stands beside each lateness: on a busy machine it is the
steadier figure.  ``--why`` samples that thread while the loop is silent and tells where it was.
A station that does not end within its limit ends the walk with where the window was.
With --case the window is that of `napari-mosaik view FOLDER`, on the case itself, of any size: the
time to the picture counts from the start of the process, and the stations are each overlay, panning
and zooming by hand with overlays shown (alone, and all at once), a click on a tile, and cancelling
while panning.  An overlay counts as shown once nothing of it waits to be read.
Needs Xvfb, openbox and xdotool when there is no display (apt install xvfb openbox xdotool).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

TICK_MS = 10
SWITCHES = 20
LIMIT_S = 1200.0
"""The longest that one station may take, also on a busy machine."""
BARS = {
    "stall_p99_ms": 50.0,
    "stall_max_ms": 250.0,
    "open_s": 5.0,
    "preview_s": 2.0,
    "layout_s": 0.5,
    "overlay_first_s": 0.5,
    "overlay_again_s": 0.1,
    "area_lost_0.3s": 0.02,
    "area_lost_0.6s": 0.02,
    "area_lost_1.2s": 0.02,
    "dots_of_60_strokes": 0,
    "values_changed_by_wheel": 0,
    "cancel_acknowledged_ms": 100.0,
    "memory_of_switches_mb": 20.0,
}
BARS_OF_A_CASE = {
    "open_s": 5.0,
    "overlay_first_s": 1.0,
    "overlay_again_s": 0.1,
    "pan_p99_ms": 50.0,
    "pan_max_ms": 250.0,
    "inspector_s": 0.5,
    "cancel_acknowledged_ms": 100.0,
    "preview_s": 2.0,
    "peak_gib": 1.5,
}
"""The greatest value of each figure; those of a case of real size follow."""
STOPS_UM = (8.0, 2.0, 0.5)
"""Pixel sizes of the screen at which the view is dragged about."""


class Walk:
    """One walk; figures and the lateness of the window by action."""

    def __init__(self, cohort: Path, why: bool = False, viewer: Any = None) -> None:
        import napari
        from qtpy.QtCore import Qt, QTimer

        from napari_mosaik.widgets.dock import MosaikDock

        self.cohort, opened = cohort, viewer is not None
        self.viewer = viewer or napari.Viewer(show=False)
        if opened:
            self.dock = next(iter(viewer.window.dock_widgets.values()))
        else:
            self.dock = MosaikDock(self.viewer)
            self.viewer.window.add_dock_widget(self.dock, name="MOSAIK", area="right")
        self.dock.workspace.reader = "walker"
        self.viewer.show()
        self.viewer.window.resize(1366, 768)
        self.shots: Path | None = None
        self.canvas = self.viewer.window._qt_viewer.canvas
        self.draws = 0
        self.canvas._scene_canvas.events.draw.connect(self._drew, position="last")
        self.figures: dict[str, float] = {}
        self.actions: dict[str, dict[str, float]] = {}
        self.late: list[float] = []
        self.late_panning: list[float] = []
        self.busy_panning: list[float] = []
        self._here: list[float] = []
        self._busy: list[float] = []
        self._last = self._last_cpu = 0.0
        self.watch = Watch(self) if why else None
        self.now = "start"
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        if not opened:
            self.run_for(1.0)
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()
        self._timer.start(TICK_MS)

    def _drew(self, _event: Any) -> None:
        self.draws += 1

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self._here.append(1000 * (now - self._last) - TICK_MS)
        self._busy.append(1000 * (cpu - self._last_cpu))
        self._last, self._last_cpu = now, cpu

    # --- time -----------------------------------------------------------------------------------
    def run_for(self, seconds: float) -> None:
        """Let the window work for a while."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(int(1000 * seconds), loop.quit)
        getattr(loop, "exec", loop.exec_)()

    def until(self, reached: Callable[[], Any], limit_s: float = 60.0) -> float:
        """Let the window work until something is so; seconds it took."""
        began = time.perf_counter()
        while not reached():
            self.run_for(0.002)
            if time.perf_counter() - began > limit_s:
                raise SystemExit(f"the walk waits for {limit_s:g} s: {reached}")
        return time.perf_counter() - began

    def drawn(self) -> float:
        """Wait until the canvas has been drawn again and is shown so; seconds it took."""
        before, frames = self.draws, self.canvas.native.mosaik_frames
        self.canvas._scene_canvas.update()
        return self.until(lambda: self.draws > before and not frames.under_way)

    def complete(self) -> float:
        """Wait until nothing that is visible waits to be read, and was drawn; seconds it took."""
        readers, began, calm = self.dock.board._readers, time.perf_counter(), 0
        while calm < 2:  # pixels that have come are drawn together, a moment later
            self.drawn()
            busy = readers._running or any(lane.waiting for lane in readers._lanes)
            calm = 0 if busy else calm + 1
            self.run_for(0.05 if calm == 1 else 0.0)
        return time.perf_counter() - began - 0.05

    def shot(self, name: str) -> None:
        """A picture of the whole window as it is now."""
        if self.shots is not None:
            self.complete()
            self.viewer.window._qt_window.grab().save(str(self.shots / f"{name}.png"))

    @contextmanager
    def action(self, name: str) -> Iterator[None]:
        """Note duration and lateness of what is done inside."""
        self._here, self._busy, self.now = [], [], name
        began = time.perf_counter()
        yield
        self.run_for(0.05)
        took = time.perf_counter() - began - 0.05
        worst = max(self._here, default=0.0)
        self.late += self._here
        if name.startswith("pan "):
            self.late_panning += self._here
            self.busy_panning += self._busy
        busy = max(self._busy, default=0.0)
        self.actions[name] = {
            "s": round(took, 3),
            "worst_ms": round(worst, 1),
            "worst_cpu_ms": round(busy, 1),
        }
        print(f"{name}: {took:.2f} s, {worst:.0f} ms late, {busy:.0f} ms busy", file=sys.stderr)
        self.now = "between"
        if self.watch is not None and (new := self.watch.imported()):
            print(f"    imported: {new}", file=sys.stderr)

    def most(self, name: str, value: float) -> None:
        """Keep the greatest value of a figure."""
        self.figures[name] = max(self.figures.get(name, value), value)

    # --- mouse ----------------------------------------------------------------------------------
    def xdo(self, *words: Any) -> None:
        """Real events of the X server, while the window works."""
        done = subprocess.Popen(["xdotool", *map(str, words)])
        self.until(lambda: done.poll() is not None)

    def click(self, widget: Any, button: int = 1) -> None:
        """Click the middle of a widget."""
        at = widget.mapToGlobal(widget.rect().center())
        self.xdo("mousemove", at.x(), at.y(), "click", button)

    def stroke(self, offsets: Any, seconds: float) -> None:
        """A drag about the middle of the canvas, offsets in pixels."""
        native = self.canvas.native
        middle = native.mapToGlobal(native.rect().center())
        path = np.asarray(offsets).round().astype(int) + np.array([middle.x(), middle.y()])
        words: list[Any] = ["mousemove", *path[0], "mousedown", 1]
        for x, y in path[1:]:
            words += ["sleep", seconds / len(path), "mousemove", x, y]
        self.xdo(*words, "mouseup", 1)

    # --- the stations ---------------------------------------------------------------------------
    def opened_case(self) -> None:
        """What `view` opens, until the slide is drawn sharp for this view."""
        board = self.dock.board
        with self.action("view case"):
            self.until(lambda: board.layer("H&E") is not None)
            self.until(lambda: board.slides["he"].settle(0.0))
            self.complete()
            self.figures["open_s"] = seconds_since_start()
            self.figures["open_thread_cpu_s"] = time.thread_time()
        with self.action("settle"):
            self.until(lambda: bool(board.specs))
            self.figures["overlays_offered_s"] = seconds_since_start()
            self.run_for(4.0)  # pages are built beforehand
        self.figures["open_gib"] = _resident_mb() / 1024
        self.shot("whole")

    def open_case(self) -> None:
        """Open, until the slide is drawn."""
        dock = self.dock
        with self.action("open case"):
            began = time.perf_counter()
            dock.controller.open(self.cohort, prefer="B11")  # which has a prediction
            self.until(lambda: dock.board.layer("H&E") is not None)
            self.drawn()
            self.figures["open_s"] = time.perf_counter() - began
        with self.action("settle"):
            self.until(lambda: bool(dock.board.specs))
            self.run_for(1.0)

    def pages(self) -> None:
        """Each page opened by a click on its heading, the wheel over its fields."""
        from qtpy.QtWidgets import QAbstractSlider, QAbstractSpinBox, QComboBox, QScrollBar

        dock, changed, missed = self.dock, 0, 0
        kinds = (QAbstractSpinBox, QComboBox, QAbstractSlider)
        for page in dock._all_pages():
            page.set_open(False)
        for page in dock._all_pages():
            page.set_open(False)
            self.run_for(0.2)
            dock.page_area.ensureWidgetVisible(page.head)
            self.run_for(0.2)  # the list has come to rest
            with self.action(f"page {page.title}"):
                self.click(page.head)
                self.run_for(0.1)
            missed += not page.is_open
            page.set_open(True)
            self.run_for(0.1)
            seen = dock.page_area.viewport()
            fields = [
                field
                for kind in kinds
                for field in page.findChildren(kind)
                if not isinstance(field, QScrollBar)
                and field.isVisible()
                and seen.rect().contains(field.mapTo(seen, field.rect().center()))
            ]
            before = [_value(field) for field in fields]
            with self.action(f"wheel on {page.title}"):
                for field in fields[:6]:
                    self.click(field, 5)
                    self.click(field, 4)
            for field, was in zip(fields, before, strict=True):
                if was != (now := _value(field)):
                    changed += 1
                    name = field.accessibleName() or field.toolTip() or field.objectName()
                    print(f"    {type(field).__name__} {name!r}: {was} -> {now}", file=sys.stderr)
            page.set_open(False)
        self.figures["values_changed_by_wheel"] = changed
        self.figures["clicks_on_pages_missed"] = missed

    def preview(self) -> None:
        """The first preview of the vessels."""
        from napari_mosaik.widgets.canvas.live_layers import PREFIX

        if "vessels" not in self.dock.workspace.states:
            return
        with self.action("first preview"):
            self.dock.preview.start("vessels")
            layers = self.viewer.layers
            self.figures["preview_s"] = self.until(
                lambda: any(layer.name.startswith(PREFIX) for layer in layers)
            )
        self.dock.preview.stop()

    def overlays(self) -> None:
        """Each overlay shown, hidden and shown again."""
        board = self.dock.board
        for name in _overlays(board):
            for what, shown in (("first", True), ("again", False), ("again", True)):
                with self.action(f"{'show' if shown else 'hide'} {name} ({what})"):
                    began = time.perf_counter()
                    board.set_shown(name, shown)
                    waited = time.perf_counter() - began
                    took = self.drawn()
                    if shown:
                        took = self.complete()
                    self.most(f"overlay_{what}_s", took + waited)
                if what == "first":
                    self.shot(f"whole_{_file(name)}")
            board.set_shown(name, False)

    def pan(self) -> None:
        """Zoom in by the wheel and drag the view about, each large overlay alone, then all."""
        board = self.dock.board
        names = _overlays(board)
        for name in names:
            board.set_shown(name, False)
        large = [name for name in names if board.specs[name].multiscale]
        for title, shown in (("slide", []), *((name, [name]) for name in large), ("all", names)):
            for name in shown:
                board.set_shown(name, True)
            self.viewer.reset_view()
            self.complete()
            self._about(title)
            for name in shown:
                board.set_shown(name, False)
        self.figures["pan_p99_ms"] = float(np.percentile(self.late_panning, 99))
        self.figures["pan_max_ms"] = max(self.late_panning)
        self.figures["pan_p99_cpu_ms"] = float(np.percentile(self.busy_panning, 99))
        self.figures["pan_max_cpu_ms"] = max(self.busy_panning)

    def _about(self, title: str) -> None:
        """Wheel and drags, from the whole section down to the pixels of the slide."""
        native, camera = self.canvas.native, self.viewer.scene.camera
        middle = native.mapToGlobal(native.rect().center())
        for stop in STOPS_UM:
            with self.action(f"pan {title}: zoom to {stop:g} um"):
                self.xdo("mousemove", middle.x(), middle.y())
                while camera.zoom < 1 / stop:
                    self.xdo("click", "--repeat", 4, "--delay", 40, 4)
            with self.action(f"pan {title}: drag at {stop:g} um"):
                for x, y in ((-260, -120), (240, -140), (-200, 180), (260, 150)):
                    path = np.linspace((x, y), (-x, -y), 40)
                    self.stroke(path, 0.8)
            self.shot(f"{stop:g}um_{_file(title)}")

    def inspector(self) -> None:
        """A click on the canvas, until the tile is shown in all stains."""
        dock = self.dock
        self.viewer.reset_view()
        for number, offset in enumerate(((0, 0), (40, 30), (-60, 20), (25, -45))):
            self.complete()
            native, before = self.canvas.native, dock.workspace.tile
            pictures = self._tile_pictures()
            at = native.mapToGlobal(native.rect().center())
            with self.action(f"click on tile {number + 1}"):
                began = time.perf_counter()
                self.xdo("mousemove", at.x() + offset[0], at.y() + offset[1], "click", 1)
                self.until(lambda before=before: dock.workspace.tile != before)
                self.until(lambda pictures=pictures: self._tile_pictures() - pictures)
                took = time.perf_counter() - began
            self.most("inspector_s", took)
        self.shot("inspector")

    def _tile_pictures(self) -> set[int]:
        """Keys of the pictures in the inspector; others after each tile, all at once."""
        inspector = self.dock.inspector
        found = [] if inspector is None else inspector.images.values()
        return {view.image.pixmap().cacheKey() for view in found if view.image.pixmap().width()}

    def cancel_panning(self) -> None:
        """Drag the view while a step runs, and click *Cancel*."""
        dock, space = self.dock, self.dock.workspace
        job = dock.controller.run_steps(("tissue_he",))
        if job is None:
            return
        heard: list[float] = []
        job.cancelling.connect(lambda: heard.append(time.perf_counter()))
        with self.action("pan slide: while a step runs"):
            self.stroke(np.linspace((-260, -120), (260, 120), 40), 0.8)
        if space.job is not job:
            return
        with self.action("cancel while panning"):
            began = time.perf_counter()
            self.click(dock.bar.cancel)
            self.until(lambda: bool(heard) or space.job is None, 5)
            if heard:
                self.most("cancel_acknowledged_ms", 1000 * (heard[0] - began))
            self.until(lambda: space.job is None)
            self.figures["cancel_stopped_s"] = time.perf_counter() - began

    def layouts(self) -> None:
        """2 x 2 and review maps, in and out, twice."""
        for title, layout in (
            ("2 x 2", self.dock.view_tools.quad_view),
            ("review", self.dock.side_by_side),
        ):
            for turn in (1, 2):
                for what in ("in", "out"):
                    with self.action(f"{title} {what} {turn}"):
                        began = time.perf_counter()
                        layout.toggle()
                        self.until(lambda layout=layout: not layout.is_on or layout.is_whole)
                        self.drawn()
                        self.most("layout_s", time.perf_counter() - began)

    def strokes(self) -> None:
        """Circles with the lasso in three speeds, and quick strokes with the brush."""
        from shapely.geometry import Polygon

        drawing, areas = self.dock.annotate.drawing, []
        drawing.commit = lambda area, **_: areas.append(area)
        with self.action("take the brush"):
            self.dock.show_annotate()
            self.drawn()
        drawing.take("lasso")
        zoom = self.viewer.scene.camera.zoom
        angle = np.linspace(0, 2 * np.pi, 120)
        ring = 150 * np.stack([np.cos(angle), np.sin(angle)], 1)
        area_px = Polygon(ring.round()).area
        for seconds in (0.3, 0.6, 1.2):
            with self.action(f"circle in {seconds:g} s"):
                areas.clear()
                self.stroke(ring, seconds)
                self.until(lambda: bool(areas), 5)
            self.figures[f"area_lost_{seconds:g}s"] = abs(1 - areas[0].area * zoom**2 / area_px)
        drawing.take("brush")
        areas.clear()
        with self.action("60 quick strokes"):
            for number in range(60):
                self.stroke([(number % 9 + x, number % 7) for x in range(0, 90, 6)], 0.02)
            self.until(lambda: len(areas) >= 60, 5)
        lengths = [max(np.ptp(area.exterior.coords.xy, axis=1)) * zoom for area in areas]
        self.figures["dots_of_60_strokes"] = sum(bool(length < 80) for length in lengths)
        del drawing.commit
        drawing.release()
        self.dock.tabs.setCurrentIndex(0)

    def what_ifs(self) -> None:
        """A plan's dose, a scan that the twin predicts and takes in, a virtual cohort."""
        from napari_mosaik.workflow.plan_record import Course, Plan
        from napari_mosaik.workflow.plans import read_plans, write_plan

        dock, space = self.dock, self.dock.workspace
        if not read_plans(space.case.root):
            write_plan(space.case.root, Plan(name="one", courses=(Course(activity=7400),)))
            dock.controller.refresh()

        def idle() -> bool:
            return space.job is None

        dose, twin, cohort = dock.pages["Dose what-if"], dock.twin, dock.simulated
        with self.action("open Dose what-if"):
            dose.set_open(True)
            self.until(dose.run_button.isEnabled)
        with self.action("run Dose what-if"):
            dose.run_button.click()
            self.run_for(0.5)
            self.until(idle, LIMIT_S)
        with self.action("open Updating twin"):
            twin.set_open(True)
            self.until(lambda: idle() and twin.picture is not None, LIMIT_S)
        for push in (twin.predict, twin.take):
            self.until(push.isEnabled, LIMIT_S)
            with self.action(push.text()):
                push.click()
                self.run_for(0.5)
                self.until(idle, LIMIT_S)
        with self.action("open Virtual cohort"):
            cohort.set_open(True)
            self.until(cohort.run.isEnabled, LIMIT_S)
        with self.action("run Virtual cohort"):
            cohort.run.click()
            self.run_for(0.5)
            self.until(idle, LIMIT_S)
        for page in (dose, twin, cohort):
            page.set_open(False)

    def cancels(self, steps: tuple[str, ...] = ("tissue_he", "vessels", "nuclei", "caix")) -> None:
        """Start a step and cancel it by a click."""
        dock, space = self.dock, self.dock.workspace
        for step in steps:
            if space.states.get(step) is None or space.states[step].word == "blocked":
                continue
            job = dock.controller.run_steps((step,))
            if job is None:
                continue
            self.run_for(0.7)
            if space.job is not job:
                self.actions[f"cancel {step}"] = {"s": 0.0, "worst_ms": 0.0, "was_done": 1.0}
                continue
            heard: list[float] = []
            job.cancelling.connect(lambda heard=heard: heard.append(time.perf_counter()))
            with self.action(f"cancel {step}"):
                began = time.perf_counter()
                dock.bar.cancel.click()
                self.until(lambda heard=heard: bool(heard) or space.job is None, 5)
                if heard:
                    self.most("cancel_acknowledged_ms", 1000 * (heard[0] - began))
                self.until(lambda: space.job is None)
            self.run_for(0.5)

    def switches(self) -> None:
        """Case to case, with an overlay shown in each; the memory before and after."""
        dock = self.dock
        cases = list(dock.workspace.cohort) or [dock.workspace.case.root]
        began = 0.0
        for number in range(SWITCHES + 4):
            if number == 4:
                began = _resident_mb()
            path = cases[number % len(cases)]
            with self.action(f"switch {number + 1}"):
                before = dock.workspace.case
                dock.controller.switch(path)
                self.until(lambda before=before: dock.workspace.case is not before)
                self.until(lambda: dock.board.layer("H&E") is not None and bool(dock.board.specs))
                name = next(iter(_overlays(dock.board)))
                dock.board.set_shown(name, True)
                self.run_for(0.5)
        self.figures["memory_of_switches_mb"] = _resident_mb() - began

    def end(self, bars: dict[str, float] = BARS) -> dict[str, Any]:
        """Close the window; all figures."""
        self._timer.stop()
        self.dock.close()
        self.viewer.close()
        self.figures["stall_p99_ms"] = float(np.percentile(self.late, 99))
        self.figures["stall_max_ms"] = max(self.late)
        met = {
            name: self.figures[name] <= bar for name, bar in bars.items() if name in self.figures
        }
        return {"figures": self.figures, "met": met, "actions": self.actions}


class Watch:
    """Samples the window's thread while its loop is silent: which lines the time went to."""

    SILENT_S = 0.08

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.found: dict[str, Counter[str]] = {}
        self._modules = set(sys.modules)
        self._main = threading.get_ident()
        self._over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self._over.wait(0.01):
            if not self.walk.late and self.walk.now == "start":
                continue
            if time.perf_counter() - self.walk._last < self.SILENT_S:
                continue
            places, frame = [], sys._current_frames().get(self._main)
            while frame is not None:  # at once: to hold a frame keeps its painters alive
                places.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
                frame = frame.f_back
            counts = self.found.setdefault(self.walk.now, Counter())
            for place in {
                f"{'/'.join(Path(file).parts[-3:])}:{line} {name}"
                for file, line, name in places
                if "benchmarks" not in file
            }:
                counts[place] += 1
            counts["*"] += 1

    def imported(self) -> str:
        """Packages with the number of their modules that were imported since the last call."""
        now = set(sys.modules)
        new, self._modules = now - self._modules, now
        names = Counter(".".join(name.split(".")[:2]) for name in new)
        return ", ".join(f"{name} {number}" for name, number in names.most_common(12))

    def tell(self) -> None:
        """Print, for each action, the lines that most samples were below."""
        self._over.set()
        for action, counts in sorted(self.found.items(), key=lambda item: -item[1]["*"]):
            print(f"\n{action}: {counts['*']} samples", file=sys.stderr)
            for place, number in counts.most_common(45)[1:]:
                print(f"  {number:5d} {place}", file=sys.stderr)


def _overlays(board: Any) -> list[str]:
    names = [name for section in board.names().values() for name in section]
    return [name for name in names if name not in ("H&E", "CD34", "CAIX")]


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def seconds_since_start() -> float:
    """Seconds since this process began."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return up - ticks / os.sysconf("SC_CLK_TCK")


def peak_gib() -> float:
    """The most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _value(field: Any) -> Any:
    return field.currentIndex() if hasattr(field, "currentIndex") else field.value()


def _resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def make_cohort(folder: Path) -> Path:
    """A tiny sample cohort with everything run that needs no trained model."""
    from napari_mosaik.io.case import Case, find_cases
    from napari_mosaik.phantom import sample
    from napari_mosaik.workflow.recipe import read_recipe
    from napari_mosaik.workflow.run import run_until

    for _ in sample(folder, "tiny", 0, ["B8", "B11"]):
        pass
    for path in find_cases([folder]):
        for _ in run_until(Case(path), read_recipe(path)):
            pass
    return folder


def with_display() -> None:
    """Start this again below a virtual display and a window manager when there is no display."""
    if os.environ.get("DISPLAY") and os.environ.get("MOSAIK_WALK"):
        return
    for tool in ("xvfb-run", "openbox", "xdotool"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: apt install xvfb openbox xdotool")
    inner = 'openbox & exec "$@"'
    command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24 +extension GLX", "sh", "-c", inner]
    environment = {**os.environ, "MOSAIK_WALK": "1", "QT_QPA_PLATFORM": "xcb"}
    os.execvpe(command[0], [*command, "walk", sys.executable, *sys.argv], environment)


def walk(cohort: Path, stations: list[str], why: bool = False) -> dict[str, Any]:
    """The stations of one walk over a cohort; see the head of this file."""
    made = Walk(cohort, why)
    made.open_case()
    for station in stations:
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        getattr(made, station)()
        faulthandler.cancel_dump_traceback_later()
    if made.watch is not None:
        made.watch.tell()
    return made.end()


def walk_case(
    case: Path, stations: list[str], why: bool = False, shots: Path | None = None
) -> dict[str, Any]:
    """The stations on one case of any size in the window that `view` opens."""
    from napari_mosaik.cli.common import open_window
    from napari_mosaik.widgets import quicken_imports, without_collections

    with without_collections():  # as `open_window` imports it
        quicken_imports()
        import napari

    found: dict[str, Any] = {}

    def instead() -> None:  # of waiting until somebody closes the window
        made = Walk(case, why, napari.current_viewer())
        made.shots = shots
        made.opened_case()
        for station in stations:
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            getattr(made, station)()
            faulthandler.cancel_dump_traceback_later()
            # a step that runs in the window takes memory of its own
            name = "peak_with_step_gib" if station == "cancel_panning" else "peak_gib"
            made.figures[name] = peak_gib()
        if made.watch is not None:
            made.watch.tell()
        found.update(made.end(BARS_OF_A_CASE))

    napari.run = instead
    open_window(case)
    return found


STATIONS_OF_A_CASE = ["overlays", "pan", "inspector", "cancel_panning"]
STATIONS = [
    "pages", "preview", "overlays", "layouts", "strokes", "what_ifs", "cancels", "switches",
]  # fmt: skip


def _walked(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What was asked for: one case as it is, or a cohort that is copied to a folder or made."""
    if options.case is not None:
        if options.shots is not None:
            options.shots.mkdir(parents=True, exist_ok=True)
        chosen = options.stations or STATIONS_OF_A_CASE
        return walk_case(options.case, chosen, options.why, options.shots)
    if options.cohort is None:
        make_cohort(folder)
    else:
        shutil.copytree(options.cohort, folder)
    return walk(folder, options.stations or STATIONS, options.why)


def main() -> int:
    """Walk and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, default=None, help="finished cases; they are copied")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--case", type=Path, default=None, help="a finished case; it is not copied")
    parser.add_argument("--shots", type=Path, default=None, help="with --case: folder of pictures")
    both = [*STATIONS, *(name for name in STATIONS_OF_A_CASE if name not in STATIONS)]
    parser.add_argument("--stations", nargs="+", choices=both)
    parser.add_argument("--why", action="store_true", help="where the time of stalls went")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with_display()
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NAPARI_CONFIG"] = str(Path(scratch) / "settings.yaml")
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(options.busy)
        ]
        try:
            result = _walked(options, Path(scratch) / "cohort")
        finally:
            for one in busy:
                one.kill()
    result["busy"] = options.busy
    bars = BARS if options.case is None else BARS_OF_A_CASE
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result["figures"].items():
            word = "met" if result["met"].get(name, True) else "MISSED"
            print(f"{name:26s} {value:9.3f}  <= {bars.get(name, float('inf')):<8g} {word}")
        worst = sorted(result["actions"].items(), key=lambda item: -item[1]["worst_ms"])[:12]
        for name, found in worst:
            print(f"  {found['worst_ms']:7.0f} ms late in {name} ({found['s']:.2f} s)")
    return int(not all(result["met"].values()))


if __name__ == "__main__":
    sys.exit(main())
