"""A whole case of real size, step by step: time, memory, scratch, and the limits beside it.

python benchmarks/real_size.py [--keep DIR] [--steps STEP ...] [--quick] [--share S]
       [--picture FILE] [--json]

The case is that of `sample --size full`, B11: H&E, CD34 and CAIX of 72,000 x 96,000 pixels at
0.25 µm with pyramids, a PET that fits, and annotations; each rendered tile is shown in a group of
8 x 8, so drawing takes minutes, not hours.  --quick takes a tenth of the area, --share any part of
it.  Classifier and predictor are trained on two cases of size tiny.  With --keep
the case stays in a folder and a later call goes on: a step that was measured is not run again.

Every step runs as `napari-mosaik run CASE --step STEP` in a process of its own.  Limits, measured
in the same run: the start of a command; decoding every tile of a slide once, with a thread per
core; the bare forward pass of the nuclei network (inference mode, channels last, no input or output
handling) on as many pixels as the tissue has.  Steps that are blocked are listed so.
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
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _slides_read import decode_all_s

from napari_mosaik.core.catalogue import NUCLEI, STAINS, TISSUE
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case
from napari_mosaik.phantom import cohort, sample
from napari_mosaik.workflow.models import model_in_use
from napari_mosaik.workflow.steps import STEPS, step_named

PROGRAM = [sys.executable, "-m", "napari_mosaik"]
SMALL = ("A2", "B8")
"""Cases of size tiny that train the models."""
DECODES = {"vessels": "cd34", "caix": "caix"}
"""Steps that read every tile of a slide's finest level."""
SHOWN = 9
"""Steps with a colour of their own in the picture."""
POLL_S = 0.1
PIECE_PX = 1200
"""Edge of a picture of the bare forward pass."""


def make_case(folder: Path, share: float) -> float:
    """Write the case with so much of the full area; the seconds of the processor it took."""
    began, sizes = time.process_time(), cohort.SIZES
    extent = tuple(side * math.sqrt(share) for side in sizes["full"].extent_um)
    cohort.SIZES = {**sizes, "full": replace(sizes["full"], extent_um=extent)}
    try:
        run_to_end(sample(folder, "full", 0, sizes["full"].cases))
    finally:
        cohort.SIZES = sizes
    return time.process_time() - began


def small_cohort(folder: Path) -> list[str]:
    """Cases of a small annotated cohort, made on the first call."""
    run_to_end(sample(folder, "tiny", 0, SMALL))
    return [str(folder / name) for name in SMALL]


def add_classifier(case: Path, small: list[str]) -> None:
    """Train the tissue classifier on the small cohort and add it to the case."""
    command("run", *small, "--until", "stain")
    command("retrain", *small, "--into", str(case), *(f"--into={one}" for one in small))


def add_predictor(case: Path, small: list[str]) -> None:
    """Train the uptake network on the small cohort and add it to the case."""
    command("run", *small)
    command("train", *small, str(case), "--test", case.name)


def command(*words: str) -> None:
    """Run a command of the program; its error ends the benchmark."""
    subprocess.run([*PROGRAM, *words], check=True, stdout=subprocess.DEVNULL)


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
    run = [*PROGRAM, "run", str(case), "--step", step]
    began, last = time.monotonic(), 0.0
    peak, read, most = 0, 0, 0
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=words)
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
        began = time.process_time()
        found[f"decode_{stain}_s"] = decode_all_s(
            case / "slides" / f"{stain}.tif", os.cpu_count() or 1
        )
        found[f"decode_{stain}_processor_s"] = time.process_time() - began
    # A command on a step that is done: what each step takes before it computes.
    found["start_processor_s"] = run_step(case, TISSUE["he"].name)["processor_s"]
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


def limit_s(step: str, limit: dict[str, float]) -> float:
    """Processor seconds below which no step can come: start, decoding, the network's pass."""
    if step == NUCLEI.name:
        return limit["start_processor_s"] + limit.get("forward_processor_s", 0.0)
    decoded = limit[f"decode_{DECODES[step]}_processor_s"] if step in DECODES else 0.0
    return limit["start_processor_s"] + decoded


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people, in Markdown."""
    made = result["made_processor_s"]
    yield f"slides {result['slides_mb']:.0f} MB, made in {made:.0f} s of the processor"
    names = ("wall_s", "processor_s", "peak_mib", "read_mb", "scratch_mb", "artifacts_mb")
    yield f"| {' | '.join(('step', *names, 'objects', 'limit, processor_s'))} |"
    for step, row in result["steps"].items():
        if "blocked" in row:
            yield f"| {step} | {row['blocked']} |"
            continue
        numbers = " | ".join(f"{row[name]:.1f}" for name in names)
        objects = "" if row["objects"] is None else f"{row['objects']:,}"
        yield f"| {step} | {numbers} | {objects} | {limit_s(step, result['limits']):.1f} |"
    for name, value in result["limits"].items():
        yield f"{name}: {value:.1f}"
    for name, value in result["ratios"].items():
        yield f"{name}: {value:.2f}"


def draw(result: dict[str, Any], file: Path) -> None:
    """Stacked bars of the processor time by step, and its limit; the clock tells of other work."""
    from napari_mosaik.view.figure import new_figure

    done = {name: row for name, row in result["steps"].items() if "blocked" not in row}
    times = {
        name: (limit_s(name, result["limits"]), row["processor_s"]) for name, row in done.items()
    }
    order = sorted(times, key=lambda name: -times[name][1])
    shown = {step_named(name).title: times[name] for name in order[:SHOWN]}
    if rest := order[SHOWN:]:
        columns = zip(*(times[name] for name in rest), strict=True)
        shown[f"{len(rest)} other steps"] = tuple(sum(column) for column in columns)
    figure = new_figure(9.0, 2.6)
    axes = figure.subplots()
    left = np.zeros(2)
    for number, (name, values) in enumerate(shown.items()):
        axes.barh(range(2), values, left=left, color=f"C{number}", label=name)
        left += values
    axes.set_yticks(range(2), ["limit", "measured"])
    of = "" if result["share"] == 1 else f"{result['share']:.0%} of "
    axes.set_xlabel(f"processor seconds, {of}a case of real size, {result['cores']} cores")
    axes.legend(fontsize=7, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(file, dpi=110)


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
    parser.add_argument("--picture", type=Path, metavar="FILE", help="stacked bars of the time")
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
        small = small_cohort(place / "small")
        for step in STEPS:
            if given.steps and step.name not in given.steps:
                continue
            add_model = {"classes": add_classifier, "predict": add_predictor}.get(step.name)
            if add_model and not model_in_use(Case(case), step.name):
                add_model(case, small)
            if step.name not in result["steps"] or "blocked" in result["steps"][step.name]:
                result["steps"][step.name] = run_step(case, step.name)
                file.write_text(json.dumps(result))
        result["limits"] = limits(case)
        result["ratios"] = ratios(result)
        file.write_text(json.dumps(result))
        if given.picture:
            draw(result, given.picture)
    print(json.dumps(result, indent=1) if given.json else "\n".join(table(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
