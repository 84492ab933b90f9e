"""Tissue classes and CAIX on a case of the sample cohort that did not train, against its truth."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pyarrow.parquet as pq
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASS_RECORD,
    CLASSES,
    STAIN_FIT,
)
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import Raster
from napari_mosaik.io import Case, write_geojson
from napari_mosaik.phantom import sample
from napari_mosaik.register import transform_of
from napari_mosaik.segment import h_score, load_tissue_model
from napari_mosaik.segment.metrics import class_metrics, confusion_matrix
from napari_mosaik.tissue import StainFit, normalise
from napari_mosaik.workflow.classifier import retrain
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.steps.classes import class_at

TILE_UM = 400.0
VIEW_PX = 1024


def cohort(folder, size, training, test):
    """The training cases and the held-out one, made where they are not there yet."""
    run_to_end(sample(folder, size, 0, (*training, test)))
    cases = [Case(folder / name) for name in (*training, test)]
    for case in cases:
        run(case, "stain")
    return cases[:-1], cases[-1]


def run(case, until):
    """Compute what is missing up to a step."""
    for _ in run_until(case, read_recipe(case.root), until):
        pass


def measured(training, test, shapes):
    """Dice on the held-out case of a fast classifier trained on so many shapes."""
    kept = {case.root: case.annotations_path("he").read_bytes() for case in training}
    try:
        thin_out(training, shapes)
        forget(test)
        run_to_end(retrain(training, [test]))  # what is loaded and compiled once is not counted
        trained = []
        for seed in (3, 2, 1):
            forget(test)
            begin, cpu = time.perf_counter(), time.process_time()
            made = run_to_end(retrain(training, [test], seed=seed))
            trained.append((time.perf_counter() - begin, time.process_time() - cpu))
    finally:
        for case in training:
            case.annotations_path("he").write_bytes(kept[case.root])
    run(test, "classes")
    scores = class_metrics(against_truth(test)).to_dict(made["classes"])
    dice = [one["dice"] for one in scores["classes"].values()]
    return {
        "shapes": made["n_shapes"],
        "dice_mean": float(np.mean(dice)),
        "scores": scores,
        "held_out_shapes": made["held_out"],
        "mean_uncertainty": test.store.read(CLASS_RECORD)["mean_uncertainty"],
        "training_s": float(np.median([wall for wall, _ in trained])),
        "training_cpu_s": float(np.median([cpu for _, cpu in trained])),
        **view_speed(test, made["model"]),
    }


def forget(case):
    """Remove the models: a training that is known would not be repeated."""
    shutil.rmtree(case.root / "models", ignore_errors=True)


def thin_out(cases, count):
    """Leave about *count* shapes in all cases together, of every class in turn."""
    for number, case in enumerate(cases):
        by_class = {}
        for shape in case.annotations("he"):
            by_class.setdefault(shape.label, []).append(shape)
        share = count // len(cases) + (number < count % len(cases))
        kept = []
        while len(kept) < share and any(by_class.values()):
            kept += [shapes.pop(0) for shapes in by_class.values() if shapes][: share - len(kept)]
        with case.slide("he") as slide:
            write_geojson(case.annotations_path("he"), kept, slide.lattice)


def against_truth(case):
    """Confusion of true and found classes on the truth's samples; not classified is background."""
    truth = np.load(case.root / "truth/masks.npz")
    true, spacing = truth["classes"], truth["spacing_um"]
    points = (np.indices(true.shape).reshape(2, -1).T + 0.5) * spacing
    found = class_at(case.store.read(CLASSES), apply(np.linalg.inv(to_cd34(case, "he")), points))
    return confusion_matrix(true.ravel(), np.where(found == 0, 1, found), 3)


def to_cd34(case, frame):
    """The true matrix from a section to CD34."""
    record = json.loads((case.root / "truth/truth.json").read_text())
    return np.array(record["transforms"][frame]["matrix"])


def apply(matrix, points):
    """Points moved by a (3, 3) matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def view_speed(case, model):
    """Seconds for the classes of a view of 1024 x 1024 pixels at the classifier's pixel size."""
    trained = load_tissue_model(case.model_folder(model))
    fit = StainFit.from_dict(case.store.read(STAIN_FIT))
    with case.slide("he") as slide:
        lattice = slide.working_lattice(trained.read_spacing_um)
        middle = [
            slice(max(0, n // 2 - VIEW_PX // 2), min(n, n // 2 + VIEW_PX // 2))
            for n in lattice.shape
        ]
        part = lattice.crop(*middle)
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            pixels = normalise(slide.read_lattice(part).values, fit)
            trained.predict(Raster(pixels, part))
            seconds.append(time.perf_counter() - begin)
    return {"view_s": float(np.median(seconds)), "view_px": list(part.shape)}


def caix(case):
    """H-score of the truth's tiles against the planted one, with the program's own alignment."""
    run(case, "classes")
    run(case, "align_he")
    run(case, "align_caix")
    run(case, "caix")
    cells = case.store.read(CAIX_CELLS)
    use = np.asarray(cells["tumour"], bool)
    points = transform_of(case.store.read(ALIGNMENT["caix"])).apply(cells.points_um())[use]
    grades = np.asarray(cells["grade"])[use]
    truth = pq.read_table(case.root / "truth/tiles.parquet")
    centres = np.stack([truth["row_um"].to_numpy(), truth["col_um"].to_numpy()], axis=1)
    members = cKDTree(points).query_ball_point(centres, TILE_UM / 2, p=np.inf)
    found = np.array([h_score(grades[m]) if len(m) else np.nan for m in members])
    true = truth["h_score"].to_numpy()
    known = np.isfinite(found) & np.isfinite(true)
    error = (found - true)[known]
    return {
        "tiles": int(known.sum()),
        "spearman": float(spearmanr(found[known], true[known])[0]),
        "mean_absolute_error": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "error_percentiles_5_50_95": np.percentile(error, (5, 50, 95)).tolist(),
        "tumour_cells": int(use.sum()),
    }
