"""Real neighbouring sections through the `align` command: landmark errors that it has not seen."""

import csv
import json
from pathlib import Path

import pytest

from napari_mosaik.cli import main

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "registration"
PIXEL_UM = 5.0

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        not FOLDER.exists(), reason="the real test files are not beside the checkout"
    ),
]


def aligned(capsys, fixed, moving, marks_fixed, marks_moving, *more):
    """The command's JSON."""
    arguments = ["align", fixed, moving, "--landmarks-fixed", marks_fixed]
    arguments += ["--landmarks-moving", marks_moving, "--kind", "affine", "--json"]
    arguments += ["--spacing-fixed", PIXEL_UM, "--spacing-moving", PIXEL_UM, *more]
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def test_the_kidney_pair_is_met_within_four_pixels(capsys):
    names = [FOLDER / f"Rat-Kidney_{stain}" for stain in ("HE", "PanCytokeratin")]
    files = [name.with_suffix(end) for end in (".jpg", ".csv") for name in names]
    record = aligned(capsys, *files)
    errors = record["landmark_error_um"]
    assert errors["after"]["n"] == 69
    assert errors["before"]["median"] / PIXEL_UM == pytest.approx(29.1, abs=0.1)
    assert errors["after"]["median"] / PIXEL_UM <= 4.5  # the best affine map through them has 3.6
    assert record["confidence"] > 0.8
    assert not record["mirrored"]


def test_the_lung_pair_is_met_although_it_fills_the_picture(capsys, tmp_path):
    place = FOLDER / "lung-lesion-3"
    marks = []
    for name in ("He", "CD31-3"):
        with (place / f"{name}-les3.landmarks-50pc.csv").open() as file:
            rows = list(csv.reader(file))[1:]
        path = tmp_path / f"{name}.csv"
        lines = [f"{row[0]},{float(row[1]) / 10},{float(row[2]) / 10}" for row in rows if row]
        path.write_text("\n".join([",X,Y", *lines]))
        marks.append(path)
    files = [place / f"29-041-Izd2-w35-{name}-les3.jpg" for name in ("He", "CD31-3")]
    record = aligned(capsys, *files, *marks)
    errors = record["landmark_error_um"]
    assert errors["before"]["median"] / PIXEL_UM > 70
    assert errors["after"]["median"] / PIXEL_UM <= 8.5  # the best affine map through them has 7.1
    assert record["confidence"] > 0.8
