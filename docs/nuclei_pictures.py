"""Pictures of nuclei that the program's network finds, good and bad, on pictures that may be shown.

Run from the repository's root, with the folder that holds CMU-1-Small-Region.svs (CC0) and
InstanSeg_HE_example.ome.tif (Apache-2.0)::

    python docs/nuclei_pictures.py FOLDER

The third picture is scikit-image's ``data.immunohistochemistry()``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from skimage.data import immunohistochemistry
from skimage.segmentation import find_boundaries

from napari_mosaik.io import open_slide
from napari_mosaik.segment.stardist import StarDistNuclei, embedded_weights, intensity_range

HERE = Path(__file__).resolve().parent / "images"
SIDE_PX, ZOOM, GAP_PX, COLUMNS = 160, 3, 6, 2
OUTLINE = (57, 255, 20)
SHOWN = {
    "nuclei_good": (
        ("gland", 600, 350),
        ("gland", 150, 500),
        ("skin", 720, 960),
        ("counterstain", 190, 200),
    ),
    "nuclei_bad": (
        ("skin", 2010, 1150),
        ("gland", 160, 960),
        ("gland", 690, 380),
        ("skin", 940, 1000),
    ),
}


def read_pictures(folder):
    """The three pictures at 0.5 µm."""
    with open_slide(folder / "CMU-1-Small-Region.svs") as slide:
        skin = slide.read_lattice(slide.lattice).values
    gland = tifffile.imread(folder / "InstanSeg_HE_example.ome.tif")
    gland = np.moveaxis(gland, 0, -1) if gland.shape[0] == 3 else gland
    gland = np.ascontiguousarray(gland[..., :3])
    return {"skin": skin, "gland": gland, "counterstain": immunohistochemistry()}


def outlined(rgb, labels):
    """The picture beside itself with outlines, enlarged."""
    large, inner = (np.kron(a, np.ones((ZOOM, ZOOM), a.dtype)) for a in (labels, labels > 0))
    plain = np.repeat(np.repeat(rgb, ZOOM, 0), ZOOM, 1)
    drawn = plain.copy()
    drawn[find_boundaries(large, mode="inner") & (inner > 0)] = OUTLINE
    gap = np.full((plain.shape[0], GAP_PX, 3), 255, np.uint8)
    wide = np.concatenate([plain, gap, drawn, gap], axis=1)
    return np.pad(wide, ((0, GAP_PX), (0, 0), (0, 0)), constant_values=255)


def main():
    """Find the nuclei and save the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    pictures = read_pictures(parser.parse_args().folder)
    labels = {}
    for name, rgb in pictures.items():
        model = StarDistNuclei(embedded_weights(), intensity_range(rgb[rgb.mean(-1) < 225]))
        labels[name] = model.segment(np.ascontiguousarray(rgb), 0.5)
    for name, places in SHOWN.items():
        tiles = []
        for picture, row, col in places:
            here = (slice(row, row + SIDE_PX), slice(col, col + SIDE_PX))
            tiles.append(outlined(pictures[picture][here], labels[picture][here]))
        if len(tiles) % COLUMNS:
            tiles.append(np.full_like(tiles[0], 255))
        rows = [np.concatenate(tiles[k : k + COLUMNS], 1) for k in range(0, len(tiles), COLUMNS)]
        Image.fromarray(np.concatenate(rows)).save(HERE / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
