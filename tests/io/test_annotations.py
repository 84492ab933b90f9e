import gzip
import json
import math

import numpy as np
import pytest
import shapely

from napari_mosaik.core import InputError, Lattice
from napari_mosaik.core.shapes import AnnotatedShape
from napari_mosaik.io import geojson_features
from napari_mosaik.io.annotations import read_geojson, write_geojson

LATTICE = Lattice("he", (600, 800), (0.5, 0.25), (100.0, 40.0))
SQUARE = [[10, 20], [30, 20], [30, 60], [10, 60], [10, 20]]


def feature(coordinates, kind="Polygon", **more):
    return {
        "type": "Feature",
        "id": "a1",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation"},
        **more,
    }


def saved(tmp_path, root, name="a.geojson"):
    path = tmp_path / name
    path.write_text(json.dumps(root))
    return path


def test_pixel_corners_become_micrometres(tmp_path):
    path = saved(tmp_path, {"type": "FeatureCollection", "features": [feature([SQUARE])]})
    (shape,) = read_geojson(path, LATTICE)
    # x = column: 40 + 10 * 0.25 and 40 + 30 * 0.25; y = row: 100 + 20 * 0.5 and 100 + 60 * 0.5
    assert shape.geometry.bounds == (42.5, 110.0, 47.5, 130.0)
    assert shape.key == "a1"


def test_round_trip_keeps_everything(tmp_path):
    hole = [[12, 30], [20, 30], [20, 40], [12, 40], [12, 30]]
    other = [[[100, 100], [120, 100], [110, 130], [100, 100]]]
    first = feature([SQUARE, hole])
    first["properties"] |= {
        "name": "Übersicht",
        "isLocked": True,
        "measurements": {"area": float("nan"), "mean": 1.5},
        "classification": {"name": "neoplastic", "color": [200, 0, 17], "extra": "kept"},
    }
    second = feature([[SQUARE], other], "MultiPolygon", nucleusGeometry={"type": "Point"})
    second |= {"id": "b2"}
    second["properties"] = {"objectType": "tile", "color": [1, 2, 3]}
    source = {"type": "FeatureCollection", "features": [first, second]}
    shapes = read_geojson(saved(tmp_path, source), LATTICE)
    write_geojson(tmp_path / "b.geojson", shapes, LATTICE)
    written = json.loads((tmp_path / "b.geojson").read_text())
    assert math.isnan(written["features"][0]["properties"]["measurements"].pop("area"))
    first["properties"]["measurements"].pop("area")
    for got, wanted in zip(written["features"], source["features"], strict=True):
        same = shapely.geometry.shape(got.pop("geometry"))
        assert same.equals_exact(shapely.geometry.shape(wanted.pop("geometry")), 1e-6)
        assert got == wanted
    again = read_geojson(tmp_path / "b.geojson", LATTICE)
    for one, two in zip(shapes, again, strict=True):
        assert one.geometry.equals_exact(two.geometry, 1e-6)
        assert (one.key, one.label, one.colour) == (two.key, two.label, two.colour)
    assert (again[0].label, again[0].colour) == ("neoplastic", "#c80011")
    assert (again[1].label, again[1].colour) == ("", "#010203")
    assert len(again[0].geometry.interiors) == 1


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: f["geometry"]])
def test_other_roots(tmp_path, wrap):
    (shape,) = read_geojson(saved(tmp_path, wrap(feature([SQUARE]))), LATTICE)
    assert shape.geometry.area == pytest.approx(20 * 0.25 * 40 * 0.5)


def test_compressed_both_ways(tmp_path):
    shape = AnnotatedShape("k", "background", shapely.box(50, 110, 60, 130), "#00ff00")
    write_geojson(tmp_path / "a.geojson.gz", [shape], LATTICE)
    content = (tmp_path / "a.geojson.gz").read_bytes()
    assert gzip.decompress(content).startswith(b"{")
    plain = tmp_path / "renamed.json"
    plain.write_bytes(content)
    (again,) = read_geojson(plain, LATTICE)
    assert again.geometry.equals(shape.geometry)
    assert again.label == "background"


def test_older_packed_colour_and_missing_id(tmp_path):
    item = feature([SQUARE])
    del item["id"]
    item["properties"] = {"classification": {"name": "Tumor", "colorRGB": -3670016}}
    (shape,) = read_geojson(saved(tmp_path, [item]), LATTICE)
    assert shape.colour == "#c80000"
    assert shape.key == "feature-0"


def test_bow_tie_is_repaired_and_reported(tmp_path):
    bow = [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]
    notes = []
    (shape,) = read_geojson(saved(tmp_path, [feature(bow)]), LATTICE, notes=notes)
    assert shape.geometry.is_valid
    assert shape.geometry.area == pytest.approx(2 * 25 * 0.125)  # two triangles of 25 px
    assert len(notes) == 1
    assert "a1" in notes[0]
    assert notes == ["a.geojson: a1 was repaired: its outline had a self-intersection"]


def test_points_are_left_out_with_a_note(tmp_path):
    notes = []
    path = saved(tmp_path, [feature([1, 2], "Point"), feature([SQUARE], id="b")])
    assert [s.key for s in read_geojson(path, LATTICE, notes=notes)] == ["b"]
    assert "a1 is a Point" in notes[0]


