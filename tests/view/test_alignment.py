"""What the Align page draws and says."""

import numpy as np
import pytest

from napari_mosaik.core import Lattice, Raster, Transform
from napari_mosaik.view.alignment import (
    alignment_lines,
    checkerboard,
    circle_lines,
    confidence_word,
    voxel_lines,
)


def test_half_of_the_board_shows_the_moved_picture():
    fixed = Lattice("cd34", (40, 60), (10.0, 10.0))
    values = np.zeros((40, 60, 3), np.uint8)
    values[..., 0] = np.arange(60)
    moving = Raster(values, Lattice("he", (40, 60), (10.0, 10.0)))
    shift = Transform.similarity("he", "cd34", shift_um=(0.0, 50.0))
    board = checkerboard(moving, fixed, shift, 100.0)
    assert board[5, 5].tolist() == [0, 0, 0, 255]  # column 5 shows column 0 of the section
    assert board[5, 15].tolist() == [0, 0, 0, 0]
    assert board[15, 15].tolist() == [10, 0, 0, 255]
    assert board[5, 2].tolist() == [0, 0, 0, 0]  # the section begins at column 5


def test_voxel_edges_lie_on_the_voxels():
    lattice = Lattice("pet", (128, 128), (400.0, 400.0))
    lines = voxel_lines(lattice, (810.0, 1300.0), (1900.0, 1900.0))
    rows = sorted({float(start[0]) for start, step in lines if step[1]})
    cols = sorted({float(start[1]) for start, step in lines if step[0]})
    assert rows == [800.0, 1200.0, 1600.0, 2000.0]
    assert cols == [1200.0, 1600.0, 2000.0]


def test_the_circle_has_the_diameter_of_the_resolution():
    lines = circle_lines((100.0, 200.0), 1500.0)
    assert np.linalg.norm(lines[:, 0] - [100, 200], axis=1) == pytest.approx(np.full(72, 750.0))
    assert lines[-1].sum(axis=0) == pytest.approx(lines[0, 0])


def test_figures_wear_words():
    record = {
        "dice": 0.972, "inlier_fraction": 0.5, "n_patches": 210,
        "local_error_um": 21.4, "ncc": 0.71,
        "scale": 1.002, "angle_deg": -3.0, "mirrored": True, "confidence": 0.2,
        "warnings": ["look at it"],
        "landmark_error_um": {"median": 170.0, "maximum": 300.0, "n": 6},
    }  # fmt: skip
    said = "\n".join(alignment_lines(record))
    assert said.startswith("⚠ look at it")
    for part in ("97", "210 patches", "flipped", "low (0.20)", "not accurate enough"):
        assert part in said
    bare = {**record, "inlier_fraction": None, "ncc": None, "confidence": None, "warnings": []}
    assert "nan" not in "\n".join(alignment_lines(bare))
    assert confidence_word(0.8).startswith("high")
