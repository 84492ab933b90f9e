"""`align` with what another program or a reader gave: judged, measured, and doubted."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import Transform

TINY = Path(__file__).parents[2] / "sample_data" / "tiny" / "A2"
SLIDES = [TINY / "slides" / f"{stain}.tif" for stain in ("cd34", "he")]
PLACES = np.array([[400, 500], [450, 1800], [1500, 1900], [1600, 600], [1000, 1200], [700, 900.0]])


def called(capsys, *arguments, code=0):
    with pytest.raises(SystemExit) as end:
        main(["align", *map(str, SLIDES), *map(str, arguments)])
    assert (end.value.code or 0) == code
    out = capsys.readouterr()
    return json.loads(out.out) if code == 0 else out.err


@pytest.fixture(scope="module")
def true():
    record = json.loads((TINY / "truth" / "truth.json").read_text())["transforms"]["he"]
    return Transform("he", "cd34", np.array(record["matrix"]))


@pytest.fixture
def files(tmp_path, true):
    """Landmarks of both slides (1 µm per pixel), two exchanged by one reader; the true map."""
    fixed = true.apply(PLACES)
    fixed[[1, 3]] = fixed[[3, 1]]
    paths = []
    for name, points in (("cd34", fixed), ("he", PLACES)):
        path = tmp_path / f"{name}.csv"
        lines = [f"{'abcdef'[n]},{x},{y}" for n, (y, x) in enumerate(points)]
        path.write_text("\n".join(["name,X,Y", *lines]))
        paths.append(path)
    matrix = tmp_path / "true.csv"
    np.savetxt(matrix, true.matrix, delimiter=",")
    return [*paths, matrix]


def test_a_given_map_is_judged_and_exchanged_landmarks_are_named(capsys, files, true):
    fixed, moving, matrix = files
    marks = ["--landmarks-fixed", fixed, "--landmarks-moving", moving]
    record = called(capsys, "--matrix", matrix, *marks, "--kind", "similarity", "--json")
    assert np.allclose(record["matrix"], true.matrix)
    assert record["method"] == "file: true.csv"
    assert record["dice"] > 0.95
    residuals = {one["name"]: one["residual_um"] for one in record["landmarks"]}
    assert residuals["a"] < 1e-6
    assert residuals["b"] > 500
    assert {one["name"]: one["swapped_with"] for one in record["suspects"]} == {
        "b": "d",
        "d": "b",
    }
    assert any("b and d appear to be swapped" in text for text in record["warnings"])
    assert record["landmark_error_um"]["after"]["median"] < 1e-6


def test_landmarks_fix_the_map_on_request(capsys, files):
    fixed, moving, _ = files
    marks = ["--landmarks-fixed", fixed, "--landmarks-moving", moving]
    record = called(capsys, "--by-landmarks", *marks, "--kind", "similarity", "--json")
    assert record["method"] == "landmarks (similarity)"
    assert {one["name"] for one in record["suspects"]} == {"b", "d"}


def test_what_contradicts_itself_is_refused(capsys, files):
    fixed, moving, matrix = files
    assert "both pictures" in called(capsys, "--landmarks-fixed", fixed, code=2)
    assert "--by-landmarks" in called(capsys, "--by-landmarks", code=2)
    assert "--order" in called(capsys, "--matrix", matrix, "--order", "zz", code=2)
    assert "columns X and Y" in called(
        capsys, "--landmarks-fixed", matrix, "--landmarks-moving", moving, code=2
    )
