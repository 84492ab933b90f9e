"""Train the network for nuclei in the package; no image has labels drawn manually.

python benchmarks/nuclei_training.py OUT [--pictures FOLDER] [--steps 3000 3000 6000] [--seed 11]

Three kinds of scenes: the phantom's H&E, scenes composed of cut nuclei and ground of two real
slides, and these slides themselves where labels are sure.  After each round the labels of the real
slides are recomputed by the network of that round.  The thresholds are the best on held-out scenes:
composed ones of another seed and the phantom case B8.  The labelled tiles of `nuclei.py` take no
part.

One thread; about an hour and a half of an undisturbed core with the defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from _nuclei_composed import Composer, Ground, cut_nuclei
from _nuclei_pictures import agreed_labels, first_labels, pieces, read_pictures
from _nuclei_scenes import Scenes
from nuclei_candidates import trained_forest
from stardist_training import Scene, StarDistTrainingParams, train_stardist

from napari_mosaik.segment.metrics import object_scores
from napari_mosaik.segment.stardist import EMBEDDED, StarDistNuclei, save_stardist

PICTURES = Path(__file__).resolve().parents[2] / "shared/data/wsi"
SIDE_PX = 256
TRAINED_ON, HELD_OUT = ("A2", "B11"), "B8"
N_PHANTOM, N_COMPOSED, N_REAL, N_HELD_OUT = 320, 480, 240, 20
SHARES = ((0.20, 0.55, 0.25), (0.15, 0.40, 0.45))
"""Share of phantom, composed and real scenes in the first round and in later ones."""
RATES = (2e-3, 1.5e-3)
PROBABILITIES = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
OVERLAPS = (0.2, 0.3, 0.4)


def phantom_scenes(n, seed, cases):
    """Scenes of the phantom's H&E sections."""
    drawn = Scenes(seed, cases)
    return [Scene(*drawn.draw(SIDE_PX)) for _ in range(n)]


def composed_scenes(n, seed, real, grounds):
    """Scenes composed of the nuclei that are sure by now."""
    sources = [(ground, cut_nuclei(real[name].rgb, real[name].labels)) for name, ground in grounds]
    if not all(cuts for _, cuts in sources):
        raise SystemExit("the network finds no nucleus alike in all turns: give it more steps")
    composer = Composer(sources, seed)
    return [composer.draw(SIDE_PX) for _ in range(n)]


def trained(scenes, shares, steps, seed, start):
    """The network of one round."""
    chances = np.concatenate(
        [np.full(len(kind), share / len(kind)) for kind, share in zip(scenes, shares, strict=True)]
    )
    everything = [scene for kind in scenes for scene in kind]
    rate = RATES[0] if start is None else RATES[1]
    params = StarDistTrainingParams(steps=steps, learning_rate=rate)
    rng = np.random.default_rng(seed)
    work = train_stardist(everything, params, rng, chances=chances, name=EMBEDDED, start=start)
    losses = []
    while True:
        try:
            losses.append(next(work).loss)
        except StopIteration as end:
            return end.value
        if len(losses) % 250 == 0:
            print(f"step {len(losses)}: loss {np.mean(losses[-250:]):.4f}", flush=True)


def with_thresholds(weights, scenes):
    """The weights with the thresholds of the best mean F1 at IoU 0.5, and that F1."""
    best = weights, -1.0
    for prob in PROBABILITIES:
        for overlap in OVERLAPS:
            model = StarDistNuclei(weights, prob_threshold=prob, nms_threshold=overlap)
            found = [object_scores(s.labels, model.segment(s.rgb, 0.5)).f1 for s in scenes]
            if np.nanmean(found) > best[1]:
                chosen = dataclasses.replace(weights, prob_threshold=prob, nms_threshold=overlap)
                best = chosen, float(np.nanmean(found))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--steps", type=int, nargs="+", default=(3000, 3000, 6000))
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(given.seed)
    pictures = read_pictures(given.pictures)
    forest = trained_forest(160, given.seed)
    real, grounds = {}, []
    for name in ("skin", "gland"):
        real[name], places = first_labels(pictures[name], forest)
        grounds.append((name, Ground(pictures[name], places, rng)))
    phantom = phantom_scenes(N_PHANTOM, given.seed, TRAINED_ON)
    held_out_scenes = phantom_scenes(N_HELD_OUT, given.seed + 1, (HELD_OUT,))
    held_out_scenes += composed_scenes(N_HELD_OUT, given.seed + 1, real, grounds)
    weights = None
    for number, steps in enumerate(given.steps):
        if weights is not None:
            real = {name: agreed_labels(rgb, weights) for name, rgb in pictures.items()}
        composed = composed_scenes(N_COMPOSED, given.seed + 10 + number, real, grounds)
        sure = [piece for scene in real.values() for piece in pieces(scene, N_REAL, rng)]
        shares = SHARES[min(number, 1)]
        weights = trained((phantom, composed, sure), shares, steps, given.seed + number, weights)
        weights, score = with_thresholds(weights, held_out_scenes)
        print(f"round {number + 1}: F1 on held-out scenes {score:.4f}", flush=True)
    record = {
        "trained_on": "phantom cases A2 and B11; scenes composed of, and pieces of, "
        "CMU-1-Small-Region.svs (CC0) and InstanSeg_HE_example.ome.tif (Apache-2.0); pieces of "
        "scikit-image's immunohistochemistry image. No label was drawn manually",
        "steps": list(given.steps),
        "seed": given.seed,
        "held_out_f1": round(score, 4),
    }
    weights = dataclasses.replace(weights, training={**weights.training, **record})
    save_stardist(weights, given.out)
    print(f"weights {weights.hash}")


if __name__ == "__main__":
    main()
