"""A whole case of real size, step by step: time, memory, scratch, and the limits beside it.

python benchmarks/real_size.py [--keep DIR] [--steps STEP ...] [--quick] [--share S] [--json]

The case is the sample's B11 at size `full`: H&E, CD34 and CAIX of 72,000 x 96,000 pixels at 0.25 µm
with pyramids, and a PET that fits.  Each rendered tile is repeated in a group of 8 x 8, so drawing
takes minutes, not hours.  --quick takes a tenth of the area, --share any part of it.  With --keep
the case stays in a folder and a later call goes on: a step that was measured is not run again.

Every step runs as `napari-mosaik run CASE --step STEP` in a process of its own.  Limits, measured
in the same run: decoding every tile of a slide once, with a thread per core;
the bare forward pass of the nuclei network (inference mode, channels last, no input or output
handling) on as many pixels as the tissue has.  Steps that need a trained model or annotations are
blocked in this case and listed so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _slides_read import decode_all_s

from napari_mosaik.core.catalogue import NUCLEI, STAINS, TISSUE
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case
from napari_mosaik.phantom import cohort, render, sample
from napari_mosaik.workflow.steps import STEPS

GROUP = 8
"""Tiles a side that show the same."""
POLL_S = 0.1
PIECE_PX = 1200
"""Edge of a picture of the bare forward pass."""


def make_case(folder: Path, share: float) -> float:
    """Write the case with so much of the full area; the seconds of the processor it took."""
    began, lock, drawn = time.process_time(), threading.Lock(), {}
    plain, size = render._block, cohort.SIZES["full"]

    def grouped(draw: Any, row: int, col: int) -> Any:
        key = (row // GROUP, col // GROUP)
        with lock:
            one = drawn.setdefault((draw, *key), threading.Lock())
        with one:
            if (draw, key) not in drawn:
                centre = [GROUP * side + GROUP // 2 for side in key]
                drawn[draw, key] = plain(draw, *centre)
        return drawn[draw, key]

    extent = tuple(side * math.sqrt(share) for side in size.extent_um)
    smaller = cohort.CohortSize("full", extent, size.spacing_um, size.cases)
    sizes = cohort.SIZES
    render._block, cohort.SIZES = grouped, {**sizes, "full": smaller}
    try:
        run_to_end(sample(folder, "full", 0, size.cases))
    finally:
        render._block, cohort.SIZES = plain, sizes
    return time.process_time() - began


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def family(pid: int) -> Iterator[Path]:
    """The /proc folders of a process and of those that it started."""
    yield Path(f"/proc/{pid}")
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                yield from family(int(child))
        except OSError:
            continue


def field(path: Path, name: str) -> int:
    """A number in a file of /proc; 0 once the process has ended."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def run_step(case: Path, step: str) -> dict[str, Any]:
    """Run one step in a process of its own and watch it."""
    scratch, before = case / "scratch", folder_bytes(case / "artifacts")
    command = [sys.executable, "-m", "napari_mosaik", "run", str(case), "--step", step]
    began, last = time.monotonic(), 0.0
    peak, read, most = 0, 0, 0
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words)
        while True:
            folders = list(family(process.pid))
            now = sum(field(one / "status", "VmRSS:") for one in folders)
            peak = max(peak, now, field(folders[0] / "status", "VmHWM:"))
            read = max(read, sum(field(one / "io", "rchar:") for one in folders))
            if time.monotonic() - last > 10 * POLL_S:
                most, last = max(most, folder_bytes(scratch)), time.monotonic()
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(POLL_S)
        process.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        said = words.read().strip().splitlines()
    found: dict[str, Any] = {
        "wall_s": time.monotonic() - began,
        "processor_s": used.ru_utime + used.ru_stime,
        "system_s": used.ru_stime,
        "peak_mib": peak / 1024,
        "read_mb": read / 1e6,
        "scratch_mb": most / 1e6,
        "artifacts_mb": (folder_bytes(case / "artifacts") - before) / 1e6,
    }
    if process.returncode:
        return {**found, "blocked": said[-1] if said else f"exit code {process.returncode}"}
    return {**found, "objects": objects(case, step)}


def objects(case: Path, step: str) -> int | None:
    """Rows of the largest table that a step has written; None without a table."""
    store = Case(case).store
    written = next(one for one in STEPS if one.name == step).writes
    tables = [store.read(artifact) for artifact in written if artifact.kind is Table]
    return max(map(len, tables), default=None)


