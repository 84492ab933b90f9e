"""How well nuclei are found on the real tiles, and how fast: every method side by side.

python benchmarks/nuclei.py [--weights FILE_OR_FOLDER ...] [--tiles FOLDER] [--json]

F1 at IoU 0.5 and AJI per tile, and the whole pipeline's time against the plain forward pass of the
network at the same pixel size.  The tiles pick nothing: a network brings its thresholds with it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from napari_mosaik.segment import ClassicalNuclei
from napari_mosaik.segment.scores import object_scores
from napari_mosaik.segment.stardist import StarDistNuclei, load_stardist, predict_maps

TILES = Path(__file__).resolve().parents[2] / "shared/data/nuclei"
SPACING_UM = {"01": 0.5, "05": 0.5, "08": 0.25, "12": 0.25}


def read_tiles(folder):
    """Name, picture, labels and pixel size of each tile."""
    import tifffile
    from skimage.io import imread

    for name, spacing_um in SPACING_UM.items():
        rgb = np.ascontiguousarray(imread(folder / f"image{name}.png")[..., :3])
        yield name, rgb, tifffile.imread(folder / f"image{name}_labels.tif"), spacing_um


def judge(model, tiles):
    """Scores of each tile and their mean."""
    found = {}
    for name, rgb, truth, spacing_um in tiles:
        scores = object_scores(truth, model.segment(rgb, spacing_um))
        found[name] = {
            "f1": scores.f1,
            "aji": scores.aji,
            "precision": scores.precision,
            "recall": scores.recall,
            "found": scores.n_found,
            "true": scores.n_true,
        }
    means = {
        f"mean_{key}": float(np.mean([v[key] for v in found.values()])) for key in ("f1", "aji")
    }
    return {"tiles": found, **means}


def timed(work, repeats=3):
    """Least seconds of a few runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def speed(model, rgb):
    """Seconds for a picture at the network's pixel size, against the forward pass alone."""
    plain = rgb.astype(np.float32) / 255
    forward = timed(lambda: predict_maps(model.network, plain))
    whole = timed(lambda: model.segment(rgb, model.spacing_um))
    megapixels = rgb.shape[0] * rgb.shape[1] / 1e6
    return {
        "megapixels_per_s": megapixels / whole,
        "pipeline_to_forward_pass": whole / forward,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--tiles", type=Path, default=TILES)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tiles = list(read_tiles(given.tiles))
    results = {"classical": judge(ClassicalNuclei(), tiles)}
    for path in given.weights:
        model = StarDistNuclei(load_stardist(path))
        results[f"stardist {model.weights.name} {model.weights.hash[:8]}"] = {
            **judge(model, tiles),
            **speed(model, tiles[1][1]),
        }
    if given.json:
        print(json.dumps(results, indent=1))
        return
    for name, result in results.items():
        each = "  ".join(f"{tile} {v['f1']:.3f}" for tile, v in result["tiles"].items())
        print(f"{name}: F1 {each}  mean {result['mean_f1']:.3f}  AJI {result['mean_aji']:.3f}")
        if "megapixels_per_s" in result:
            print(
                f"    {result['megapixels_per_s']:.2f} Mpx/s, whole pipeline "
                f"{result['pipeline_to_forward_pass']:.2f} x the forward pass"
            )


if __name__ == "__main__":
    main()
