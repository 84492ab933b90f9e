"""Trains a StarDist network on the phantom alone and picks its thresholds on held-out scenes.

python benchmarks/nuclei_training.py OUT [--scenes 600] [--steps 5000] [--seed 11] [--start FOLDER]

One thread; about 25 minutes with the defaults. No real picture is looked at: `nuclei.py` does that.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from _nuclei_scenes import Scenes

from napari_mosaik.segment.scores import object_scores
from napari_mosaik.segment.stardist import StarDistNuclei, load_stardist, save_stardist
from napari_mosaik.segment.stardist.training import StarDistTrainingParams, train_stardist

SIDE_PX = 256
HELD_OUT = "B8"
PROBABILITIES = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
OVERLAPS = (0.2, 0.3, 0.4, 0.5)


def scenes(n, seed, cases=("A2", "B11")):
    """Pictures and labels of *n* scenes."""
    drawn = Scenes(seed, cases)
    return tuple(zip(*[drawn.draw(SIDE_PX) for _ in range(n)], strict=True))


def with_thresholds(weights, pictures, labels):
    """The weights with the thresholds of the best mean F1 at IoU 0.5, and that F1."""
    best = weights, -1.0
    for prob in PROBABILITIES:
        for overlap in OVERLAPS:
            model = StarDistNuclei(weights, prob_threshold=prob, nms_threshold=overlap)
            found = [
                object_scores(truth, model.segment(picture, 0.5)).f1
                for picture, truth in zip(pictures, labels, strict=True)
            ]
            if np.nanmean(found) > best[1]:
                chosen = dataclasses.replace(weights, prob_threshold=prob, nms_threshold=overlap)
                best = chosen, float(np.nanmean(found))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pictures, labels = scenes(given.scenes, given.seed)
    params = StarDistTrainingParams(steps=given.steps, learning_rate=given.rate)
    record = {"scenes": given.scenes, "seed": given.seed, "cases": ["A2", "B11"]}
    start = load_stardist(given.start) if given.start else None
    work = train_stardist(
        pictures,
        labels,
        params,
        np.random.default_rng(given.seed),
        name="phantom_he",
        start=start,
        training=record,
    )
    losses = []
    while True:
        try:
            losses.append(next(work).loss)
        except StopIteration as end:
            weights = end.value
            break
        if len(losses) % 250 == 0:
            print(f"step {len(losses)}: loss {np.mean(losses[-250:]):.4f}", flush=True)
    weights, score = with_thresholds(weights, *scenes(24, given.seed + 1, (HELD_OUT,)))
    training = {**weights.training, "held_out_case": HELD_OUT, "held_out_f1": round(score, 4)}
    weights = dataclasses.replace(weights, training=training)
    save_stardist(weights, given.out)
    print(f"F1 on held-out scenes {score:.4f}, weights {weights.hash}")


if __name__ == "__main__":
    main()
