"""A control tissue beside the section: the right piece is aligned, or the reader is told."""

from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core.frame import Lattice, Transform
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.core.raster import Raster
from napari_mosaik.register.alignment import Alignment
from napari_mosaik.register.outline_registration import iter_align_masks
from napari_mosaik.register.section_registration import align_by_pieces, pieces_of

SHAPE = (240, 420)


def disc(centre, radii):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


SECTION = (disc((120, 100), (90, 60)) & ~disc((70, 150), (50, 45))) | disc((170, 60), (40, 50))
CONTROL = disc((120, 320), (100, 80))


def mask(values, frame):
    return Raster(values, Lattice(frame, SHAPE, (50.0, 50.0)))


def test_pieces_are_large_and_ordered():
    dust = np.zeros(SHAPE, bool)
    dust[5:9, 5:9] = True
    found = pieces_of(mask(SECTION | CONTROL | dust, "he"))
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].values, CONTROL)
    np.testing.assert_array_equal(found[1].values, SECTION)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_section_is_aligned_where_a_control_lies_beside_it(swapped):
    one, other = (SECTION, SECTION | CONTROL) if swapped else (SECTION | CONTROL, SECTION)
    moving, fixed = mask(one, "he"), mask(other, "cd34")
    alignment = run_to_end(align_by_pieces(moving, fixed, iter_align_masks))
    points = np.array([[4000.0, 3000.0], [8000.0, 5000.0]])
    assert np.abs(alignment.transform.apply(points) - points).max() < 200
    assert "pieces of tissue" in alignment.warnings[-1].message


def test_without_any_piece_that_fits_the_warning_says_what_to_do():
    poor = Alignment(Transform("he", "cd34", np.eye(3)), 0.5, 0.0, 1.0, False, 0.1)

    def align(moving, fixed):
        yield 0.5
        return poor

    both = mask(SECTION | CONTROL, "he")
    alignment = run_to_end(align_by_pieces(both, mask(SECTION, "cd34"), align))
    assert alignment.warnings[-1].code == "several_pieces"
    assert "control tissue" in alignment.warnings[-1].message
    single, told = mask(SECTION, "he"), []
    whole = align_by_pieces(single, mask(SECTION, "cd34"), align)
    assert run_to_end(whole, told.append) is poor
    assert told == [0.5]  # there is nothing else to try
    good = replace(poor, confidence=0.9, dice=0.95)

    def fits(moving, fixed):
        yield 0.5
        return good

    assert run_to_end(align_by_pieces(both, mask(SECTION, "cd34"), fits)) is good


@pytest.mark.realdata
def test_field_report_n4_a_kidney_beside_a_control_tissue(field_inputs, tmp_path):
    import tifffile
    from PIL import Image

    from napari_mosaik.workflow.picture_case import align_pictures

    folder = field_inputs.parents[1] / "data" / "registration"
    if not folder.is_dir():
        pytest.skip(f"the sections are not in {folder}")
    fixed, moving = (
        np.asarray(Image.open(folder / f"Rat-Kidney_{name}.jpg").convert("RGB"))
        for name in ("HE", "PanCytokeratin")
    )
    beside = np.full((moving.shape[0], moving.shape[1] + 700, 3), 245, np.uint8)
    beside[:, : moving.shape[1]] = moving
    y, x = np.mgrid[-1:1:400j, -1:1:450j]
    control = np.zeros(beside.shape[:2], bool)
    control[150:550, moving.shape[1] + 120 : moving.shape[1] + 570] = x * x + y * y < 0.9
    noise = np.random.default_rng(0).normal(0, 12, (np.count_nonzero(control), 1))
    beside[control] = np.clip(np.array([150, 110, 80]) + noise, 0, 255)
    paths = tmp_path / "fixed.tif", tmp_path / "moving.tif"
    for path, picture in zip(paths, (fixed, beside), strict=True):
        tifffile.imwrite(path, picture)
    record = run_to_end(align_pictures(*paths, 10.0, 10.0, None, None, "rigid"))
    assert record["confidence"] > 0.4
    assert abs(record["angle_deg"] - 0.44) < 1
    assert np.abs(np.array(record["matrix"])[:2, 2] - [285, 61]).max() < 150
    assert "pieces of tissue" in " ".join(record["warnings"])
