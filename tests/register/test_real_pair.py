"""The rat kidney pair (H&E and DAB): landmark errors of the automatic alignments, in pixels."""

from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.core import Lattice, Raster
from napari_mosaik.core.colour import (
    DAB,
    EOSIN,
    HAEMATOXYLIN,
    luma,
    stain_density,
    stain_matrix,
)
from napari_mosaik.register import (
    AlignParams,
    align_masks,
    align_sections,
    landmark_quality,
    read_landmarks,
)

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "registration"
PAIRS = 69  # the first 69 landmarks of the two files correspond
PIXEL_UM = 10.0  # any number: errors are given in pixels

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        not FOLDER.exists(), reason="the real test files are not beside the checkout"
    ),
]


def section(name, frame, counterstain):
    """Tissue mask by brightness and haematoxylin density within it."""
    from PIL import Image
    from scipy import ndimage

    rgb = np.asarray(Image.open(FOLDER / f"{name}.jpg").convert("RGB"))
    dark = ndimage.gaussian_filter(luma(rgb), 2) < 232
    dark = ndimage.binary_opening(ndimage.binary_closing(dark, iterations=3), iterations=3)
    parts, _ = ndimage.label(dark)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    mask = parts == sizes.argmax()
    density = stain_density(rgb, stain_matrix(HAEMATOXYLIN, counterstain))[..., 0]
    lattice = Lattice(frame, rgb.shape[:2], (PIXEL_UM, PIXEL_UM))
    return Raster(mask, lattice), Raster(np.clip(density, 0, None) * mask, lattice)


@pytest.fixture(scope="module")
def pair():
    fixed = section("Rat-Kidney_HE", "he", EOSIN)
    moving = section("Rat-Kidney_PanCytokeratin", "dab", DAB)
    points = [
        read_landmarks(FOLDER / f"{name}.csv", PIXEL_UM)[:PAIRS]
        for name in ("Rat-Kidney_PanCytokeratin", "Rat-Kidney_HE")
    ]
    return moving, fixed, points


def test_outlines_bring_the_landmarks_within_six_pixels(pair):
    (mask, _), (fixed, _), points = pair
    found = align_masks(mask, fixed, AlignParams(kind="affine"))
    quality = landmark_quality(*points, found.transform, fixed.lattice)
    assert quality["n"] == PAIRS
    assert quality["before_um"]["median"] / PIXEL_UM == pytest.approx(29.1, abs=0.1)
    assert quality["tre_um"]["median"] / PIXEL_UM <= 6
    assert quality["robustness"] > 0.9
    assert found.confidence > 0.5
    assert not found.mirrored


def test_haematoxylin_does_not_make_it_worse(pair):
    (mask, density), (fixed, reference), points = pair
    found = align_sections(mask, fixed, density, reference, AlignParams(kind="affine"))
    quality = landmark_quality(*points, found.transform, fixed.lattice)
    assert quality["tre_um"]["median"] / PIXEL_UM <= 6
    assert found.ncc > 0.4
