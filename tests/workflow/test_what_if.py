"""What another class or a drawn correction would make of the prediction, without storing it."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from napari_mosaik.cli import main
from napari_mosaik.core import InputError, LabelImage
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CLASS_PROBABILITY,
    CLASS_RECORD,
    CLASSES,
    CLUSTERS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    TILE_KINETICS,
    TILES,
    VESSEL_OBJECTS,
)
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case
from napari_mosaik.register import transform_of
from napari_mosaik.workflow.corrections import CorrectionSession
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import maker_of
from napari_mosaik.workflow.what_if import tile_shapes, what_if


def digests(root):
    """Digest of every file of a case."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path: hashlib.blake2b(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def case(cohort):
    """A predicted case; no test may change it."""
    return Case(cohort / "B11")


@pytest.fixture
def own_case(cohort, tmp_path):
    return Case(shutil.copytree(cohort / "B11", tmp_path / "B11"))


def other_class(case, tile):
    """A class that a tile hardly has."""
    fraction = float(case.store.read(PARAMETERS)["neoplastic_fraction"][tile])
    return "non-neoplastic" if fraction > 0.5 else "neoplastic"


def predicted(case):
    """SUV and ends of the interval of every tile, as stored."""
    table, target = case.store.read(PREDICTION), case.store.read(PREDICTION_RECORD)["target"]
    span = target["high"] - target["low"]
    ends = [np.asarray(table[f"suv_norm_{end}"]) * span + target["low"] for end in ("low", "high")]
    return np.stack([np.asarray(table["suv"]), *ends])


def guessed(uptake):
    return np.stack([uptake.suv, uptake.low, uptake.high])


def test_a_class_gives_what_a_run_gives_once_the_class_map_has_it(own_case):
    shapes = tile_shapes(own_case, [9, 10], other_class(own_case, 9))
    found = run_to_end(what_if(own_case, shapes))
    np.testing.assert_array_equal(guessed(found.before), predicted(own_case))
    # The class map is corrected by hand here, pixel by pixel: those with their centre in a tile.
    classes = own_case.store.read(CLASSES)
    grid, from_he = own_case.store.read(TILES), transform_of(own_case.store.read(ALIGNMENT["he"]))
    centres = from_he.apply(classes.lattice.centres_um().reshape(-1, 2))
    inside = np.zeros(len(centres), bool)
    for tile in (9, 10):
        inside |= (np.abs(centres - grid.centres_um[tile]) < grid.size_um / 2).all(axis=1)
    values = classes.array()
    (code,) = (code for code, name in classes.names.items() if name == shapes[0].label)
    values[inside.reshape(values.shape) & (values > 0)] = code
    store = own_case.store
    results = {one: store.read(one) for one in (CLASS_PROBABILITY, CLASS_RECORD)}
    results[CLASSES] = LabelImage(values, classes.lattice, classes.names)
    store.commit(store.origin(CLASSES), results, store.record(CLASSES))
    recipe = read_recipe(own_case.root)
    for artifact in (CAIX_CELLS, PARAMETERS, CLUSTERS, TILE_KINETICS, PREDICTION):
        step = maker_of(artifact)
        run_to_end(run(own_case, step, recipe[step.name], force=True))
    np.testing.assert_array_equal(guessed(found.after), predicted(own_case))
    differ = (guessed(found.after) != guessed(found.before)).any(axis=0)
    np.testing.assert_array_equal(found.reached, differ)
    assert found.edited[[9, 10]].all()
    assert found.reached.sum() > found.edited.sum()  # the scanner's blur carries it farther


def test_areas_of_a_file_are_assumed_and_nothing_of_the_case_changes(case, tmp_path, capsys):
    """A GeoJSON file is in pixels of the slide, as other annotations are."""
    before = digests(case.root)
    shapes = tile_shapes(case, [9], other_class(case, 9))
    with case.slide("he") as slide:
        spacing = np.array(slide.lattice.spacing_um)
    ring = [list(xy) for xy in np.array(shapes[0].geometry.exterior.coords) / spacing[::-1]]
    feature = {
        "type": "Feature",
        "properties": {"objectType": "annotation", "classification": {"name": shapes[0].label}},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    file = tmp_path / "areas.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), "utf-8")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(case.root), "--what-if", str(file), "--json"])
    assert not end.value.code
    assert digests(case.root) == before
    record = json.loads(capsys.readouterr().out)
    assert record == {"case": "B11", **run_to_end(what_if(case, shapes)).record()}
    assert record["classes"] == [shapes[0].label]
    tiles = {one["tile"]: one for one in record["tiles"]}
    assert sum(one["edited"] for one in tiles.values()) == record["n_edited"] >= 1
    nine = tiles[9]
    assert nine["difference"] == nine["after"]["suv"] - nine["before"]["suv"] != 0
    width = nine["after"]["high"], nine["after"]["low"]
    assert width == (None, None) or nine["after"]["width"] == width[0] - width[1]
    assert any("not retrained" in text for text in record["held_fixed"])


def test_a_drawn_correction_gives_what_its_run_gives(own_case):
    before = predicted(own_case)
    session = CorrectionSession(own_case, "vessels", "reader")
    for place in own_case.store.read(VESSEL_OBJECTS).points_um()[:6]:
        chosen = session.select((float(place[0]), float(place[1])))
        if chosen is not None:
            session.delete(chosen)
    session.log.close()
    stored = digests(own_case.root)
    with pytest.raises(InputError, match="or assume also what was drawn"):
        run_to_end(what_if(own_case, tile_shapes(own_case, [9], "neoplastic")))
    found = run_to_end(what_if(own_case, drawn=True))
    assert digests(own_case.root) == stored
    np.testing.assert_array_equal(guessed(found.before), before)
    run_to_end(run_until(own_case, read_recipe(own_case.root), "predict"))
    np.testing.assert_array_equal(guessed(found.after), predicted(own_case))
    assert found.edited.any()


def test_what_cannot_be_assumed_is_refused(case, own_case):
    for tiles, label, words in (
        ([99], "neoplastic", "has no tile 99; it has 0 to 27"),
        ([1], "stroma", "no class 'stroma'; it has background, neoplastic, non-neoplastic"),
    ):
        with pytest.raises(InputError, match=words):
            run_to_end(what_if(case, tile_shapes(case, tiles, label)))
    with pytest.raises(InputError, match="nothing is assumed"):
        run_to_end(what_if(case))
    with pytest.raises(InputError, match="no correction waits for a run, and no area is drawn"):
        run_to_end(what_if(case, drawn=True))
    recipe = changed(read_recipe(own_case.root), "parameters", tumour_cells_only=False)
    write_recipe(own_case.root, recipe)
    with pytest.raises(InputError, match=r"'Parameters' of case B11 is stale .*run it first"):
        run_to_end(what_if(own_case, drawn=True))
