"""How well nuclei are found on the real tiles, and how fast: every method side by side.

python benchmarks/nuclei.py [--weights FILE_OR_FOLDER ...] [--tiles FOLDER] [--left-out] [--half]
       [--json]

F1 at IoU 0.5 and AJI per tile, and the whole pipeline's time against the plain forward pass of the
network at the same pixel size, for the network that comes with the program, other ones, and the
classical method.  A network brings its thresholds.  With --left-out they are chosen on three
tiles and judged on the fourth, which is how those of the program's network were chosen.  With
--half the inputs, weights and outputs of each network's features are rounded to 16 bit, as a GPU
does (float16; bfloat16 for comparison); F1 and AJI against the nuclei with 32 bit stand beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch

from napari_mosaik.learning.devices import ComputeDevice
from napari_mosaik.segment import ClassicalNuclei
from napari_mosaik.segment.masks import renumber
from napari_mosaik.segment.metrics import object_scores
from napari_mosaik.segment.stardist import (
    StarDistNuclei,
    embedded_weights,
    load_stardist,
    predict_maps,
)
from napari_mosaik.segment.stardist.model import paint_polygons

TILES = Path(__file__).resolve().parents[2] / "shared/data/nuclei"
PROBABILITIES = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
OVERLAPS = (0.2, 0.3, 0.4)
OUTLINES_UM = (0.0, 0.1, 0.2, 0.3, 0.4)
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


def halved(weights, tiles, inner_type):
    """Scores with 16-bit features, and how far these nuclei are those with 32 bit."""
    whole, half = (StarDistNuclei(weights, device=ComputeDevice.cpu(1)) for _ in range(2))

    def rounded(tensor):
        return tensor.to(inner_type).float()

    for name, layer in half.network.layers.items():
        if name not in ("prob", "dist"):
            layer.weight.data, layer.bias.data = rounded(layer.weight), rounded(layer.bias)
            layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
            layer.register_forward_hook(lambda _, inputs, output: rounded(output))
    found = judge(half, tiles)
    for name, rgb, _, spacing_um in tiles:
        both = [model.segment(rgb, spacing_um) for model in (whole, half)]
        scores = object_scores(*both)
        found["tiles"][name] |= {"same_f1": scores.f1, "same_aji": scores.aji}
    return found


def left_out(weights, tiles):
    """F1 of each tile with the thresholds that are best on the others, and those best on all."""
    plain = dataclasses.replace(weights, outline_um=0.0)
    table = {}
    for prob, overlap in itertools.product(PROBABILITIES, OVERLAPS):
        model = StarDistNuclei(plain, prob_threshold=prob, nms_threshold=overlap)
        found = [model.candidates(rgb, spacing_um) for _, rgb, _, spacing_um in tiles]
        for outline_um in OUTLINES_UM:
            row = []
            for (_, _, truth, spacing_um), (points, scores, rays) in zip(tiles, found, strict=True):
                grown = points, scores, rays + np.float32(outline_um / plain.spacing_um)
                labels = paint_polygons(grown, truth.shape, plain.spacing_um / spacing_um)
                row.append(object_scores(truth, renumber(labels, 1)).f1)
            table[prob, overlap, outline_um] = row
    settings, f1 = list(table), np.array(list(table.values()))
    result = {}
    for number, (name, *_) in enumerate(tiles):
        best = int(np.delete(f1, number, 1).mean(axis=1).argmax())
        result[name] = {"f1": float(f1[best, number]), "chosen_on_the_others": settings[best]}
    best = int(f1.mean(axis=1).argmax())
    return {
        "tiles": result,
        "mean_f1": float(np.mean([tile["f1"] for tile in result.values()])),
        "best_on_all": settings[best],
        "best_on_all_mean_f1": float(f1[best].mean()),
    }


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
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tiles = list(read_tiles(given.tiles))
    results = {"classical": judge(ClassicalNuclei(), tiles)}
    for weights in (embedded_weights(), *map(load_stardist, given.weights)):
        model = StarDistNuclei(weights)
        found = {**judge(model, tiles), **speed(model, tiles[1][1])}
        if given.left_out:
            found["left_out"] = left_out(weights, tiles)
        results[f"{weights.name} {weights.hash[:8]}"] = found
        for inner_type in (torch.float16, torch.bfloat16) if given.half else ():
            name = f"{weights.name} {weights.hash[:8]} {inner_type}"
            results[name] = halved(weights, tiles, inner_type)
    if given.json:
        print(json.dumps(results, indent=1))
    else:
        tell(results)


def tell(results):
    """The results in lines of words."""
    for name, result in results.items():
        each = "  ".join(f"{tile} {v['f1']:.3f}" for tile, v in result["tiles"].items())
        print(f"{name}: F1 {each}  mean {result['mean_f1']:.3f}  AJI {result['mean_aji']:.3f}")
        if "torch" in name:
            each = "  ".join(
                f"{tile} F1 {v['same_f1']:.3f} AJI {v['same_aji']:.3f}, {v['found']} nuclei"
                for tile, v in result["tiles"].items()
            )
            print(f"    against 32 bit: {each}")
        if "megapixels_per_s" in result:
            print(
                f"    {result['megapixels_per_s']:.2f} Mpx/s, whole pipeline "
                f"{result['pipeline_to_forward_pass']:.2f} x the forward pass"
            )
        if "left_out" in result:
            print("    thresholds chosen on three tiles, judged on the fourth:")
            for tile, v in result["left_out"]["tiles"].items():
                print(f"        {tile}: F1 {v['f1']:.3f} with {v['chosen_on_the_others']}")
            print(f"        mean {result['left_out']['mean_f1']:.3f}")
            print(f"        best on all {result['left_out']['best_on_all']}")


if __name__ == "__main__":
    main()
