"""How much faster an update after a correction is than the same steps computed whole.

python benchmarks/update.py [--tiles 4000] [--spacing 1.0] [--nuclei 600] [--folder DIR] [--json]

A case of so many tiles is written with made-up vessels, nuclei and tissue classes; *--spacing* is
the pixel size of their label images, µm, and *--nuclei* how many there are per mm².  One vessel,
then one nucleus is deleted.  Each time the steps that follow run as `update` runs them, and again
with *force*, without anything of an earlier run, in the same process; both results are compared bit
by bit.  *before_moran* are the steps that local Moran's I needs, the corrected objects and the tile
parameters: its permutations belong to the whole slide.  An edit before the first that counts loads
the libraries.  *processor* holds the seconds of the processor, which other work on the computer
hardly changes.  No PET and no network: uptake and prediction do not run.

Bar: at least ten times faster before Moran, and equal.  Exit code 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    ARTEFACT_MASK,
    CLASS_NAMES,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    CORRECTED_ARTEFACT_MASK,
    EXCLUDED_DAB,
    EXCLUDED_DAB_OBJECTS,
    NUCLEI,
    NUCLEUS_OBJECTS,
    OBJECTS,
    STAIN_FIT,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.core.frame import Lattice, Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import LabelImage, Raster
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case, CaseFile, SlideEntry, create_case
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.corrections import CorrectionSession
from napari_mosaik.workflow.recipe import read_recipe, write_recipe
from napari_mosaik.workflow.run import run
from napari_mosaik.workflow.steps import STEPS, step_named
from napari_mosaik.workflow.update import update

STRIDE_UM, SLIDE_UM, BAR = 300.0, 1.5, 10.0
BEFORE_MORAN = ("correct_vessels", "correct_nuclei", "parameters")


class Squares:
    """A label image of squares, painted where it is asked for; a stand-in for objects."""

    def __init__(self, shape, corners, width):
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.int32), 2
        self._corners, self._width = corners, width

    def __getitem__(self, key):
        rows, cols = (range(n)[part] for part, n in zip(key, self.shape, strict=True))
        out = np.zeros((len(rows) + 2 * self._width, len(cols) + 2 * self._width), np.int32)
        first = np.array([rows.start, cols.start]) - self._width
        local = self._corners - first
        inside = ((local >= 0) & (local < np.array(out.shape) - self._width)).all(axis=1)
        r, c = local[inside].T
        labels = np.flatnonzero(inside) + 1
        for down in range(self._width):
            for across in range(self._width):
                out[r + down, c + across] = labels
        return out[self._width : -self._width, self._width : -self._width]


def objects(rng, lattice, per_mm2, width, more):
    """Labels and table of squares on a jittered grid, so that none overlap."""
    gap = max(int(1000 / math.sqrt(per_mm2) / lattice.spacing_um[0]), 2 * width)
    ends = [np.arange(gap, n - gap, gap) for n in lattice.shape]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 2)
    corners = corners + rng.integers(0, gap - width, corners.shape)
    points = lattice.to_um(corners + (width - 1) / 2)
    n = len(corners)
    columns = {
        "row_um": points[:, 0],
        "column_um": points[:, 1],
        "area_um2": np.full(n, width**2 * lattice.sample_area_um2),
        "major_axis_um": np.full(n, 1.5 * width * lattice.spacing_um[0]),
        **{name: rng.normal(1, 0.2, n) for name in more},
    }
    return Squares(lattice.shape, corners, width), Table(columns, frame=lattice.frame)


VESSEL_COLUMNS = (
    "perimeter_um", "equivalent_diameter_um", "eccentricity", "solidity", "wall_area_um2",
    "lumen_area_um2",
)  # fmt: skip
NUCLEUS_COLUMNS = (
    "perimeter_um", "eccentricity", "solidity", "haematoxylin_od", "difference_entropy_bits",
    "contrast", "angular_second_moment", "inverse_difference_moment", "entropy_bits",
    "sum_entropy_bits",
)  # fmt: skip


def made_up(root, n_tiles, spacing_um, nuclei_per_mm2):
    """A case of about *n_tiles* tiles whose segmentations are stored as if they had been run."""
    edge_um = (math.sqrt(n_tiles) + 1) * STRIDE_UM
    slide = Lattice("cd34", (int(edge_um / SLIDE_UM),) * 2, (SLIDE_UM, SLIDE_UM))
    root.mkdir(parents=True)
    size = slide.shape[0]
    white = np.full((512, 512, 3), 240, np.uint8)
    count = math.ceil(size / 512) ** 2
    for stain in ("cd34", "he"):
        tifffile.imwrite(
            root / f"{stain}.tif", (white for _ in range(count)), shape=(size, size, 3),
            dtype=np.uint8, tile=(512, 512), photometric="rgb", compression="deflate",
        )  # fmt: skip
    entries = {
        stain: SlideEntry(path=f"{stain}.tif", spacing_um=(SLIDE_UM, SLIDE_UM),
                          spacing_source="user")
        for stain in ("cd34", "he")
    }  # fmt: skip
    case = create_case(root, CaseFile(name="Bench", slides=entries))
    recipe = dict(read_recipe(root))
    (root / "models" / "made-up").mkdir(parents=True)
    (root / "models" / "made-up" / "card.json").write_text('{"format": 1}')
    recipe["classes"] = recipe["classes"].model_copy(update={"model": "made-up"})
    with case.writing():
        write_recipe(root, recipe)
    rng = np.random.default_rng(0)
    values = {}
    for stain in ("cd34", "he"):
        low = Lattice(stain, (int(edge_um / 16),) * 2, (16.0, 16.0))
        mask = Raster(np.ones(low.shape, bool), low)
        none = Raster(np.zeros(low.shape, np.uint8), low)
        values |= {TISSUE[stain]: mask, ARTEFACT_MASK[stain]: none,
                   CORRECTED_ARTEFACT_MASK[stain]: none}  # fmt: skip
        fine = Lattice(stain, (int(edge_um / spacing_um),) * 2, (spacing_um, spacing_um))
        if stain == "cd34":
            labels, table = objects(rng, fine, 150, max(2, round(16 / spacing_um)), VESSEL_COLUMNS)
            values |= {VESSELS: LabelImage(labels, fine), VESSEL_OBJECTS: table}
            empty = Squares(fine.shape, np.zeros((0, 2), np.int64), 1)
            values |= {EXCLUDED_DAB: LabelImage(empty, fine), EXCLUDED_DAB_OBJECTS: table.rows([])}
        else:
            labels, table = objects(
                rng, fine, nuclei_per_mm2, max(2, round(6 / spacing_um)), NUCLEUS_COLUMNS
            )
            values |= {NUCLEI: LabelImage(labels, fine), NUCLEUS_OBJECTS: table}
    coarse = Lattice("he", (int(edge_um / 8),) * 2, (8.0, 8.0))
    r, c = np.indices(coarse.shape) / 60
    codes = (2 + (np.sin(r) + np.cos(c) > 0)).astype(np.uint8)
    probability = np.zeros((*coarse.shape, 3), np.uint8)
    identity = Transform.identity("he", "cd34")
    values |= {
        STAIN_FIT: {"usable": False},
        CLASSES: LabelImage(codes, coarse, dict(CLASS_NAMES)),
        CLASS_PROBABILITY: Raster(probability, coarse, "1/255", ("a", "b", "c")),
        CLASS_RECORD: {"area_mm2": {}},
        ALIGNMENT["he"]: Alignment(identity, 1.0, 0.0, 1.0, False, 1.0).to_dict(),
    }  # fmt: skip
    for step in STEPS:
        state = case_status(case, recipe)
        if state.states[step.name].word == "blocked":
            continue
        if all(artifact in values for artifact in step.writes):
            with case.writing():
                own = {artifact: values[artifact] for artifact in step.writes}
                case.store.commit(state.expected[step.name], own, {"params": {}})
        else:
            run_to_end(run(case, step, recipe[step.name], recipe=recipe))
    return case


def content(case, names):
    return {
        path.relative_to(case.root).as_posix(): path.read_bytes()
        for name in names
        for artifact in step_named(name).writes
        for path in sorted(case.store.folder(artifact).rglob("*"))
        if path.is_file() and path.name not in ("origin.json", "record.json")
    }


def deleted(case, what, share):
    """Delete the object at a share of the table, and update."""
    table = case.store.read(OBJECTS[what][0][1])
    places = table.points_um()[int(len(table) * share) :]  # the first may be deleted already
    with CorrectionSession(case, what, "bench") as session:
        session.delete(next(filter(None, map(session.select, places))))
    processor, last, since = {}, "", time.process_time()

    def followed(name):
        nonlocal last, since
        now = time.process_time()
        processor[last] = processor.get(last, 0.0) + now - since
        last, since = name, now

    def steps():
        record = yield from update(case)
        followed("")
        return record

    record = run_to_end(steps(), lambda told: told[0].name == last or followed(told[0].name))
    return record, processor


def measured(case, what):
    """Seconds of each step after one object was deleted: updated, and computed whole."""
    deleted(case, what, 0.3)
    record, processor = deleted(case, what, 0.5)
    names = list(record.steps)
    made, recipe = content(case, names), read_recipe(case.root)
    whole, whole_processor = {}, {}
    for name in names:
        began, processor_began = time.monotonic(), time.process_time()
        run_to_end(run(case, step_named(name), recipe[name], recipe=recipe, force=True))
        whole[name] = round(time.monotonic() - began, 3)
        whole_processor[name] = round(time.process_time() - processor_began, 3)
    before = [name for name in names if name in BEFORE_MORAN]
    updated = {name: round(processor[name], 3) for name in names}

    def compared(one, other):
        sums = [sum(steps[name] for name in before) for steps in (one, other)]
        return {"incremental_s": round(sums[0], 3), "full_s": round(sums[1], 3),
                "ratio": round(sums[1] / sums[0], 2)}  # fmt: skip

    return {
        "n_tiles": record.n_tiles,
        "incremental": dict(record.steps),
        "full": whole,
        "before_moran": compared(record.steps, whole),
        "processor": {"incremental": updated, "full": whole_processor,
                      "before_moran": compared(updated, whole_processor)},
        "equal": content(case, names) == made,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--nuclei", type=float, default=600)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        root = folder / "bench"
        made = root.exists()
        case = Case(root) if made else made_up(root, given.tiles, given.spacing, given.nuclei)
        edits = {what: measured(case, what) for what in ("vessels", "nuclei")}
        from napari_mosaik.core.catalogue import TILES

        result = {
            "tiles": len(case.store.read(TILES)),
            "vessels": len(case.store.read(VESSEL_OBJECTS)),
            "nuclei": len(case.store.read(NUCLEUS_OBJECTS)),
            "bar": BAR,
            "edits": edits,
        }
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        for what, one in edits.items():
            before = one["before_moran"]
            print(
                f"{what}: {one['n_tiles']} of {result['tiles']} tiles; before Moran "
                f"{before['incremental_s']:.2f} s against {before['full_s']:.2f} s, "
                f"{before['ratio']:.1f} times; equal: {one['equal']}"
            )
    met = all(e["before_moran"]["ratio"] >= BAR and e["equal"] for e in edits.values())
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
