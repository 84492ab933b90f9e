"""The real pictures that train the network, and labels of their nuclei that nobody drew.

First labels come from thresholds judged by a forest that saw only the phantom
(`nuclei_candidates.py`); later ones are the nuclei that the network of the round before finds alike
in several turns of the picture.  Where the turns disagree nothing is learned.
"""

from __future__ import annotations

import numpy as np
import tifffile
from _nuclei_composed import density, ink
from nuclei_candidates import candidates, choose
from scipy.ndimage import binary_dilation, binary_opening, gaussian_filter
from skimage import data
from skimage.measure import regionprops
from skimage.morphology import remove_small_objects
from stardist_training import Scene

from napari_mosaik.io import open_slide
from napari_mosaik.segment.nuclei import nuclear_density
from napari_mosaik.segment.stardist import StarDistNuclei, intensity_range
from napari_mosaik.tissue import MacenkoParams, fit_macenko

PIECE_PX = 200
TURNS = 6
ALIKE = 0.72


def read_pictures(folder):
    """H&E of two slides and the counterstain of an antibody's, all at about 0.5 µm."""
    with open_slide(folder / "CMU-1-Small-Region.svs") as slide:
        skin = slide.read_lattice(slide.lattice).values
    gland = tifffile.imread(folder / "InstanSeg_HE_example.ome.tif")
    gland = np.moveaxis(gland, 0, -1) if gland.shape[0] == 3 else gland
    return {
        "skin": np.ascontiguousarray(skin),
        "gland": np.ascontiguousarray(gland[..., :3]),
        "counterstain": data.immunohistochemistry(),
    }


def nuclear_places(rgb, loose):
    """Where nuclei may be: more haematoxylin than around, or a candidate however doubtful."""
    fit = fit_macenko(rgb.reshape(-1, 3)[::3], MacenkoParams())
    vectors = np.asarray(fit.vectors, float).T if fit.usable else None
    amount = gaussian_filter(nuclear_density(rgb, vectors), 1.0)
    dark = (amount > 1.08 * gaussian_filter(amount, 14) + 0.02) & (amount > 0.15)
    return remove_small_objects(dark | loose, max_size=25)


def first_labels(rgb, forest):
    """A scene with the sure nuclei of a picture, and all places that may be nuclei."""
    found = candidates(rgb)
    guesses = [forest.predict(f) if len(f) else np.zeros(0) for _, f in found]
    labels = choose(found, guesses, 0.35, 0.1, 0.25)
    places = nuclear_places(rgb, (choose(found, guesses, 0.15, 0.3, 0.1) > 0) | (labels > 0))
    sure, od = np.zeros_like(labels), density(rgb)
    for number, part in enumerate(regionprops(labels), 1):
        if 24 <= part.area <= 700 and part.solidity >= 0.88 and _stands_out(part, labels, od):
            sure[part.slice][part.image] = number
    hidden = binary_dilation(places, iterations=2) & ~binary_dilation(sure > 0, iterations=2)
    return Scene(rgb, sure, (hidden | ink(od)) & (sure == 0)), places


def _stands_out(part, labels, od):
    """Whether a part is darker than its rim, and the rim is not dark itself."""
    rows, cols = (slice(max(0, s.start - 4), s.stop + 4) for s in part.slice)
    mask = labels[rows, cols] == part.label
    ring = binary_dilation(mask, iterations=3) & ~binary_dilation(mask)
    red = od[rows, cols][..., 0]
    middle = (red[mask].mean() + red[ring].mean()) / 2
    return red[mask].mean() - red[ring].mean() > 0.12 and (red[ring] > middle).mean() < 0.25


def agreed_labels(rgb, weights):
    """A scene with the nuclei that the network finds alike in several turns of the picture."""
    stained = rgb[rgb.mean(-1) < 225]
    model = StarDistNuclei(
        weights, intensity_range(stained), prob_threshold=max(0.3, weights.prob_threshold - 0.1)
    )
    turns = [_back(model.segment(_turned(rgb, k), 0.5), k) for k in range(TURNS)]
    base, n = turns[0], int(turns[0].max()) + 1
    alike, seen = np.zeros(n), base > 0
    for other in turns[1:]:
        m = int(other.max()) + 1
        shared = np.bincount(base.ravel().astype(np.int64) * m + other.ravel(), minlength=n * m)
        shared = shared.reshape(n, m)
        union = shared.sum(1)[:, None] + shared.sum(0)[None] - shared
        alike += (shared / np.maximum(union, 1))[:, 1:].max(1, initial=0.0) / (TURNS - 1)
        seen |= other > 0
    keep = alike > ALIKE
    keep[0] = False
    labels = np.where(keep[base] & ~ink(density(rgb)), base, 0).astype(np.int32)
    doubt = binary_dilation(binary_opening(seen & (labels == 0))) | ink(density(rgb))
    return Scene(rgb, labels, doubt & (labels == 0))


def _turned(rgb, k):
    turned = np.rot90(rgb, k % 4)
    return np.ascontiguousarray(turned[:, ::-1] if k >= 4 else turned)


def _back(labels, k):
    return np.ascontiguousarray(np.rot90(labels[:, ::-1] if k >= 4 else labels, -(k % 4)))


def pieces(scene, n, rng):
    """Pieces of a large scene that hold known nuclei and are not mostly hidden."""
    found = []
    while len(found) < n:
        row, col = (int(rng.integers(size - PIECE_PX)) for size in scene.labels.shape)
        here = (slice(row, row + PIECE_PX), slice(col, col + PIECE_PX))
        if (scene.labels[here] > 0).mean() > 0.02 and scene.ignored[here].mean() < 0.6:
            found.append(Scene(scene.rgb[here], scene.labels[here], scene.ignored[here]))
    return found