def limits(case: Path) -> dict[str, float]:
    """Seconds to decode each slide once, and of the bare forward pass on the tissue's pixels."""
    opened, found = Case(case), {}
    for stain in STAINS:
        slide = case / "slides" / f"{stain}.tif"
        found[f"decode_{stain}_s"] = decode_all_s(slide, os.cpu_count() or 1)
    if opened.store.origin(TISSUE["he"]) is not None:
        mask = opened.store.read(TISSUE["he"])
        area_um2 = np.count_nonzero(mask.values) * mask.lattice.sample_area_um2
        found |= bare_forward(area_um2)
    return found


def bare_forward(area_um2: float) -> dict[str, float]:
    """Wall and processor seconds of the network on an area, from the median of five pictures."""
    import torch

    from napari_mosaik.segment.stardist import embedded_weights

    weights = embedded_weights()
    network = weights.network().to(memory_format=torch.channels_last)
    picture = torch.rand(1, 3, PIECE_PX, PIECE_PX).to(memory_format=torch.channels_last)
    walls, processors = [], []
    with torch.inference_mode():
        network(picture)
        for _ in range(5):
            wall, processor = time.monotonic(), time.process_time()
            network(picture)
            walls.append(time.monotonic() - wall)
            processors.append(time.process_time() - processor)
    times = area_um2 / weights.spacing_um**2 / PIECE_PX**2
    return {
        "tissue_megapixels": times * PIECE_PX**2 / 1e6,
        "forward_wall_s": times * statistics.median(walls),
        "forward_processor_s": times * statistics.median(processors),
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    made = result["made_processor_s"]
    yield f"slides {result['slides_mb']:.0f} MB, made in {made:.0f} s of the processor"
    names = ("wall_s", "processor_s", "peak_mib", "read_mb", "scratch_mb", "artifacts_mb")
    yield f"{'step':20}" + "".join(f"{name:>14}" for name in (*names, "objects"))
    for step, row in result["steps"].items():
        if "blocked" in row:
            yield f"{step:20}  {row['blocked']}"
            continue
        numbers = "".join(f"{row[name]:14.1f}" for name in names)
        yield f"{step:20}{numbers}{row['objects'] if row['objects'] is not None else '':>14}"
    for name, value in result["limits"].items():
        yield f"{name}: {value:.1f}"
    for name, value in result["ratios"].items():
        yield f"{name}: {value:.2f}"


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """The figures with a bar."""
    done = {name: row for name, row in result["steps"].items() if "blocked" not in row}
    slides, limit = result["slides_mb"], result["limits"]
    found = {
        "all_processor_s": sum(row["processor_s"] for row in result["steps"].values()),
        "peak_mib": max((row["peak_mib"] for row in done.values()), default=0.0),
        "scratch_to_slides": max((row["scratch_mb"] for row in done.values()), default=0) / slides,
    }
    nuclei = done.get(NUCLEI.name)
    if nuclei and "forward_wall_s" in limit:
        found["nuclei_to_forward_wall"] = nuclei["wall_s"] / limit["forward_wall_s"]
        found["nuclei_to_forward_processor"] = nuclei["processor_s"] / limit["forward_processor_s"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder in which the case stays")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], metavar="STEP")
    parser.add_argument("--quick", action="store_true", help="a tenth of the area")
    parser.add_argument("--share", type=float, default=1.0, help="part of the area")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    share = 0.1 if given.quick else given.share
    with tempfile.TemporaryDirectory() as temporary:
        place = given.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"measured-{share:g}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        made = make_case(place / f"case-{share:g}", share)
        case = place / f"case-{share:g}" / "B11"
        result: dict[str, Any] = {
            "share": share,
            "cores": os.cpu_count(),
            "slides_mb": folder_bytes(case / "slides") / 1e6,
            "made_processor_s": known.get("made_processor_s", made),
            "steps": known.get("steps", {}),
            "limits": {},
        }
        for step in STEPS:
            if given.steps and step.name not in given.steps:
                continue
            if step.name not in result["steps"] or "blocked" in result["steps"][step.name]:
                result["steps"][step.name] = run_step(case, step.name)
                file.write_text(json.dumps(result))
        result["limits"] = limits(case)
        result["ratios"] = ratios(result)
        file.write_text(json.dumps(result))
    print(json.dumps(result, indent=1) if given.json else "\n".join(table(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
