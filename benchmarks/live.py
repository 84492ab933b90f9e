"""From a stroke to the new tissue classes of the view, beside a whole retraining.

python benchmarks/live.py [--size quick] [--strokes 12] [--json]

A sample case is annotated; strokes are drawn one after another, and after each the classes of a
view of 2 x 2 mm are predicted live.  The first prediction of a view reads the slide and is
reported apart.  Then the same annotations are retrained in the same run.  *processor_s* is the
median of the seconds of the processor after a stroke, of all threads together, which other work on
the computer hardly changes.

Bar: the slowest prediction after a stroke <= 1 s.  Exit code 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import shapely

from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io import Case
from napari_mosaik.phantom import sample
from napari_mosaik.workflow.classifier import retrain
from napari_mosaik.workflow.live_classes import LiveClasses
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

LIMIT_S = 1.0
VIEW_UM = 2000.0
CLASSES = ("neoplastic", "non-neoplastic", "background")


def measured(case: Case, n_strokes: int) -> dict[str, float]:
    """Times of the live prediction and of a retraining of one case, s."""
    with case.slide("he") as slide:
        height, width = slide.lattice.extent_um
    region = (
        (max(0.0, height / 2 - VIEW_UM / 2), max(0.0, width / 2 - VIEW_UM / 2)),
        (min(VIEW_UM, height), min(VIEW_UM, width)),
    )
    shapes, times, processor = list(case.annotations("he")), [], []
    live = LiveClasses(case)
    for number in range(n_strokes + 1):
        began, processor_began = time.perf_counter(), time.process_time()
        live.predict(shapes, region)
        times.append(time.perf_counter() - began)
        processor.append(time.process_time() - processor_began)
        across = region[0][1] + region[1][1] * (number + 1) / (n_strokes + 2)
        path = shapely.LineString([(across, height / 2 - 150), (across, height / 2 + 150)])
        label = CLASSES[number % len(CLASSES)]
        shapes.append(AnnotatedShape(f"stroke {number}", label, path.buffer(25)))
    live.close()
    began = time.perf_counter()
    run_to_end(retrain([case], [case]))
    whole = time.perf_counter() - began
    strokes = times[1:]
    return {
        "first_s": times[0],
        "median_s": statistics.median(strokes),
        "slowest_s": max(strokes),
        "processor_s": statistics.median(processor[1:]),
        "retrain_s": whole,
        "median_of_retrain": statistics.median(strokes) / whole,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="quick")
    parser.add_argument("--strokes", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_to_end(sample(Path(folder), given.size, 0, ["B8"]))
        case = Case(Path(folder) / "B8")
        run_to_end(run_until(case, read_recipe(case.root), "stain"))
        found = measured(case, given.strokes)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:20s} {value:.3f}")
    return int(found["slowest_s"] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
