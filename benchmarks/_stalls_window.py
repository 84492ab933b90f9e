"""One scenario in a process of its own: a napari window whose camera wanders over a slide.

python benchmarks/_stalls_window.py ours|plain SLIDE SECONDS [--pass]     prints one line of JSON

A timer of 10 ms notes how late the window comes to it.  The camera pans all the time, zooms
in and out again and jumps, so that most of what it sees was never read before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

TICK_MS = 10
FRAME_MS = 33
SIZE_PX = (1600, 1000)
PAN_PX = 25
"""Screen pixels per frame."""
FRAMES_PER_LEG = 45
"""Frames of panning before the camera turns; the first of them zoom."""
FRAMES_OF_ZOOM = 12
LEGS_PER_JUMP = 4
ZOOM = 1.16
"""Factor per frame of zooming: about 6 in one go."""
SETTLE_S = 2.0

Pass = Callable[[Path, threading.Event], int]
"""Work over a whole slide until it is told to stop; returns how often it reported progress."""


def streaming_pass(path: Path, stop: threading.Event) -> int:
    """Tissue and vessels of the whole slide, as the window's worker runs them, again and again."""
    from napari_mosaik.core.thread_priority import COMPUTING, step_back
    from napari_mosaik.io.case import create_case
    from napari_mosaik.io.case_file import CaseFile
    from napari_mosaik.workflow.recipe import read_recipe
    from napari_mosaik.workflow.run import run_until

    step_back(COMPUTING)
    reports = 0
    file = {"name": "benchmark", "slides": {"cd34": {"path": str(path.resolve())}}}
    while not stop.is_set():
        with tempfile.TemporaryDirectory() as scratch:
            case = create_case(Path(scratch) / "case", CaseFile.model_validate(file))
            steps = run_until(case, read_recipe(case.root), "vessels")
            for _ in steps:
                reports += 1
                if stop.is_set():
                    steps.close()
                    break
    return reports


class Wanderer:
    """Moves the camera frame by frame, the same way every time."""

    def __init__(self, viewer: Any, edge_um: float, seed: int = 0) -> None:
        self._camera = viewer.scene.camera
        self._edge = edge_um
        self._rng = np.random.default_rng(seed)
        self._frame = 0
        self._angle = 0.0
        self._in = True

    def step(self) -> None:
        """The next frame."""
        leg, at = divmod(self._frame, FRAMES_PER_LEG)
        self._frame += 1
        camera = self._camera
        if at == 0:
            self._angle = self._rng.uniform(0, 2 * np.pi)
            if leg % LEGS_PER_JUMP == 0:
                camera.center = tuple(self._rng.uniform(0.2, 0.8, 2) * self._edge)
                camera.zoom = SIZE_PX[1] / self._edge * self._rng.uniform(2, 6)
            self._in = leg % LEGS_PER_JUMP < 2
        if at < FRAMES_OF_ZOOM:
            camera.zoom = camera.zoom * (ZOOM if self._in else 1 / ZOOM)
        by = PAN_PX / camera.zoom * np.array([np.sin(self._angle), np.cos(self._angle)])
        centre = np.clip(np.asarray(camera.center)[-2:] + by, 0, self._edge)
        camera.center = tuple(centre)


def plain_layer(viewer: Any, path: Path) -> float:
    """The slide as napari's users open it without a plugin; returns its edge in world units."""
    import dask.array as da
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        n_levels = len(tiff.series[0].levels)
    levels = [
        da.from_zarr(tifffile.imread(path, aszarr=True, level=level)) for level in range(n_levels)
    ]
    viewer.add_image(levels, rgb=True, multiscale=True)
    return float(levels[0].shape[0])


def our_layer(viewer: Any, path: Path) -> float:
    """The slide by this program's reader."""
    viewer.open(str(path), plugin="napari-mosaik")
    extent = viewer.layers[0].extent.world
    return float(extent[1][0] - extent[0][0])


def wander(kind: str, path: Path, seconds: float, work: Pass | None) -> dict[str, float]:
    """Late ticks in ms (99th percentile, greatest), the first frame in s, and frames drawn.

    The first frame counts from the call that opens the file to the end of the first paint.
    """
    import napari
    from qtpy.QtCore import Qt, QTimer

    viewer = napari.Viewer(show=False)
    viewer.window._qt_window.resize(*SIZE_PX)
    viewer.show()
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    draws: list[float] = []
    run_for(1.0)
    began = time.perf_counter()
    edge = (plain_layer if kind == "plain" else our_layer)(viewer, path)
    canvas.events.draw.connect(lambda _event: draws.append(time.perf_counter()), position="last")
    canvas.update()
    while not draws:
        run_for(0.0)
    first_frame = draws[0] - began
    stop = threading.Event()
    pool = ThreadPoolExecutor(1)
    passing = None if work is None else pool.submit(work, path, stop)
    camera = Wanderer(viewer, edge)
    mover = QTimer()
    mover.timeout.connect(camera.step)
    mover.start(FRAME_MS)
    run_for(SETTLE_S)
    ticks: list[float] = []
    ticker = QTimer()
    ticker.setTimerType(Qt.TimerType.PreciseTimer)
    ticker.timeout.connect(lambda: ticks.append(time.perf_counter()))
    n_draws = len(draws)
    ticker.start(TICK_MS)
    run_for(seconds)
    ticker.stop()
    mover.stop()
    stop.set()
    reports = 0 if passing is None else passing.result()
    late = 1000 * np.diff(ticks) - TICK_MS
    viewer.close()
    return {
        "p99_ms": float(np.percentile(late, 99)),
        "max_ms": float(late.max()),
        "median_ms": float(np.median(late)),
        "first_frame_s": first_frame,
        "frames_per_s": (len(draws) - n_draws) / seconds,
        "pass_reports": reports,
    }


def run_for(seconds: float) -> None:
    """Let the window work for a while; at least one round of its events."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    getattr(loop, "exec", loop.exec_)()


def main() -> int:
    """Run one scenario and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["ours", "plain"])
    parser.add_argument("slide", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--pass", dest="working", action="store_true")
    options = parser.parse_args()
    work = streaming_pass if options.working else None
    print(json.dumps(wander(options.kind, options.slide, options.seconds, work)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
