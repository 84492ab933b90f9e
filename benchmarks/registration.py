"""Accuracy of the registration of sections and PET, its time, and whether warnings are right.

python benchmarks/registration.py [--cohort DIR] [--phantom N] [--real DIR] [--json]
python benchmarks/registration.py --cohort DIR --stored     # stored results of the demo

Pairs of real sections (rat kidney, lung lesion; skipped where the folder is absent) are measured by
landmarks that the registration does not use.  Sections of the sample cohort (made in DIR if it
holds none) are rotated by any angle, scaled, sheared, shifted, every fourth is flipped, and they
are registered to the CD34 section again: success is a median error below half a tile (200 µm) over
the tissue.  Pairs that do not belong together (a section of another patient, a mirror image where
none is allowed, an empty image) must get a low confidence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from napari_mosaik.core import MosaikError, Raster, Transform
from napari_mosaik.core.catalogue import ALIGNMENT, REFERENCE, TISSUE
from napari_mosaik.core.frame import Lattice
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case, open_slide
from napari_mosaik.phantom import sample
from napari_mosaik.phantom.cohort import draw_specimen
from napari_mosaik.phantom.physics import ScannerLaw, pet_pose, simulate_scan
from napari_mosaik.register import (
    AlignParams,
    PetAlignParams,
    align_pet,
    align_sections,
    haematoxylin_density,
    transform_of,
)
from napari_mosaik.tissue import TissueParams, tissue_mask
from napari_mosaik.workflow.picture_case import align_pictures

REAL = Path(__file__).parents[2] / "shared" / "data" / "registration"
LUNG = "lung-lesion-3"
REAL_PAIRS = {
    "kidney": ("Rat-Kidney_HE", "Rat-Kidney_PanCytokeratin", "", 1.0),
    "lung": ("29-041-Izd2-w35-He-les3", "29-041-Izd2-w35-CD31-3-les3", f"{LUNG}/", 10.0),
}
PIXEL_UM = 5.0
SUCCESS_UM, LOW = 200.0, 0.4
PHANTOM_UM = 10.0
CASES = ("A2", "A3", "A4", "A5", "B8", "B11")


@dataclass(frozen=True)
class Section:
    """An overview of a section with its tissue and haematoxylin."""

    picture: Raster

    def parts(self) -> tuple[Raster, Raster]:
        """Tissue mask and haematoxylin density."""
        params = TissueParams(spacing_um=max(self.picture.lattice.spacing_um))
        return tissue_mask(self.picture, params), haematoxylin_density(self.picture)


def real_pair(name: str, folder: Path) -> dict[str, Any] | None:
    """One pair of real sections through the command's own code."""
    fixed, moving, sub, divide = REAL_PAIRS[name]
    files = [folder / f"{sub}{one}.jpg" for one in (fixed, moving)]
    if not all(path.exists() for path in files):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        marks = [_landmarks(name, folder, one, divide, Path(scratch)) for one in (fixed, moving)]
        begin, cpu = time.perf_counter(), time.process_time()
        record = run_to_end(align_pictures(*files, PIXEL_UM, PIXEL_UM, *marks, "affine"))
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    errors = record["landmark_error_um"]
    return {
        "align_seconds": seconds,
        "cpu_seconds": cpu,
        "before_px": errors["before"]["median"] / PIXEL_UM,
        "error_px": errors["after"]["median"] / PIXEL_UM,
        "largest_px": errors["after"]["max"] / PIXEL_UM,
        "n": errors["after"]["n"],
        "confidence": record["confidence"],
        "inlier_fraction": record["inlier_fraction"],
    }


def _landmarks(name: str, folder: Path, section: str, divide: float, scratch: Path) -> Path:
    """The landmarks of a section in pixels of its picture (the lung's are given at half scale)."""
    if name == "kidney":
        return folder / f"{section}.csv"
    stem = "He" if "He" in section else "CD31-3"
    given = (folder / LUNG / f"{stem}-les3.landmarks-50pc.csv").read_text().splitlines()
    rows = [line.split(",") for line in given[1:] if line.strip()]
    lines = [f"{r[0]},{float(r[1]) / divide},{float(r[2]) / divide}" for r in rows]
    path = scratch / f"{stem}.csv"
    path.write_text("\n".join([",X,Y", *lines]))
    return path


