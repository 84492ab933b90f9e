"""Two readers of a case: blind until both have finished, then agreement and adjudication."""

import json

import numpy as np
import pytest
import shapely
from shapely.geometry import shape
from sklearn.metrics import cohen_kappa_score

from napari_mosaik.annotate import rectangle_polygon
from napari_mosaik.cli import main
from napari_mosaik.core.journal import journal_path
from napari_mosaik.workflow.annotations import (
    OpenAnnotations,
    finished_tiles,
    unfinished_readers,
)
from tests.field.conftest import white_case

PIXEL_UM = 2.0
SIZE = 1200


@pytest.fixture
def case(tmp_path):
    """A case with a white H&E slide of 1200 x 1200 pixels of 2 µm: 6 x 6 reading tiles."""
    return white_case(tmp_path, SIZE, PIXEL_UM)


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def drawn(case, reader, *areas, finish=True):
    """Draw (box, class) in pixels x0, y0, x1, y1 for a reader."""
    with OpenAnnotations(case, reader) as opened:
        for box, label in areas:
            x0, y0, x1, y1 = (edge * PIXEL_UM for edge in box)
            opened.document.add(rectangle_polygon((y0, x0), (y1, x1)), label)
        if finish:
            opened.finish()


def answer(capsys, *words, code=0):
    capsys.readouterr()
    assert call(*words) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return (json.loads(out), err) if code == 0 else err


def test_readers_whose_classes_touch_nowhere_are_compared(case, tmp_path, capsys):
    """As with strokes of a brush here and there."""
    apart = [((100, 100, 300, 300), "neoplastic"), ((500, 500, 700, 700), "non-neoplastic")]
    drawn(case, "Anna", *apart)
    drawn(case, "Ben", *apart)
    assert call("adjudicate", case.root, "--prefer", "Anna", "--by", "Eve", "--out",
                tmp_path / "agreed.geojson") == 0  # fmt: skip
    features = json.loads((tmp_path / "agreed.geojson").read_text())["features"]
    assert [one["properties"]["decided_by"] for one in features] == ["both", "both"]


