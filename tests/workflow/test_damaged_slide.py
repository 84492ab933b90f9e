"""A corrupt tile in the middle of each slide: stop by default, or leave it out of every result."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from napari_mosaik.cli import main
from napari_mosaik.core import InputError, Lattice, Raster
from napari_mosaik.core.blocks import cut
from napari_mosaik.core.catalogue import (
    CAIX_CELLS,
    DAMAGED,
    NUCLEI,
    NUCLEUS_OBJECTS,
    STAINS,
    TILES,
    TISSUE,
    VESSEL_OBJECTS,
    VESSELS,
)
from napari_mosaik.io import Case
from napari_mosaik.io.slide import open_slide
from napari_mosaik.view.report.content import gather_report
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.slide_blocks import drop_damaged_objects

ROWS, COLUMNS = (512, 1024), (1024, 1536)
"""The corrupt tile, pixels of 1 µm."""


@pytest.fixture
def case(tiny_cohort, tmp_path):
    """A case of which one tile of level 0 in the middle of every slide is zeros."""
    shutil.copytree(tiny_cohort / "A2", tmp_path / "A2")
    for stain in STAINS:
        path = tmp_path / "A2" / "slides" / f"{stain}.tif"
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            across = -(-page.imagewidth // page.tilewidth)
            index = ROWS[0] // page.tilelength * across + COLUMNS[0] // page.tilewidth
            place, count = page.dataoffsets[index], page.databytecounts[index]
        with path.open("r+b") as file:
            file.seek(place)
            file.write(bytes(count))
    return Case(tmp_path / "A2")


def run_to(case, *steps):
    for step in steps:
        for _ in run_until(case, read_recipe(case.root), step):
            pass


def leave_out(case):
    values = {key: entry.model_dump() for key, entry in case.file.slides.items()}
    case.update(slides={key: {**entry, "damaged": "skip"} for key, entry in values.items()})


def within(points_um, margin_um=0.0):
    """How many points lie in the corrupt tile, or nearer to it than the margin."""
    low = np.array([ROWS[0], COLUMNS[0]]) - margin_um
    high = np.array([ROWS[1], COLUMNS[1]]) + margin_um
    return int(((points_um >= low) & (points_um < high)).all(axis=1).sum())


def test_the_first_corrupt_tile_stops_the_step_and_is_named(case):
    run_to(case, "tissue_cd34")
    with pytest.raises(InputError, match=r"cd34\.tif: the tile at row 512, column 1024 px"):
        run_to(case, "vessels")


def test_no_result_comes_from_a_corrupt_tile_that_is_left_out(case):
    run_to(case, "tissue_cd34")
    leave_out(case)
    assert case_status(case).states["tissue_cd34"].word == "stale"
    run_to(case, "tiles", "vessels", "nuclei", "caix")
    store = case.store
    for stain in STAINS:
        record = store.record(TISSUE[stain])[DAMAGED]
        assert record["count"] == 1
        assert record["tiles"][0]["origin_px"] == [ROWS[0], COLUMNS[0]]
        mask = store.read(TISSUE[stain])
        there = mask.lattice.to_um(np.argwhere(np.asarray(mask.values, bool)))
        assert len(there) > 1000
        assert within(there, max(mask.lattice.spacing_um) * 0.49) == 0
    assert within(store.read(TILES).centres_um, -store.read(TILES).size_um / 2) == 0
    for artifact in (VESSELS, NUCLEI):
        labels = store.read(artifact)
        step = labels.lattice.spacing_um
        rows = slice(round(ROWS[0] / step[0]), round(ROWS[1] / step[0]))
        columns = slice(round(COLUMNS[0] / step[1]), round(COLUMNS[1] / step[1]))
        found = labels.array()
        assert found.any()
        assert not found[rows, columns].any()
    for artifact in (VESSEL_OBJECTS, NUCLEUS_OBJECTS, CAIX_CELLS):
        points = store.read(artifact).points_um()
        assert len(points) > 10
        assert within(points) == 0
    told = [line for line in gather_report(case).warnings if "damaged" in line]
    assert len(told) == 3
    assert "CD34: 1 damaged tile (0.262 mm²) excluded from every result" in told[1]
    assert "row 512, column 1024 px" in told[1]


def damaged_slide(folder, tile):
    """A slide of four tiles of 64 pixels, one of which cannot be decoded."""
    path = folder / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.dataoffsets[tile]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(50))
    return path


def test_an_object_at_a_damaged_tile_is_left_out_whole(tmp_path):
    path = damaged_slide(tmp_path, 3)
    labels = np.zeros((128, 128), np.int32)
    labels[5:10, 5:10], labels[60:64, 100:110], labels[40:62, 20:30] = 1, 2, 3
    labels[58:62, 70:80] = 4
    with open_slide(path, 0.5, damaged="skip") as slide:
        lattice = slide.lattice
        (block,) = cut(lattice, 128, 0.0)
        assert drop_damaged_objects(labels, slide, block.outer) is labels
        slide.read_lattice(lattice)
        kept = drop_damaged_objects(labels, slide, block.outer)
        assert set(np.unique(kept)) == {0, 1, 3, 4}  # 2 touches the tile's upper edge
        np.testing.assert_array_equal(kept == 3, labels == 3)
        further = drop_damaged_objects(labels, slide, block.outer, margin_um=3.0)
        assert set(np.unique(further)) == {0, 1, 3}
        whole = Raster(slide.valid_mask(lattice), Lattice(lattice.frame, lattice.shape, (0.5, 0.5)))
        assert int((~whole.values).sum()) == 64 * 64


def test_the_command_line_lists_damage_and_keeps_the_choice(tmp_path, capsys):
    path = damaged_slide(tmp_path, 1)
    common = ("--spacing", "0.5", "--damaged", "skip")
    for command in (["slide", str(path), *common, "--json"],
                    ["new", str(tmp_path / "case"), "--he", str(path), *common]):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(command)
        assert not end.value.code
    found = json.loads(capsys.readouterr().out.split("case case")[0])["damaged"]
    assert [tile["origin_px"] for tile in found["tiles"]] == [[0, 64]]
    assert Case(tmp_path / "case").file.slides["he"].damaged == "skip"
    with Case(tmp_path / "case").slide("he") as slide:
        assert slide.damage_policy == "skip"