def overview(case: Path, stain: str) -> Section:
    """A slide of a case at low resolution."""
    with open_slide(case / "slides" / f"{stain}.tif", frame=stain) as slide:
        return Section(slide.thumbnail(PHANTOM_UM))


def disturbed(section: Section, rng: np.random.Generator, turned_over: bool) -> tuple[Any, ...]:
    """The section after a random transform, and that transform (from new to old positions)."""
    lattice = section.picture.lattice
    middle = np.array(lattice.extent_um) / 2
    shear = np.eye(2) + rng.uniform(-0.04, 0.04, (2, 2))
    turn = Transform.similarity(
        "moving",
        lattice.frame,
        angle_deg=float(rng.uniform(0, 360)),
        scale=float(rng.uniform(0.9, 1.05)),
        mirror=turned_over,
    ).matrix[:2, :2]
    linear = shear @ turn
    side = float(np.hypot(*lattice.extent_um)) * 1.15
    half = np.array([side, side]) / 2 + rng.uniform(-0.04, 0.04, 2) * side
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, middle - linear @ half
    true = Transform("moving", lattice.frame, matrix)
    n = round(side / lattice.spacing_um[0])
    wide = Lattice("moving", (n, n), lattice.spacing_um)
    at = lattice.to_index(true.apply(wide.centres_um()).reshape(-1, 2)).T
    glass = np.quantile(section.picture.values.reshape(-1, 3), 0.99, axis=0)
    channels = [
        map_coordinates(section.picture.values[..., c].astype(float), at, order=1, cval=glass[c])
        for c in range(3)
    ]
    values = np.stack(channels, axis=-1).reshape(n, n, 3)
    noisy = values + rng.normal(0, 2, values.shape)
    picture = Raster(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), wide)
    return Section(picture), true


def truth_of(case: Path, stain: str) -> Transform:
    """The true map of a stain to CD34."""
    record = json.loads((case / "truth" / "truth.json").read_text())["transforms"][stain]
    return Transform(stain, "cd34", np.array(record["matrix"]))


def aligned(moving: Section, fixed: Section, **params: Any) -> tuple[Any, float]:
    """An affine alignment and its processor seconds."""
    begin = time.process_time()
    parts = [moving.parts(), fixed.parts()]
    found = align_sections(
        parts[0][0], parts[1][0], parts[0][1], parts[1][1], AlignParams(kind="affine", **params)
    )
    return found, time.process_time() - begin


def error_um(found: Transform, true: Transform, tissue: Raster) -> tuple[float, float]:
    """Median and greatest distance of found from true positions over the fixed tissue, µm."""
    points = tissue.lattice.centres_um()[np.asarray(tissue.values, bool)][::97]
    moving = true.inverse().apply(points)
    away = np.linalg.norm(found.apply(moving) - points, axis=1)
    return float(np.median(away)), float(away.max())


