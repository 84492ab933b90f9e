"""Annotations of 10 to 50,000 shapes of 60 vertices: latencies, opening, memory, import and export.

    python benchmarks/annotation.py [--json] [--sizes 10,1000,10000,50000] [--folder DIR]

Each size runs in processes of its own.  ``stroke_ms`` and ``undo_ms`` are the time from the end of
a stroke, or the key, to the drawn outline: overlap with other classes, journal on the disk, totals
of the classes, and the outlines of the visible region of 1600 x 1000 pixels of 0.5 µm (median and
95th percentile of 30).  ``..._processor_...`` counts time of the processor, which other work on
the computer changes less.  ``open_s`` and ``open_mb`` are a fresh process that opens the
annotations for editing, without and with the memory of the program itself.  ``import_mb_s`` and
``export_mb_s`` are compared with ``json.loads`` of the same file in the same run; the start of the
program is not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (10, 1000, 10_000, 50_000)
SLIDE_PX, SPACING_UM, VERTICES = 16_384, 0.5, 60
READER = "Anna"


def peak_mb() -> float:
    """Largest memory of this process so far, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there includes the process that started this one
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def make(folder: Path, n: int) -> None:
    """A case with a white slide, and a GeoJSON file of *n* shapes beside it."""
    import tifffile

    from napari_mosaik.io.case import create_case
    from napari_mosaik.io.case_file import CaseFile, SlideEntry

    root = folder / "B1"
    root.mkdir()
    tile = np.full((512, 512, 3), 240, np.uint8)
    tiles = (SLIDE_PX // 512) ** 2
    tifffile.imwrite(
        root / "he.tif", (tile for _ in range(tiles)), shape=(SLIDE_PX, SLIDE_PX, 3),
        dtype="uint8", tile=(512, 512), photometric="rgb", compression="zlib",
    )  # fmt: skip
    entry = SlideEntry(path="he.tif", spacing_um=(SPACING_UM, SPACING_UM), spacing_source="user")
    create_case(root, CaseFile(name="B1", slides={"he": entry}))
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    step = SLIDE_PX / side
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    features = []
    for i in range(n):
        radius = 0.4 * step * (1 + 0.2 * rng.standard_normal(VERTICES).clip(-1, 1))
        x, y = (i % side + 0.5) * step, (i // side + 0.5) * step
        ring = np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)].round(3).tolist()
        features.append(
            {
                "type": "Feature",
                "id": f"{i:08x}-0000-4000-8000-{i:012x}",
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {
                        "name": ("Tumor", "Stroma")[i % 2], "color": [200, 0, 90 * (i % 2)]
                    },
                },
            }
        )  # fmt: skip
    collection = {"type": "FeatureCollection", "features": features}
    (folder / "in.geojson").write_text(json.dumps(collection))


def exchange(folder: Path) -> dict[str, Any]:
    """Import and export as the command line does them."""
    from napari_mosaik.cli.app import run_command

    source, target = folder / "in.geojson", folder / "out.geojson"
    words = ["--reader", READER, "--json"]
    warm = folder / "warm.geojson"  # loads the modules
    warm.write_text('{"type": "FeatureCollection", "features": []}')
    assert run_command(["annotate", "import", str(folder / "B1"), str(warm), *words]) == 2
    start = time.perf_counter()
    assert run_command(["annotate", "import", str(folder / "B1"), str(source), *words]) == 0
    import_s = time.perf_counter() - start
    import_mb = peak_mb()
    start = time.perf_counter()
    assert run_command(["annotate", "export", str(folder / "B1"), str(target), *words]) == 0
    export_s, peak = time.perf_counter() - start, peak_mb()
    content = source.read_bytes()
    start = time.perf_counter()
    json.loads(content)
    loads_s = time.perf_counter() - start
    size, out = len(content) / 1e6, target.stat().st_size / 1e6
    return {
        "file_mb": size,
        "import_s": import_s,
        "import_mb_s": size / import_s,
        "import_peak_mb": import_mb,
        "export_s": export_s,
        "export_mb_s": out / export_s,
        "export_peak_mb": peak,
        "json_loads_mb_s": size / loads_s,
        "import_of_json_loads": loads_s / import_s,
        "export_of_json_loads": (out / export_s) / (size / loads_s),
    }


