"""Landmarks that slipped or were exchanged, and maps from files."""

import json
from itertools import combinations

import numpy as np
import pytest

from napari_mosaik.core import InputError, Transform
from napari_mosaik.register import (
    find_landmark_outliers,
    fit_landmarks,
    fit_landmarks_robustly,
    landmark_errors_um,
    landmark_names,
    outlier_messages,
    read_matrix,
)

TRUE = Transform.similarity("he", "cd34", angle_deg=25, scale=0.95, shift_um=(300, -80))


def pairs(n=9, noise_um=8.0):
    rng = np.random.default_rng(4)
    moving = rng.uniform(0, 6000, (n, 2))
    return moving, TRUE.apply(moving) + rng.normal(0, noise_um, (n, 2))


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_landmarks_in_order_are_not_suspected(kind):
    moving, fixed = pairs()
    if kind == "rigid":
        fixed = Transform.similarity("he", "cd34", angle_deg=25).apply(moving)
    robust = fit_landmarks_robustly(moving, fixed, kind, "he", "cd34")
    assert find_landmark_outliers(moving, fixed, robust) == []


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_two_exchanged_landmarks_are_named_although_they_pull_the_fit(kind):
    moving, fixed = pairs()
    fixed[[2, 6]] = fixed[[6, 2]]
    pulled = fit_landmarks(moving, fixed, kind, "he", "cd34")
    assert np.median(landmark_errors_um(moving, fixed, pulled)) > 200
    robust = fit_landmarks_robustly(moving, fixed, kind, "he", "cd34")
    others = [i for i in range(9) if i not in (2, 6)]
    assert np.median(landmark_errors_um(moving[others], fixed[others], robust)) < 20
    odd = find_landmark_outliers(moving, fixed, robust)
    assert {one.row: one.swapped_with for one in odd} == {2: 6, 6: 2}
    said = outlier_messages(odd, list("abcdefghi"))
    assert len(said) == 1
    assert "c" in said[0]
    assert "swapped" in said[0]


def test_a_slipped_landmark_is_named_with_its_residual():
    moving, fixed = pairs()
    fixed[4] += (900, 0)
    odd = find_landmark_outliers(
        moving, fixed, fit_landmarks_robustly(moving, fixed, "similarity", "he", "cd34")
    )
    assert [one.row for one in odd] == [4]
    assert odd[0].residual_um == pytest.approx(900, abs=40)
    assert odd[0].swapped_with is None


def test_the_robust_map_has_the_least_median_of_all_subsets():
    moving, fixed = pairs(7, 20.0)
    fixed[:2] += 1500
    robust = fit_landmarks_robustly(moving, fixed, "similarity", "he", "cd34")
    least = min(
        np.median(
            landmark_errors_um(
                moving, fixed,
                fit_landmarks(moving[list(ij)], fixed[list(ij)], "similarity", "he", "cd34"),
            )
        )
        for ij in combinations(range(7), 2)
    )  # fmt: skip
    assert np.median(landmark_errors_um(moving, fixed, robust)) < 2 * least


MATRIX = [[0.9, -0.1, 120.5], [0.1, 0.9, -3.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "text",
    [
        "0.9,-0.1,120.5\n0.1,0.9,-3\n0,0,1\n",
        "0.9 -0.1 120.5\n0.1 0.9 -3\n",
        "0.9\t-0.1\t120.5\n0.1\t0.9\t-3\n0\t0\t1",
        json.dumps(MATRIX),
        json.dumps({"matrix": MATRIX, "scale": 1}),
        json.dumps({"matrix_um": MATRIX}),
    ],
)
def test_a_matrix_is_read_in_every_form(tmp_path, text):
    path = tmp_path / "m.txt"
    path.write_text(text)
    assert np.allclose(read_matrix(path), MATRIX)


def test_a_matrix_on_x_and_y_is_turned_round(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("2,0,10\n0,3,20\n0,0,1\n")  # x -> 2 x + 10, y -> 3 y + 20
    moved = Transform("a", "b", read_matrix(path, "xy")).apply([[1.0, 1.0]])
    assert moved.tolist() == [[23.0, 12.0]]


@pytest.mark.parametrize(
    ("text", "why"),
    [("1,2\n3,4\n", "shape"), ("a,b,c\n", "not a number"), ("1,0,0\n2,0,0\n0,0,1\n", "invertible")],
)
def test_a_matrix_that_cannot_be_used_is_named(tmp_path, text, why):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=why) as told:
        read_matrix(path)
    assert "m.csv" in str(told.value)


def test_landmarks_are_called_by_their_first_column(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("name;X;Y\nvessel;1;2\n;3;4\n")
    assert landmark_names(path) == ["vessel", "2"]
    path.write_text("X,Y\n1,2\n")
    assert landmark_names(path) == ["1"]