def test_the_marks_of_another_reader_do_not_train_until_both_have_finished(case, monkeypatch):
    from napari_mosaik.core import InputError
    from napari_mosaik.core.progress import run_to_end
    from napari_mosaik.workflow import classifier
    from napari_mosaik.workflow.annotations import withheld_readers

    def trained(**more):
        found = []
        with monkeypatch.context() as patched:
            patched.setattr(classifier, "_check", lambda one, *_: found.append(one) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run_to_end(classifier.retrain([case], [case], **more))
        return {shape.properties["reader"] for _, shapes in found[0] for shape in shapes}

    drawn(case, "Anna", *ANNA)
    assert withheld_readers(case, "Ben") == ()  # who has drawn nothing is not a reader yet
    drawn(case, "Ben", *BEN, finish=False)
    assert withheld_readers(case, "Ben") == ("Anna",)
    assert withheld_readers(case, "Anna") == ("Ben",)
    assert trained(blind="Ben") == {"Ben"}
    assert trained(blind="Anna") == {"Anna"}
    assert trained() == trained(blind="Eve") == {"Anna", "Ben"}
    with pytest.raises(InputError, match="reader Anna do not train for reader Ben"):
        run_to_end(classifier.retrain([case], [case], readers=("Anna",), blind="Ben"))
    drawn(case, "Ben")
    assert withheld_readers(case, "Ben") == ()
    assert trained(blind="Ben") == {"Anna", "Ben"}


def test_a_class_map_that_has_learned_from_the_one_is_hidden_from_the_other(case):
    from napari_mosaik.workflow.annotations import withheld_class_map

    def hidden(**training):
        with_class_map(case, **training)
        found = withheld_class_map(case)
        return {name for name in ("Anna", "Ben", "Eve", "") if found.why(name)}

    drawn(case, "Anna", *ANNA)
    # A single reader sees what was made of their marks; who comes later is to read blind.
    assert hidden(readers=["Anna"]) == {"Ben", "Eve"}
    later = withheld_class_map(case).why("Ben")
    assert "learned from the marks of Anna on this slide, and Ben has not drawn" in later
    assert hidden(readers=[]) == set()
    drawn(case, "Ben", *BEN, finish=False)
    assert hidden(readers=[]) == set()
    assert hidden(readers=["Anna"], journal={"B2": {"Anna": [0, 1]}}) == set()  # another slide
    assert hidden(readers=["Anna"], journal={"B1": {"Anna": [0, 1]}}) == {"Ben", "Eve", ""}
    why = withheld_class_map(case).why("Ben")
    assert "hidden from Ben: its model has learned from the marks of Anna" in why
    assert hidden(readers=["Anna", "Ben"]) == {"Anna", "Ben", "Eve", ""}
    drawn(case, "Ben")  # and finished
    assert hidden(readers=["Anna", "Ben"]) == set()


def with_class_map(case, **training):
    """Store a class map, of two classes in stripes, whose model has this record of its training."""
    from napari_mosaik.core import LabelImage, Lattice, Origin
    from napari_mosaik.core.catalogue import CLASS_PROBABILITY, CLASS_RECORD, CLASSES
    from napari_mosaik.core.raster import Raster

    lattice = Lattice("he", (300, 300), (8.0, 8.0))
    share = np.full((300, 300), 200, np.uint8)
    share[:, ::2] = 100
    values = {
        CLASSES: LabelImage(np.ones((300, 300), np.uint8), lattice),
        CLASS_PROBABILITY: Raster(
            np.stack([share, 255 - share], axis=2), lattice, "1/255", ("neoplastic", "necrosis")
        ),
        CLASS_RECORD: {"area_mm2": {}},
    }
    card = case.model_folder("m") / "card.json"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(json.dumps({"training": training}), "utf-8")
    with case.writing():
        case.store.commit(Origin("classes", 1, "", ()), values, {"params": {"model": "m"}})


def test_readers_see_each_other_tile_by_tile(case, tmp_path, capsys):
    """In training, in the class map and in an export."""
    from napari_mosaik.workflow.annotations import withheld_class_map, withheld_readers

    def hidden(last=99, first=0):
        with_class_map(case, readers=["Anna"], journal={"B1": {"Anna": [first, last]}})
        return {name for name in ("Anna", "Ben", "Eve", "") if withheld_class_map(case).why(name)}

    def finish(reader, *tiles):
        with OpenAnnotations(case, reader) as opened:
            opened.finish(tiles)

    def export(code):
        out = tmp_path / "all.geojson"
        return call("annotate", "export", case.root, out) == code

    drawn(case, "Anna", ((200, 200, 400, 400), "neoplastic"), finish=False)  # tile 1, 1 exactly
    drawn(case, "Ben", ((210, 210, 390, 390), "neoplastic"), finish=False)
    finish("Anna", (1, 1), (1, 2))
    finish("Ben", (1, 2), (2, 1))
    assert hidden() == {"Ben", "Eve", ""}
    assert withheld_readers(case, "Ben") == ("Anna",)
    assert export(2)
    finish("Ben", (1, 1))  # the one tile in which there are marks of Anna
    assert hidden() == set()
    assert withheld_readers(case, "Ben") == withheld_readers(case, "Anna") == ()
    assert export(0)
    drawn(case, "Anna", ((800, 800, 900, 900), "background"), finish=False)
    assert withheld_readers(case, "Ben") == ("Anna",)  # by a mark in another tile
    assert withheld_readers(case, "Anna") == ()
    assert hidden() == {"Ben", "Eve", ""}
    assert hidden(2) == set()  # a model that was trained before does not know it
    assert export(2)
    with OpenAnnotations(case, "Anna") as opened:
        n = opened.part.scan.next_n
        opened.document.remove(opened.document.shapes[-1].key)
    assert withheld_readers(case, "Ben") == ()
    assert hidden(n) == set()
    assert hidden(n - 1) == {"Ben", "Eve", ""}  # but the model of before still does
    assert hidden(n, first=n) == {"Ben", "Eve", ""}  # and what was fine-tuned from it
    drawn(case, "Cid", ((700, 100, 720, 120), "background"), finish=False)
    assert withheld_readers(case, "Cid") == ("Anna", "Ben")
    assert withheld_readers(case, "Anna") == ("Cid",)


def test_a_difference_ranks_a_tile_once_both_have_finished_it(case, capsys, monkeypatch):
    on_grid(case, monkeypatch)
    for reader, more in (("Anna", "neoplastic"), ("Ben", "background")):
        boxes = ((250, 250, 350, 350), more), ((650, 650, 750, 750), more)  # tiles 1, 1 and 3, 3
        drawn(case, reader, *boxes, finish=False)

    def told(*who):
        words = "review-queue", case.root, "--json", "--ranking", "disagreement", *who
        capsys.readouterr()
        if call(*words):
            return None
        tiles = json.loads(capsys.readouterr().out)["tiles"]
        return {one["tile"] for one in tiles if "readers differ" in one["reason"]}

    def finish(reader, *tiles):
        with OpenAnnotations(case, reader) as opened:
            opened.finish(tiles)

    assert not told("--reader", "Ben")
    finish("Anna", (1, 1), (3, 3))
    finish("Ben", (1, 1), (2, 2))
    first, last = 0, 12  # of 5 x 5 tiles from 400 µm on
    for who in ("Anna", "Ben"):
        assert told("--reader", who) == {first}
    assert told() == {first}  # nobody said who is reading: what all have finished
    finish("Ben", (3, 3))
    assert told("--reader", "Ben") == {first, last}
    drawn(case, "Ben", ((250, 250, 260, 260), "non-neoplastic"), finish=False)
    assert told("--reader", "Anna") == {last}


def on_grid(case, monkeypatch):
    """Give a case 5 x 5 tiles of 400 µm, 400 µm from the corner of the slide."""
    from napari_mosaik.core import Lattice, Origin, TileGrid
    from napari_mosaik.core.catalogue import ALIGNMENT, TILES
    from napari_mosaik.core.frame import Transform
    from napari_mosaik.register import Alignment
    from napari_mosaik.workflow import review_queue

    def there(results, artifact):
        return results.case.store.origin(artifact) is not None

    monkeypatch.setattr(review_queue._Results, "done", there)
    positions = Lattice("cd34", (5, 5), (400.0, 400.0), (400.0, 400.0))
    grid = TileGrid(positions, 400.0, np.arange(25), np.ones(25), np.ones(25, bool))
    he = Alignment(Transform.identity("he", "cd34"), 1.0, 0.0, 1.0, False, 1.0).to_dict()
    with case.writing():
        case.store.commit(Origin("tiles", 1, "", ()), {TILES: grid})
        case.store.commit(Origin("align_he", 1, "", ()), {ALIGNMENT["he"]: he})


def test_the_review_queue_tells_a_reader_nothing_of_the_marks_of_another(case, capsys, monkeypatch):
    """Neither by a signal nor by a reason: of the class map, of the annotations, of the uptake."""
    from napari_mosaik.core import Lattice, Origin
    from napari_mosaik.core.catalogue import (
        CORRECTED_ARTEFACT_MASK,
        PARAMETERS,
        PREDICTION,
        PREDICTION_RECORD,
    )
    from napari_mosaik.core.raster import Raster
    from napari_mosaik.core.table import Table
    from napari_mosaik.workflow import review_queue

    on_grid(case, monkeypatch)
    mask = Raster(np.eye(300, dtype=np.uint8), Lattice("he", (300, 300), (8.0, 8.0)))
    suv = {name: np.arange(25.0) % 7 for name in ("suv", "suv_norm", "baseline_vessels")}
    made_of = {"parameters": (("classes", "c"),), "prediction": (("parameters", "p"),)}
    with case.writing():
        for step, values in {
            "artefacts": {CORRECTED_ARTEFACT_MASK["he"]: mask},
            "parameters": {PARAMETERS: Table({"area": np.ones(25)}, frame="cd34")},
            "prediction": {PREDICTION: Table(suv, frame="cd34"),
                           PREDICTION_RECORD: {"seen_in_training": False}},
        }.items():  # fmt: skip
            case.store.commit(Origin(step, 1, "", made_of.get(step, ())), values)

    def told(reader, *words, code=0):
        who = ("--reader", reader) if reader else ()
        found = answer(capsys, "review-queue", case.root, "--json", *who, *words, code=code)
        if code:
            return found
        return " ".join([row["reason"] for row in found[0]["tiles"]] + found[0]["warnings"])

    of_anna = ("class uncertain", "classifier", "neoplastic", "necrosis", "predicted", "models")
    drawn(case, "Anna", *ANNA)
    with_class_map(case, readers=["Anna"])
    assert "tissue class uncertain" in told("Anna")
    assert "classifier differ" in told("Anna", "--ranking", "disagreement")
    assert "classifier differ" in told("", "--ranking", "disagreement")  # a single reader

    def is_blind(reader):
        found = told(reader)
        assert "artefact" in found  # which nobody has drawn
        assert not [word for word in of_anna if word in found]
        assert "hidden from Ben: its model has learned from the marks of Anna" in found
        for ranking in ("uncertainty", "disagreement", "cold-among-hot"):
            why = told(reader, "--ranking", ranking, code=2)
            assert "hidden from Ben" in why
            assert "Run: " not in why  # no run shows it

    is_blind("Ben")  # who has just given a name
    with review_queue.QueueSession(case, "Ben") as session:
        assert any("hidden from Ben" in text for text in session.warnings)
    drawn(case, "Ben", *BEN, finish=False)
    is_blind("Ben")
    is_blind("")  # nobody said who is reading
    assert "Ben" not in told("Anna", "--ranking", "disagreement")
    drawn(case, "Ben")  # and finished
    for reader in ("Anna", "Ben", ""):
        assert "tissue class uncertain" in told(reader)
        found = told(reader, "--ranking", "disagreement")
        assert "Anna" in found
        assert "Ben" in found


ANNA = [((100, 100, 900, 500), "neoplastic"), ((100, 500, 900, 800), "non-neoplastic")]
BEN = [((200, 100, 1000, 400), "neoplastic"), ((200, 400, 1000, 900), "non-neoplastic")]


def pixels(areas, codes):
    found = np.zeros((SIZE, SIZE), int)
    for (x0, y0, x1, y1), label in areas:
        found[y0:y1, x0:x1] = codes[label]
    return found


def test_the_agreement_is_that_of_the_pixels_and_tiles(case, capsys):
    drawn(case, "Anna", *ANNA)
    drawn(case, "Ben", *BEN)
    record, _ = answer(capsys, "agreement", case.root, "--json")
    (pair,) = record["pairs"]
    codes = {"neoplastic": 1, "non-neoplastic": 2}
    a, b = pixels(ANNA, codes), pixels(BEN, codes)
    both = (a > 0) & (b > 0)
    assert pair["readers"] == ["Anna", "Ben"]
    assert pair["kappa"] == pytest.approx(cohen_kappa_score(a[both], b[both]), abs=1e-12)
    for name, code in codes.items():
        one, other = a[both] == code, b[both] == code
        dice = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert pair["dice"][name] == pytest.approx(dice, abs=1e-12)
    mains = []
    for row in range(6):
        for col in range(6):
            part = np.s_[row * 200 : row * 200 + 200, col * 200 : col * 200 + 200]
            if both[part].any():
                own = [np.bincount(m[part][both[part]], minlength=3).argmax() for m in (a, b)]
                mains.append(own)
    first, second = np.transpose(mains)
    assert pair["tile_kappa"] == pytest.approx(cohen_kappa_score(first, second))
    assert pair["n_tiles"] == len(mains)
    assert pair["area_mm2"] == pytest.approx(both.sum() * PIXEL_UM**2 / 1e6)
    assert -1 <= pair["kappa_low"] < pair["kappa"] < pair["kappa_high"] <= 1
    again, _ = answer(capsys, "agreement", case.root, "--json")
    assert again == record
    assert call("agreement", case.root) == 0
    told = capsys.readouterr().out
    assert "Anna and Ben" in told
    assert "95 % interval" in told
    assert "Dice, non-neoplastic" in told


def test_nobody_is_compared_before_both_have_finished(case, tmp_path, capsys):
    drawn(case, "Anna", *ANNA, finish=False)
    drawn(case, "Ben", *BEN)
    out = tmp_path / "out.geojson"
    adjudicate = ("adjudicate", case.root, "--prefer", "Ben", "--by", "Eve", "--out", out)
    for words in (("agreement", case.root, "--json"), adjudicate):
        error = answer(capsys, *words, code=2)
        assert "Anna has not finished" in error
        assert "Ben has" not in error
    assert not out.exists()
    error = answer(capsys, "annotate", "export", case.root, out, code=2)  # all readers' marks
    assert "--reader" in error
    assert not out.exists()
    assert call("annotate", "export", case.root, out, "--all") == 0
    assert call("annotate", "finish", case.root, "--reader", "Anna") == 0
    assert answer(capsys, "agreement", case.root, "--json")[0]["pairs"]
    assert call("annotate", "export", case.root, out) == 0
    drawn(case, "Anna", ((1000, 1000, 1100, 1100), "neoplastic"), finish=False)
    assert unfinished_readers(case) == ("Anna",)  # an edit reopens the tiles that it changes
    again = tmp_path / "again.geojson"
    assert "(Anna not yet)" in answer(capsys, "annotate", "export", case.root, again, code=2)


def test_tiles_are_finished_one_by_one_and_reopened_by_edits(case, capsys):
    drawn(case, "Anna", *ANNA, finish=False)
    drawn(case, "Ben", *BEN, finish=False)
    for reader, tiles in (("Anna", [(0, 1), (2, 2), (2, 3)]), ("Ben", [(5, 5), (2, 2), (0, 1)])):
        with OpenAnnotations(case, reader) as opened:
            opened.finish(tiles)
    (pair,) = answer(capsys, "agreement", case.root, "--json")[0]["pairs"]
    assert pair["n_tiles"] == 2
    with OpenAnnotations(case, "Ben") as opened:
        document = opened.document
        document.add(rectangle_polygon((850.0, 850.0), (900.0, 900.0)), "background")
        assert (2, 2) not in finished_tiles(case)["Ben"]
        opened.finish([(2, 2)])
        document.undo()
        assert finished_tiles(case)["Ben"].tiles == {(5, 5), (0, 1)}
        opened.finish()
        document.add(rectangle_polygon((850.0, 850.0), (900.0, 900.0)), "background")
    state = finished_tiles(case)["Ben"]
    assert (2, 2) not in state
    assert (2, 3) in state
    assert not state.complete
    both = finished_tiles(case)["Anna"].common(state)
    assert (2, 3) in both
    assert (2, 2) not in both
    assert (4, 4) not in both


def test_what_is_not_defined_is_null_and_said(case, capsys):
    drawn(case, "Anna", ((100, 100, 200, 200), "neoplastic"))
    drawn(case, "Ben", ((100, 100, 200, 200), "neoplastic"))
    record, error = answer(capsys, "agreement", case.root, "--json")
    (pair,) = record["pairs"]
    assert [pair[name] for name in ("kappa", "kappa_low", "kappa_high", "tile_kappa")] == [None] * 4
    assert pair["observed"] == 1.0
    assert pair["dice"] == {"neoplastic": 1.0}
    assert "kappa is undefined" in error
    assert any("kappa is undefined" in line for line in record["warnings"])
    drawn(case, "Cid", ((600, 600, 700, 700), "background"))
    record, error = answer(capsys, "agreement", case.root, "--json")
    assert [pair["readers"] for pair in record["pairs"]] == [
        ["Anna", "Ben"], ["Anna", "Cid"], ["Ben", "Cid"]
    ]  # fmt: skip
    apart = record["pairs"][1]
    assert apart["kappa"] is None
    assert apart["dice"] == {"neoplastic": 0.0, "background": 0.0}
    assert "no place is drawn by both" in error


def features_of(path):
    return json.loads(path.read_text())["features"]


def test_the_adjudicated_set_parts_the_union_exactly(case, tmp_path, capsys):
    rng = np.random.default_rng(3)
    for reader in ("Anna", "Ben"):
        with OpenAnnotations(case, reader) as opened:
            for _ in range(40):
                x, y = rng.uniform(200, 2000, 2)
                angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
                radius = rng.uniform(60, 260, 9)
                ring = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)
                label = ["neoplastic", "non-neoplastic", "background"][rng.integers(3)]
                opened.document.overlap = "allow" if rng.random() < 0.5 else "new wins"
                opened.document.add(shapely.Polygon(ring), label)
            opened.finish()
    out = tmp_path / "agreed.geojson"
    words = ("adjudicate", case.root, "--prefer", "Ben", "--by", "Dr. Eve", "--out", out, "--json")
    record, _ = answer(capsys, *words)
    found = [(shape(one["geometry"]), one["properties"]) for one in features_of(out)]
    areas = {reader: class_areas(case, reader) for reader in ("Anna", "Ben")}
    union = shapely.union_all([a for own in areas.values() for a in own.values()])
    whole = union.area
    total = sum(area.area for area, _ in found)
    assert total == pytest.approx(whole, rel=1e-6)
    joined = shapely.union_all([area for area, _ in found])
    assert joined.area == pytest.approx(total, rel=1e-6)  # no overlaps
    assert joined.symmetric_difference(union).area < 1e-6 * whole
    assert {one["decided_by"] for _, one in found} == {"both", "Dr. Eve"}
    agreed = sum(area.area for area, one in found if one["decided_by"] == "both")
    meant = sum((areas["Anna"][name] & areas["Ben"][name]).area for name in areas["Anna"])
    assert agreed == pytest.approx(meant, rel=1e-6)
    assert record["agreed_mm2"] + record["decided_mm2"] == pytest.approx(whole * 4e-6, rel=1e-6)
    for name, own in areas["Ben"].items():  # the preferred reader keeps every class
        got = shapely.union_all(
            [area for area, one in found if one["classification"]["name"] == name]
        )
        assert (own - got).area < 1e-6 * own.area
        inside = got & shapely.union_all(list(areas["Ben"].values()))
        assert (inside - own).area < 1e-6 * own.area
    for area, one in found:
        anna, ben = one["readings"]["Anna"], one["readings"]["Ben"]
        assert one["classification"]["name"] == (ben or anna)
        assert (one["decided_by"] == "both") == (anna == ben)
        assert anna is None or (area - areas["Anna"][anna]).area < 1e-3