def work(folder: Path) -> dict[str, Any]:
    """Open the annotations, draw, and undo."""
    from napari_mosaik.annotate import stroke_polygon
    from napari_mosaik.core import Lattice
    from napari_mosaik.core.rasterise import rasterise
    from napari_mosaik.io.case import Case
    from napari_mosaik.workflow.annotations import OpenAnnotations

    import pyarrow.parquet  # noqa: F401 - part of the program, not of opening  # isort: skip

    before, start, used = peak_mb(), time.perf_counter(), time.process_time()
    with OpenAnnotations(Case(folder / "B1"), READER) as opened:
        document = opened.document
        _ = document.count_by_class(), document.undo_title
        document.visible((0.0, 0.0, 1.0, 1.0))
        open_s, opened_mb = time.perf_counter() - start, peak_mb()
        open_processor_s = time.process_time() - used
        rng = np.random.default_rng(1)
        codes = {known.name: code for code, known in enumerate(document.classes, 1)}
        extent = SLIDE_PX * SPACING_UM

        def drawn(at: tuple[float, float]) -> None:
            corner = (max(at[0] - 250, 0.0), max(at[1] - 400, 0.0))
            seen = Lattice("he", (1000, 1600), (SPACING_UM, SPACING_UM), corner)
            box = (*corner, corner[0] + 500, corner[1] + 800)
            rasterise(document.visible(box), seen, codes)
            _ = document.count_by_class(), document.area_by_class_um2()

        drawn((extent / 2, extent / 2))  # compiles
        strokes, undos = [], []

        def since(start: tuple[float, float]) -> tuple[float, float]:
            """Milliseconds by the clock, and of the processor."""
            return 1e3 * (time.perf_counter() - start[0]), 1e3 * (time.process_time() - start[1])

        for i in range(30):
            at = (float(rng.uniform(500, extent - 500)), float(rng.uniform(500, extent - 500)))
            path = [(at[0] + 3 * k, at[1] + 10 * np.sin(k / 4)) for k in range(40)]
            began = time.perf_counter(), time.process_time()
            under = document.at(at)
            label = ("neoplastic", "non-neoplastic")[i % 2]
            into = under.key if under is not None and under.label == label else None
            document.paint(stroke_polygon(path, 15.0), label, into=into)
            drawn(at)
            strokes.append(since(began))
            if i % 3 == 2:
                began = time.perf_counter(), time.process_time()
                document.undo()
                drawn(at)
                undos.append(since(began))
        now = len(document)
    stroke, undo = np.transpose(strokes), np.transpose(undos)
    return {
        "shapes": now,
        "open_s": open_s,
        "open_processor_s": open_processor_s,
        "open_mb": opened_mb,
        "open_added_mb": opened_mb - before,
        "stroke_ms": float(np.median(stroke[0])),
        "stroke_p95_ms": float(np.percentile(stroke[0], 95)),
        "stroke_processor_ms": float(np.median(stroke[1])),
        "undo_ms": float(np.median(undo[0])),
        "undo_p95_ms": float(np.percentile(undo[0], 95)),
        "undo_processor_ms": float(np.median(undo[1])),
    }


def child(step: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, "--folder", str(folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--folder", type=Path, help="place for the cases; default: temporary")
    parser.add_argument("--step", choices=("exchange", "work"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(globals()[options.step](options.folder)))
        return
    rows: dict[str, dict[str, Any]] = {}
    for n in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            make(folder, n)
            rows[str(n)] = {**child("exchange", folder), **child("work", folder)}
    if options.json:
        print(json.dumps({"sizes": rows}, indent=1))
        return
    for key in next(iter(rows.values())):
        print(f"{key:22}" + "".join(f"{row[key]:12,.2f}" for row in rows.values()))


if __name__ == "__main__":
    main()
