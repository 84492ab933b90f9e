"""One pass over a slide in a process of its own: seconds and peak memory as one line of JSON.

python benchmarks/_slides_pass.py SLIDE FOLDER [--warm SLIDE] [--spacing-um 0.5]

A case with the slide as its CD34 section is made in FOLDER; the steps 'tissue_cd34' and 'vessels'
run on it as they do for a user, so the labels (a multiscale OME-Zarr) and the table of vessels lie
in FOLDER/artifacts afterwards.  With --warm a small slide goes first, so that libraries and the
compiled code are loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["SPACING_UM", "Pass", "run_pass", "streaming_pass"]

SPACING_UM = 0.5
EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass took.

    Parameters
    ----------
    seconds
        From opening the slide to the last result on the disk.
    cpu_s
        Processor time of the same, all threads.
    steps
        Seconds of each step.
    vessels
        Number of vessels found.
    tissue
        Part of the slide that is tissue.
    peak_mib
        Largest resident memory of the process, as the system counts it.
    peak_own_mib
        Largest resident memory without pages of files, which the system may drop at any time.
    start_mib
        The same before the pass, the libraries loaded.
    """

    seconds: float
    cpu_s: float
    steps: dict[str, float]
    vessels: int
    tissue: float
    peak_mib: float
    peak_own_mib: float
    start_mib: float


class Memory:
    """Watches this process's resident memory without pages of files, MiB."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(EVERY_S):
            self.peak = max(self.peak, own_mib())


def own_mib() -> float:
    """Resident memory of this process without pages of files, MiB."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """Largest resident memory of this process so far, MiB.

    Not from ``getrusage``: that of a new process begins with what its parent held.
    """
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) / 1024


def run_pass(
    slide: Path,
    folder: Path,
    warm: Path | None = None,
    spacing_um: float = SPACING_UM,
    *,
    judged: bool = False,
) -> Pass:
    """The pass in a process of its own.

    *judged* adds what the program does by default beyond masks and labels: the look for blurred
    places, and the rules that tell brown from vessels.
    """
    command = [sys.executable, __file__, str(slide), str(folder), "--spacing-um", str(spacing_um)]
    if warm is not None:
        command += ["--warm", str(warm)]
    if judged:
        command.append("--judged")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Pass(**json.loads(done.stdout.splitlines()[-1]))


def streaming_pass(slide: Path, folder: Path, *, judged: bool = False, **settings: Any) -> Pass:
    """The same pass in this process, with *settings* for the step 'vessels'."""
    from napari_mosaik.core.catalogue import TISSUE, VESSEL_OBJECTS
    from napari_mosaik.io.case import create_case
    from napari_mosaik.io.case_file import CaseFile
    from napari_mosaik.workflow.recipe import changed, read_recipe
    from napari_mosaik.workflow.run import run_until

    file = {"name": "benchmark", "slides": {"cd34": {"path": str(slide.resolve())}}}
    case = create_case(folder, CaseFile.model_validate(file))
    recipe = read_recipe(case.root)
    if not judged:
        recipe = changed(recipe, "tissue_cd34", look_for_blur=False)
        rules = (n for n in type(recipe["vessels"]).model_fields if n.startswith("exclude_"))
        settings = {**dict.fromkeys(rules, False), **settings}
    recipe = changed(recipe, "vessels", **settings)
    steps: dict[str, float] = {}
    start = own_mib()
    with Memory() as memory:
        used = time.process_time()
        began = before = time.perf_counter()
        for step, _ in run_until(case, recipe, "vessels"):
            now = time.perf_counter()
            steps[step.name] = steps.get(step.name, 0.0) + now - before
            before = now
        seconds, used = time.perf_counter() - began, time.process_time() - used
    vessels = len(case.store.read(VESSEL_OBJECTS))
    tissue = float(case.store.read(TISSUE["cd34"]).values.mean())
    return Pass(seconds, used, steps, vessels, tissue, peak_mib(), memory.peak, start)


def main() -> int:
    """Run the pass and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spacing-um", type=float, default=SPACING_UM)
    parser.add_argument("--warm", type=Path, default=None)
    parser.add_argument("--judged", action="store_true", help="with the rules on by default")
    options = parser.parse_args()
    if options.warm is not None:
        with tempfile.TemporaryDirectory() as scratch:
            streaming_pass(
                options.warm,
                Path(scratch) / "case",
                judged=options.judged,
                spacing_um=options.spacing_um,
            )
    found = streaming_pass(
        options.slide, options.folder, judged=options.judged, spacing_um=options.spacing_um
    )
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