def class_areas(case, reader):
    """Area of each class in pixels: later shapes on top, written a second way."""
    with OpenAnnotations(case, reader) as opened:
        shapes = opened.document.shapes
    areas = {}
    for one in shapes:
        area = shapely.transform(one.geometry, lambda points: points / PIXEL_UM)
        areas = {name: old - area for name, old in areas.items()}
        areas[one.label] = areas.get(one.label, shapely.Polygon()) | area
    return areas


def test_names_that_nobody_has_are_refused(case, tmp_path, capsys):
    out = tmp_path / "out.geojson"
    drawn(case, "Anna", *ANNA)
    adjudicate = ("adjudicate", case.root, "--out", out, "--by", "Eve")
    assert "two readers" in answer(capsys, *adjudicate, "--prefer", "Anna", code=2)
    drawn(case, "Ben", *BEN)
    assert "Cid has no annotations" in answer(capsys, *adjudicate, "--prefer", "Cid", code=2)
    both = (*adjudicate, "--prefer", "Anna")
    assert "on cd34" in answer(capsys, *both, "--slide", "cd34", code=2)
    assert "Cid has no" in answer(capsys, *both, "--other", "Cid", code=2)
    assert "themselves" in answer(capsys, *both, "--other", "Anna", code=2)
    assert "both" in answer(capsys, *both[:4], "--by", "both", "--prefer", "Anna", code=2)
    drawn(case, "Cid", *BEN)
    assert "--other" in answer(capsys, *both, code=2)
    record, _ = answer(capsys, *both, "--other", "Ben", "--json")
    assert record["readers"] == ["Anna", "Ben"]
    # the agreed set is imported as a set of its own, which is not a third reading
    assert call("annotate", "import", case.root, out, "--reader", "agreed") == 0
    pairs = answer(capsys, "agreement", case.root, "--json")[0]["pairs"]
    assert len(pairs) == 3


