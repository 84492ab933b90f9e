"""How well vessels are found, and other brown left out, on scenes with known truth.

python benchmarks/vessels.py [--scenes N] [--method dab|hsv] [--spacing UM] [--picture FILE]
                             [--json]

Object F1 at an IoU of 0.5, bias of the area and the share of planted brown that was left out, per
scene and over all, with the rules and without.  *--picture* (0.25 µm/px, read at 1 µm) adds the
number of vessels of a real picture with and without the rules.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_mosaik.io import open_slide
from napari_mosaik.segment.false_positives import count_by_reason
from napari_mosaik.segment.metrics import object_scores
from napari_mosaik.segment.vessel_params import VesselParams
from napari_mosaik.segment.vessels import find_vessels

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scenes are test data
from tests.false_positive_scene import KINDS, brown_scene

RULES = [name for name in VesselParams.model_fields if name.startswith("exclude_")]
TOUCHED = 0.1
"""A planted object counts as left out if less than this share of it lies in vessels."""


def judge(seed, spacing_um, params):
    """Scores of one scene."""
    scene = brown_scene(seed, spacing_um)
    away = ndimage.distance_transform_edt(scene.tissue, sampling=spacing_um)
    begin = time.perf_counter()
    found = find_vessels(scene.image, params, scene.tissue & (away <= params.edge_um))
    seconds = time.perf_counter() - begin
    labels = found.vessels.array()
    scores = object_scores(scene.vessels, labels)
    out = {kind: [0, 0] for kind in KINDS}
    for label, kind in enumerate(scene.kinds, 1):
        out[kind][0] += (labels[scene.others == label] > 0).mean() < TOUCHED
        out[kind][1] += 1
    matched = np.isin(labels, np.unique(labels[scene.vessels > 0])) & (labels > 0)
    true_area = int((scene.vessels > 0).sum())
    stains = found.staining.stains
    return {
        "seed": seed,
        "f1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
        "area_bias": int((labels > 0).sum()) / true_area - 1,
        "area_bias_of_vessels": int(matched.sum()) / true_area - 1,
        "left_out": {kind: [int(n), int(all_)] for kind, (n, all_) in out.items()},
        "left_out_share": sum(n for n, _ in out.values()) / sum(n for _, n in out.values()),
        "stains": stains.source,
        "dab_error_deg": angle(stains.dab, scene.dab),
        "haematoxylin_error_deg": angle(stains.haematoxylin, scene.haematoxylin),
        "mpx_per_s": labels.size / 1e6 / seconds,
    }


def angle(one, other):
    """Degrees between two directions."""
    return float(np.degrees(np.arccos(np.clip(np.dot(one, other), -1, 1))))


def look_at(path, params):
    """Numbers of vessels of a real picture."""
    with open_slide(path, 0.25, frame="cd34") as slide:
        image = slide.read_lattice(slide.working_lattice(params.spacing_um))
    found = find_vessels(image, params)
    return {
        "vessels": int(found.vessels.array().max()),
        "left_out": count_by_reason(found.reasons),
        **found.staining.to_dict(),
    }


def say(results):
    """Print the results in words."""
    for name, found in results.items():
        print(name)
        for scene in found["scenes"]:
            words = ", ".join(f"{k} {n}/{all_}" for k, (n, all_) in scene["left_out"].items())
            print(
                f"  scene {scene['seed']}: F1 {scene['f1']:.3f}, area {scene['area_bias']:+.1%}, "
                f"left out {words}; DAB {scene['dab_error_deg']:.1f}° off, "
                f"{scene['mpx_per_s']:.0f} Mpx/s"
            )
        for key in ("f1", "area_bias", "left_out_share"):
            print(f"  {key}: " + ", ".join(f"{k} {v:.3f}" for k, v in found[key].items()))
        if "picture" in found:
            picture = found["picture"]
            print(f"  picture: {picture['vessels']} vessels, left out {picture['left_out']}")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=5)
    parser.add_argument("--method", default="dab", choices=("dab", "hsv"))
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = {}
    for name, rules in (("with rules", True), ("without", False)):
        params = VesselParams(method=given.method, **dict.fromkeys(RULES, rules))
        scenes = [judge(seed, given.spacing, params) for seed in range(given.scenes)]
        results[name] = {"scenes": scenes}
        for key in ("f1", "area_bias", "left_out_share"):
            values = [scene[key] for scene in scenes]
            results[name][key] = {
                "mean": float(np.mean(values)),
                "min": min(values),
                "max": max(values),
            }
        if given.picture:
            results[name]["picture"] = look_at(given.picture, params)
    if given.json:
        print(json.dumps(results, indent=1))
    else:
        say(results)


if __name__ == "__main__":
    main()