@pytest.mark.parametrize(
    "coordinates",
    [
        [[[0, 0], [5, 5], [10, 10], [0, 0]]],
        [[[0, 0], [1, 1]]],
        [[[0, 0], [float("nan"), 1], [2, 2]]],
    ],
)
def test_hopeless_outline_is_refused_by_name(tmp_path, coordinates):
    with pytest.raises(InputError, match="a1"):
        read_geojson(saved(tmp_path, [feature(coordinates)]), LATTICE)


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[1, 2]", '{"type": "Topology"}', '{"type": {"a": "Polygon"}}', "[" * 100000],
)
def test_no_geojson(tmp_path, text):
    path = tmp_path / "x.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.geojson"):
        read_geojson(path, LATTICE)
    with pytest.raises(InputError, match="no file"):
        read_geojson(tmp_path / "absent.geojson", LATTICE)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.geojson"
    good = AnnotatedShape("k", "x", shapely.box(50, 110, 60, 130))
    write_geojson(path, [good], LATTICE)
    before = path.read_bytes()
    bad = AnnotatedShape("k", "x", good.geometry, properties={"thing": object()})
    with pytest.raises(TypeError):
        write_geojson(path, [good, bad], LATTICE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


def test_twice_the_same_identifier(tmp_path):
    notes = []
    path = saved(tmp_path, [feature([SQUARE]), feature([SQUARE])])
    keys = [s.key for s in read_geojson(path, LATTICE, notes=notes)]
    assert len(set(keys)) == 2
    assert np.all(["twice" in n for n in notes])
    assert notes


# --- in pieces ------------------------------------------------------------------------------------
def awkward_features():
    """Features whose texts and members look like the end of one and the beginning of another."""
    ring = [[10, 10], [50, 10], [50, 50], [10, 50], [10, 10]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    nested = {
        "type": "GeometryCollection",
        "geometries": [{"type": "Point", "coordinates": [1, 1]}, polygon, polygon],
    }
    crossed = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
    solid = {"type": "Polygon", "coordinates": [[[x, y, 7] for x, y in ring]]}
    texts = ['"},{"type":"Feature","id":"no"}', "\\", '\\"}, {"id":', "],[", "µ\u2028", "[[1]]"]
    for i in range(60):
        geometry = (polygon, nested, crossed, solid)[i % 4]
        properties = {
            "text": texts[i % len(texts)],
            "list": [{"type": "a"}, {"id": 1}, {"geometry": None}],
            "classification": {"name": f"class {i % 3}", "color": [1, 2, 3]},
            **({"nan": float("nan")} if i == 31 else {}),
        }
        yield {"type": "Feature", "id": f"f{i}", "geometry": geometry, "properties": properties}


def everything(shapes):
    return [(s.key, s.label, s.colour, s.geometry.wkb, repr(s.properties)) for s in shapes]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda items: {"type": "FeatureCollection", "features": items},
        lambda items: {"type": "FeatureCollection", "bbox": [0, 1], "features": items},
        lambda items: {"features": items, "type": "FeatureCollection", "crs": {"a": [1]}},
        lambda items: {"type": "FeatureCollection", "x": {"features": []}, "features": items},
        lambda items: items,
        lambda items: [{"type": "FeatureCollection", "features": items}],
    ],
)
def test_a_file_read_in_pieces_is_that_read_at_once(tmp_path, monkeypatch, wrap, indent):
    lattice = Lattice("he", (100, 100), (0.5, 0.25), (3.0, 4.0))
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(wrap(list(awkward_features())), indent=indent))
    notes, expected = {}, []
    for size in (1, 100, 1000, 1 << 40):
        monkeypatch.setattr(geojson_features, "_PIECE", size)
        shapes = everything(read_geojson(path, lattice, notes=notes.setdefault(size, [])))
        expected = expected or shapes
        assert shapes == expected
        assert notes[size] == notes[1]
    assert [row[0] for row in expected] == [f"f{i}" for i in range(60)]


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9999])
def test_a_file_that_ends_too_soon_is_refused_in_pieces_too(tmp_path, monkeypatch, cut):
    monkeypatch.setattr(geojson_features, "_PIECE", 500)
    text = json.dumps({"type": "FeatureCollection", "features": list(awkward_features())})
    path = tmp_path / "a.geojson"
    path.write_text(text[: int(cut * len(text))])
    with pytest.raises(InputError, match="not readable GeoJSON"):
        read_geojson(path, Lattice("he", (100, 100), (1.0, 1.0)))


def test_what_is_written_is_read_again_with_every_kind_of_area(tmp_path):
    lattice = Lattice("he", (100, 100), (0.5, 0.25), (3.0, 4.0))
    hole = shapely.box(0, 0, 30, 30).difference(shapely.box(5, 5, 10, 10))
    areas = [
        hole,
        shapely.MultiPolygon([hole, shapely.box(40, 40, 50, 50)]),
        shapely.box(1, 2, 3, 4),
    ]
    properties = {
        "nan": float("nan"),
        "long": 2**90,
        "text": 'µ"\\',
        "geojson:members": {"bbox": [1]},
    }
    shapes = [
        AnnotatedShape(f'k"{i}', "a", area, "#010203", properties) for i, area in enumerate(areas)
    ]
    for name in ("a.geojson", "a.geojson.gz"):
        write_geojson(tmp_path / name, shapes, lattice)
        again = read_geojson(tmp_path / name, lattice)
        assert [s.key for s in again] == ['k"0', 'k"1', 'k"2']
        assert [s.geometry.geom_type for s in again] == ["Polygon", "MultiPolygon", "Polygon"]
        for one, other in zip(shapes, again, strict=True):
            assert one.geometry.symmetric_difference(other.geometry).area < 1e-6
            assert repr(dict(other.properties)) == repr({"objectType": "annotation", **properties})