def test_only_tiles_that_both_have_finished_are_adjudicated(case, tmp_path, capsys):
    drawn(case, "Anna", *ANNA)
    drawn(case, "Ben", *BEN, finish=False)
    with OpenAnnotations(case, "Ben") as opened:
        opened.finish([(1, 1), (2, 2)])
    out = tmp_path / "agreed.geojson"
    answer(capsys, "adjudicate", case.root, "--prefer", "Anna", "--by", "Eve", "--out", out,
           "--json")  # fmt: skip
    seen = shapely.union_all([shape(one["geometry"]) for one in features_of(out)])
    assert seen.equals(shapely.box(200, 200, 400, 400) | shapely.box(400, 400, 600, 600))


def test_damage_of_a_journal_is_among_the_warnings_of_every_command_that_reads_it(
    case, capsys, tmp_path
):
    drawn(case, "Anna", *ANNA)
    drawn(case, "Ben", *BEN)
    path = journal_path(case.root, "Anna")
    lines = path.read_bytes().split(b"\n")
    lines.insert(2, lines[1].replace(b'"n":1', b'"n":7', 1))
    assert "damaged" not in str(answer(capsys, "agreement", case.root, "--json"))
    path.write_bytes(b"\n".join(lines))
    for words in (
        ("agreement", case.root),
        ("annotate", "export", case.root, tmp_path / "he.geojson"),
        ("annotate", "finish", case.root, "--reader", "Anna"),
        ("status", case.root),
    ):
        record, err = answer(capsys, *words, "--json")
        (told,) = [one for one in record["warnings"] if "damaged" in one]
        assert "reader Anna" in told
        assert "line 3" in told
        assert err.count("damaged") == 1
