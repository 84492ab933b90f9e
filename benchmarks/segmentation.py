"""How well and how fast vessels, nuclei, tissue classes and CAIX are found, against known truth.

python benchmarks/segmentation.py [--json] [--quick] [--sample FOLDER] [--weights FOLDER ...]

On the phantom's truth and on real pictures (../shared/data; parts whose pictures are absent are
skipped and named).  *--sample* keeps the sample cohort and its results for another run.
*--weights* adds StarDist networks.  *--quick* takes the smallest cohort and fewer scenes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import _segmentation_phantom as phantom
import numpy as np
from nuclei import TILES, judge, read_tiles, speed
from scipy import ndimage
from skimage.io import imread
from vessels import judge as judge_vessels
from vessels import look_at

from napari_mosaik.core.colour import DAB, HAEMATOXYLIN
from napari_mosaik.segment import ClassicalNuclei, NucleiParams, VesselParams
from napari_mosaik.segment.metrics import object_scores

DATA = TILES.parent
BARS = {
    "nuclei_f1_mean": (">=", 0.76),
    "deepliif_f1_positive": (">=", 0.70),
    "deepliif_f1_negative": (">=", 0.70),
    "vessels_f1_mean": (">=", 0.90),
    "vessels_area_bias_worst": ("<=", 0.05),
    "vessels_left_out_share": (">=", 0.90),
    "caix_spearman": (">=", 0.95),
    "caix_mean_absolute_error": ("<=", 15.0),
    "classes_dice_mean": (">=", 0.90),
    "classes_dice_mean_50_shapes": (">=", 0.85),
    "classes_training_s_50_shapes": ("<=", 2.0),
    "classes_view_s": ("<=", 1.0),
    "network_pipeline_to_forward_pass": ("<=", 1.3),
}
DEEPLIIF_SPACING_UM = 0.25


def nuclei(given, skipped):
    """F1 and AJI of each real tile: the default, the classical method, networks that are given."""
    if not (given.data / "nuclei").is_dir():
        skipped.append(f"nuclei: {given.data / 'nuclei'} is not there")
        return {}
    from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights, load_stardist

    tiles = list(read_tiles(given.data / "nuclei"))
    results = {"classical": judge(ClassicalNuclei(), tiles)}
    for weights in (embedded_weights(), *map(load_stardist, given.weights)):
        model = StarDistNuclei(weights)
        name = "default" if not results.get("default") else f"{weights.name} {weights.hash[:8]}"
        results[name] = {
            **model.provenance,
            **judge(model, tiles),
            **speed(model, tiles[1][1]),
        }
    return results


def deepliif(given, skipped):
    """F1 of Ki67-positive and -negative nuclei.

    Positive nuclei are those of the amount of DAB, negative ones those of the default method that
    no positive one covers by half.
    """
    from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights

    picture = given.data / "ihc/deepliif/22_2.png"
    if not picture.is_file():
        skipped.append(f"DeepLIIF: {picture} is not there")
        return {}
    rgb = np.ascontiguousarray(imread(picture)[..., :3])
    drawn = imread(picture.with_suffix(".groundtruth.png"))[..., :3] > 128
    inside = drawn[..., 0] | drawn[..., 2]
    labels, _ = ndimage.label(inside)
    away, (row, col) = ndimage.distance_transform_edt(~inside, return_indices=True)
    labels = np.where(inside | (drawn[..., 1] & (away <= 3)), labels[row, col], 0)
    positive = np.isin(labels, np.unique(labels[drawn[..., 0]])) & (labels > 0)
    vectors = np.array([HAEMATOXYLIN, DAB]).T
    params = NucleiParams(spacing_um=DEEPLIIF_SPACING_UM)
    brown = ClassicalNuclei(params, vectors[:, ::-1]).segment(rgb, DEEPLIIF_SPACING_UM)
    blue = StarDistNuclei(embedded_weights()).segment(rgb, DEEPLIIF_SPACING_UM)
    covered = ndimage.mean(brown > 0, blue, np.arange(blue.max() + 1)) > 0.5
    found = {"positive": brown, "negative": np.where(covered[blue], 0, blue)}
    truth = {"positive": np.where(positive, labels, 0), "negative": np.where(positive, 0, labels)}
    scores = {name: object_scores(truth[name], found[name]) for name in truth}
    return {
        name: {"f1": s.f1, "aji": s.aji, "true": s.n_true, "found": s.n_found}
        for name, s in scores.items()
    }


def vessels(given, skipped):
    """Scores of scenes with planted vessels and planted brown; numbers of the real picture."""
    scenes = [judge_vessels(seed, 1.0, VesselParams()) for seed in range(2 if given.quick else 5)]
    results = {
        "scenes": scenes,
        "f1_mean": float(np.mean([scene["f1"] for scene in scenes])),
        "area_bias_worst": max((s["area_bias"] for s in scenes), key=abs),
        "left_out_share": float(np.mean([scene["left_out_share"] for scene in scenes])),
    }
    picture = given.data / "ihc/cd31_vessels_left.png"
    if picture.is_file():
        results["picture"] = look_at(picture, VesselParams())
    else:
        skipped.append(f"real vessels: {picture} is not there")
    return results


def classes_and_caix(given):
    """Tissue classes and CAIX of a held-out case of the sample cohort."""
    with tempfile.TemporaryDirectory() as scratch:
        size = "tiny" if given.quick else "quick"
        training, test = ("A2", "B8") if given.quick else ("A2", "A3"), "B11"
        folder = (given.sample or Path(scratch)) / size
        folder.mkdir(parents=True, exist_ok=True)
        train, held_out = phantom.cohort(folder, size, training, test)
        few = phantom.measured(train, held_out, 50)
        return {
            "size": size,
            "trained_by": list(training),
            "test": test,
            "50 shapes": few,
            "all shapes": phantom.measured(train, held_out, 10_000),
            "caix": phantom.caix(held_out),
        }


def nuclei_speed(given, skipped):
    """The classical method against a plain loop of scikit-image: interleaved, medians."""
    if not (given.data / "nuclei").is_dir():
        skipped.append("speed of nuclei: the tiles are not there")
        return {}
    tiles = [(rgb, spacing_um) for _, rgb, _, spacing_um in read_tiles(given.data / "nuclei")]
    model, ours, theirs, count = ClassicalNuclei(), [], [], 0
    for _ in range(2 if given.quick else 5):
        for times, work in ((ours, model.segment), (theirs, scikit_image_nuclei)):
            begin = time.perf_counter()
            found = [work(rgb, spacing_um) for rgb, spacing_um in tiles]
            times.append(time.perf_counter() - begin)
            if times is ours:
                count = sum(int(labels.max()) for labels in found)
    megapixels = sum(rgb.shape[0] * rgb.shape[1] for rgb, _ in tiles) / 1e6
    own, loop = statistics.median(ours), statistics.median(theirs)
    return {
        "mpx_per_s": megapixels / own,
        "nuclei_per_s": count / own,
        "scikit_image_mpx_per_s": megapixels / loop,
        "ratio_to_scikit_image": loop / own,
    }


def scikit_image_nuclei(rgb, spacing_um):
    """The usual recipe: HED, Otsu, distance, peaks, watershed, small ones removed."""
    from skimage import color, feature, filters, measure, morphology, segmentation

    stain = filters.gaussian(color.rgb2hed(rgb)[..., 0], 0.5 / spacing_um)
    mask = stain > filters.threshold_otsu(stain)
    mask = ndimage.binary_fill_holes(morphology.opening(mask, morphology.disk(2)))
    depth = filters.gaussian(ndimage.distance_transform_edt(mask), 0.5 / spacing_um)
    peaks = feature.peak_local_max(
        depth, min_distance=max(1, round(2 / spacing_um)), labels=measure.label(mask)
    )
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, seeds, mask=mask)


def figures(results):
    """The figures that have a bar, by name; those that were not measured are left out."""
    found, phantom_ = {}, results["phantom"]
    if results["nuclei"]:
        found["nuclei_f1_mean"] = results["nuclei"]["default"]["mean_f1"]
        key = "pipeline_to_forward_pass"
        ratios = [method[key] for method in results["nuclei"].values() if key in method]
        if ratios:
            found[f"network_{key}"] = max(ratios)
    for name, scores in results["deepliif"].items():
        found[f"deepliif_f1_{name}"] = scores["f1"]
    for name in ("f1_mean", "left_out_share"):
        found[f"vessels_{name}"] = results["vessels"][name]
    found["vessels_area_bias_worst"] = abs(results["vessels"]["area_bias_worst"])
    found["caix_spearman"] = phantom_["caix"]["spearman"]
    found["caix_mean_absolute_error"] = phantom_["caix"]["mean_absolute_error"]
    found["classes_dice_mean"] = phantom_["all shapes"]["dice_mean"]
    found["classes_dice_mean_50_shapes"] = phantom_["50 shapes"]["dice_mean"]
    found["classes_training_s_50_shapes"] = phantom_["50 shapes"]["training_s"]
    found["classes_view_s"] = phantom_["50 shapes"]["view_s"]
    return found


def say(results):
    """Print what was measured beside its bar, then each picture."""
    for name, value in results["figures"].items():
        sign, bar = BARS[name]
        met = value >= bar if sign == ">=" else value <= bar
        print(f"{name:34} {value:8.3f}   bar {sign} {bar:g}   {'met' if met else 'MISSED'}")
    for method, found in results["nuclei"].items():
        for tile, s in found["tiles"].items():
            print(f"nuclei {method}, tile {tile}: F1 {s['f1']:.3f}, AJI {s['aji']:.3f}")
    for scene in results["vessels"]["scenes"]:
        print(
            f"vessels, scene {scene['seed']}: F1 {scene['f1']:.3f}, area {scene['area_bias']:+.1%}"
        )
    for shapes in ("50 shapes", "all shapes"):
        for name, s in results["phantom"][shapes]["scores"]["classes"].items():
            words = ", ".join(f"{key} {value:.3f}" for key, value in s.items() if value is not None)
            print(f"classes, {shapes}, {name}: {words}")
    print("CAIX:", json.dumps(results["phantom"]["caix"]))
    print("speed of the classical nuclei:", json.dumps(results["speed"]))
    for text in results["skipped"]:
        print(f"skipped: {text}")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sample", type=Path, help="folder of the sample cohort, kept")
    parser.add_argument("--weights", type=Path, nargs="*", default=[])
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    skipped = []
    results = {
        "nuclei": nuclei(given, skipped),
        "deepliif": deepliif(given, skipped),
        "vessels": vessels(given, skipped),
        "phantom": classes_and_caix(given),
        "speed": nuclei_speed(given, skipped),
        "skipped": skipped,
    }
    results["figures"] = figures(results)
    if given.json:
        print(json.dumps({**results["figures"], "bars": BARS, "details": results}, indent=1))
        return
    say(results)


if __name__ == "__main__":
    main()