def phantom_cases(cohort: Path, n: int, seed: int) -> list[dict[str, Any]]:
    """Sections of the sample cohort after known random transforms."""
    rows = []
    folders = [cohort / name for name in CASES if (cohort / name).is_dir()]
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        case, stain = folders[number % len(folders)], ("he", "caix")[number // len(folders) % 2]
        section, placed = disturbed(overview(case, stain), rng, number % 4 == 3)
        fixed = overview(case, "cd34")
        true = placed.then(truth_of(case, stain))
        found, seconds = aligned(section, fixed)
        median, largest = error_um(found.transform, true, fixed.parts()[0])
        rows.append(
            {
                "case": case.name,
                "stain": stain,
                "angle_deg": true.angle_deg,
                "scale": true.scale,
                "mirrored": true.mirrored,
                "error_um": median,
                "largest_um": largest,
                "confidence": found.confidence,
                "inlier_fraction": found.inlier_fraction,
                "cpu_seconds": seconds,
                "success": median < SUCCESS_UM,
            }
        )
    return rows


def pet_cases(seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """PET slices of whole cohorts registered to their tissue, by outline and by likelihood."""
    rows = []
    for seed in seeds:
        for name in CASES:
            specimen = draw_specimen(name, "quick", seed)
            lattice, true = pet_pose(specimen.plan, specimen.anatomy, ScannerLaw())
            pet, _ = simulate_scan(specimen.uptake, lattice, true, specimen.plan, seed)
            inside = specimen.anatomy.sampled("tissue", 20.0) > 0
            tissue = Raster(inside, specimen.anatomy.lattice(20.0))
            outline = align_pet(pet, tissue, PetAlignParams(use_intensity=False))
            begin = time.process_time()
            found = align_pet(pet, tissue)
            seconds = time.process_time() - begin
            rows.append(
                {
                    "case": name,
                    "seed": seed,
                    "outline_um": error_um(outline.transform, true, tissue)[0],
                    "error_um": error_um(found.transform, true, tissue)[0],
                    "expected_um": found.position_error_um,
                    "confidence": found.confidence,
                    "cpu_seconds": seconds,
                }
            )
    return rows


def stored_cases(cohort: Path) -> list[dict[str, Any]]:
    """The alignments that a cohort's cases hold, beside the planted truth."""
    rows = []
    for folder in sorted(path.parent for path in cohort.glob("*/case.toml")):
        case = Case(folder)
        for frame in ALIGNMENT:
            if case.store.origin(ALIGNMENT[frame]) is None:
                continue
            record = case.store.read(ALIGNMENT[frame])
            tissue = case.store.read(TISSUE[REFERENCE])
            error = error_um(transform_of(record), truth_of(folder, frame), tissue)
            rows.append(
                {
                    "case": folder.name,
                    "frame": frame,
                    "error_um": error[0],
                    "expected_um": record.get("position_error_um"),
                    "confidence": record["confidence"],
                }
            )
    return rows


def print_stored(rows: list[dict[str, Any]]) -> None:
    """The stored alignments, a line each."""
    for row in rows:
        expected = row["expected_um"]
        told = "" if expected is None else f" (expected {expected:.0f} µm)"
        print(
            f"{row['case']:4} {row['frame']:5} error {row['error_um']:6.1f} µm{told}, "
            f"confidence {row['confidence']:.2f}"
        )


def wrong_pairs(cohort: Path, seed: int) -> list[dict[str, Any]]:
    """Pairs for which no alignment can be right."""
    folders = [cohort / name for name in CASES if (cohort / name).is_dir()]
    rows = []
    for number, case in enumerate(folders):
        fixed = overview(case, "cd34")
        rng = np.random.default_rng([seed, 1000 + number])
        other = next(f for f in reversed(folders) if f.name[0] != case.name[0])
        turned_over = disturbed(overview(case, "he"), rng, True)[0]
        for what, moving, params in (
            ("another specimen", overview(other, "he"), {}),
            ("mirror image, not allowed", turned_over, {"mirror": False}),
            ("empty picture", empty_like(fixed), {}),
        ):
            try:
                found = aligned(moving, fixed, **params)[0]
            except MosaikError as error:
                rows.append({"case": case.name, "what": what, "refused": str(error)})
                continue
            rows.append({"case": case.name, "what": what, "confidence": found.confidence})
    return rows


def empty_like(section: Section) -> Section:
    """Glass with a little noise."""
    rng = np.random.default_rng(0)
    noise = rng.normal(235, 2, section.picture.values.shape)
    lattice = section.picture.lattice
    plain = Lattice("moving", lattice.shape, lattice.spacing_um)
    return Section(Raster(np.clip(noise, 0, 255).astype(np.uint8), plain))


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cohort", type=Path, help="sample cohort (quick); made if it is not there"
    )
    parser.add_argument("--phantom", type=int, default=20, help="how many phantom alignments")
    parser.add_argument("--real", type=Path, default=REAL, help="folder of the real pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stored", action="store_true", help="only what DIR's cases hold")
    options = parser.parse_args()
    if options.stored:
        if options.cohort is None:
            parser.error("--stored needs --cohort DIR")
        rows = stored_cases(options.cohort)
        if options.json:
            print(json.dumps(rows, indent=1))
        else:
            print_stored(rows)
        return
    with tempfile.TemporaryDirectory() as scratch:
        cohort = options.cohort or Path(scratch) / "cohort"
        if not any(cohort.glob("*/case.toml")):
            for _ in sample(cohort, "quick", 0):
                pass
        report: dict[str, Any] = {
            name: found for name in REAL_PAIRS if (found := real_pair(name, options.real))
        }
        rows = phantom_cases(cohort, options.phantom, options.seed)
        wrong = wrong_pairs(cohort, options.seed)
    errors = [row["error_um"] for row in rows]
    failed = [row for row in rows if not row["success"]]
    report["phantom"] = {
        "n": len(rows),
        "success": len(rows) - len(failed),
        "failed_with_low_confidence": sum(row["confidence"] < LOW for row in failed),
        "median_error_um": float(np.median(errors)),
        "greatest_error_um": float(np.max(errors)),
        "least_confidence_of_right": min(r["confidence"] for r in rows if r["success"]),
        "cpu_seconds": float(np.median([row["cpu_seconds"] for row in rows])),
        "cases": rows,
    }
    pets = pet_cases((options.seed, options.seed + 1, options.seed + 2))
    report["pet"] = {
        "n": len(pets),
        "median_outline_um": float(np.median([row["outline_um"] for row in pets])),
        "greatest_outline_um": max(row["outline_um"] for row in pets),
        "median_error_um": float(np.median([row["error_um"] for row in pets])),
        "greatest_error_um": max(row["error_um"] for row in pets),
        "true_over_expected": float(
            np.sqrt(np.mean([(row["error_um"] / row["expected_um"]) ** 2 for row in pets]))
        ),
        "cpu_seconds": float(np.median([row["cpu_seconds"] for row in pets])),
        "cases": pets,
    }
    doubts = [row["confidence"] for row in wrong if "confidence" in row]
    report["wrong_pairs"] = {
        "n": len(wrong),
        "refused": sum("refused" in row for row in wrong),
        "greatest_confidence": max(doubts, default=0.0),
        "pairs": wrong,
    }
    if options.json:
        print(json.dumps(report, indent=1))
        return
    print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """The tables in words."""
    for name in REAL_PAIRS:
        if name in report:
            row = report[name]
            print(
                f"{name:8} median landmark error {row['error_px']:.2f} px (before "
                f"{row['before_px']:.1f}), confidence {row['confidence']:.2f}, "
                f"{row['align_seconds']:.1f} s"
            )
    phantom = report["phantom"]
    for row in phantom["cases"]:
        print(
            f"{row['case']:4} {row['stain']:5} {row['angle_deg']:7.1f}° scale {row['scale']:.3f} "
            f"{'mirrored' if row['mirrored'] else '        '} error {row['error_um']:7.1f} µm "
            f"confidence {row['confidence']:.2f}  {row['cpu_seconds']:.1f} s"
        )
    print(
        f"phantom: {phantom['success']} of {phantom['n']} below {SUCCESS_UM:g} µm, median "
        f"{phantom['median_error_um']:.1f} µm, greatest {phantom['greatest_error_um']:.1f} µm, "
        f"least confidence of a right one {phantom['least_confidence_of_right']:.2f}"
    )
    pet = report["pet"]
    print(
        f"PET: {pet['n']} slices, median error {pet['median_error_um']:.0f} µm, greatest "
        f"{pet['greatest_error_um']:.0f} µm (by the outline alone {pet['median_outline_um']:.0f} "
        f"and {pet['greatest_outline_um']:.0f} µm), true over expected error "
        f"{pet['true_over_expected']:.2f}, {pet['cpu_seconds']:.1f} s"
    )
    wrong = report["wrong_pairs"]
    print(
        f"pairs that do not belong together: {wrong['n']}, refused {wrong['refused']}, greatest "
        f"confidence {wrong['greatest_confidence']:.2f}"
    )


if __name__ == "__main__":
    main()
