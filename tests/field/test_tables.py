"""Landmark tables as spreadsheets, napari and QuPath write them."""

import numpy as np
import pytest

from napari_mosaik.core.errors import InputError
from napari_mosaik.register import check_partners, landmark_names, read_landmarks

POINTS = [[20.25, 10.5], [30.5, 200.0], [140.0, 150.75]]  # row, column in pixels


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "landmarks.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "index,X,Y\n1,10.5,20.25\n2,200,30.5\n3,150.75,140\n",
        "index;X;Y\n1;10,5;20,25\n2;200,0;30,5\n3;150,75;140,0\n",
        "sep=;\r\nindex;X;Y\r\n1;10,5;20,25\r\n2;200;30,5\r\n3;150,75;140\r\n",
        "index,X,Y\n1,10.5,20.25\n\n2,200,30.5\n,,\n3,150.75,140\n,,\n,,\n",
        'index,X,Y\n1,"10,5","20,25"\n2,200,"30,5"\n3,"150,75",140\n',
        "index\tX\tY\n1\t10,5\t20,25\n2\t200\t30,5\n3\t150,75\t140\n",
        "index,axis-0,axis-1\n0,20.25,10.5\n1,30.5,200\n2,140,150.75\n",
        "axis-0,axis-1\n20.25,10.5\n30.5,200\n140,150.75\n",
        "x,y,class\n10.5,20.25,a\n200,30.5,a\n150.75,140,a\n",
        " X (px) , Y (px) \n10.5,20.25\n200,30.5\n150.75,140\n",
        "Name,Centroid X µm,Centroid Y µm\na,5.25,10.125\nb,100,15.25\nc,75.375,70\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_every_usual_table_gives_the_same_landmarks(tmp_path, text, encoding):
    assert np.allclose(read_landmarks(written(tmp_path, text, encoding), 0.5), np.array(POINTS) / 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X,Y\n1,2\n3,abc\n", r"line 3: 'abc' is not a number"),
        ("X,Y\n1,2\n3,\n", r"line 3: a coordinate is missing"),
        ("X,Y\n1,2\n3\n", r"line 3: a coordinate is missing"),
        ("X,Y\n1,nan\n", r"line 2: 'nan' is not a number"),
        ('X,Y\n"1,234",5\n', r"'1,234' may have a decimal comma or separated thousands"),
        ("X;Y\n1.234,5;2\n", r"line 2: '1.234,5' is not a number"),
        ("sep=;\nX;Y\n1;b\n", r"line 3: 'b' is not a number"),
        ("X (mm),Y (mm)\n1,2\n", r"needs the columns X and Y in pixels"),
        ("a,b\n1,2\n", r"needs the columns X and Y in pixels .* not 'a,b'"),
        ("", r"needs the columns X and Y"),
        (
            "index,shape-type,vertex-index,axis-0,axis-1\n0,polygon,0,1,2\n",
            r"holds shapes of napari, not landmarks; save a Points layer",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_line_and_value(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_landmarks(written(tmp_path, text), 0.5)


def test_a_comma_beside_semicolons_is_a_decimal_comma_whatever_follows_it(tmp_path):
    assert read_landmarks(written(tmp_path, "X;Y\n1,234;5,678\n"), 1.0).tolist() == [[5.678, 1.234]]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_table_in_utf_16_needs_no_mark(tmp_path, encoding):
    assert read_landmarks(written(tmp_path, "X,Y\n1,2\n", encoding), 1.0).tolist() == [[2.0, 1.0]]


def test_names_follow_their_landmarks_across_empty_rows(tmp_path):
    path = written(tmp_path, "name;X;Y\nvessel;1;2\n;;\nduct;3;4\n;5;6\n")
    assert landmark_names(path) == ["vessel", "duct", "3"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X;Y\n1.234;20\n300;40\n", "1.234"),
        ("X;Y\n1.234;20,5\n300;40\n", "1.234"),
        ("X\tY\n20\t12.345.678\n", "12.345.678"),
        ("X;Y\n1.234;5.678\n200.125;30.500\n", ""),  # three decimals throughout
        ("X,Y\n1.234,20\n300,40\n", ""),  # separated by commas: a decimal point
        ("X;Y\n0.234;20\n", ""),
    ],
)
def test_a_point_that_may_separate_thousands_is_asked_back(tmp_path, text, value):
    path = written(tmp_path, text)
    if not value:
        assert len(read_landmarks(path, 1.0)) > 0
        return
    with pytest.raises(InputError, match=f"line 2: '{value}' may have a decimal point or sepa"):
        read_landmarks(path, 1.0)


def names_of(folder, name, names):
    text = "".join(f"{one},{n},{n}\n" for n, one in enumerate(names))
    return written(folder, f"name,X,Y\n{text}").rename(folder / name)


@pytest.mark.parametrize(
    ("one", "other", "row"),
    [
        ("abcd", "abcd", 0),
        ("0123", "1234", 0),  # counted from 0 and from 1
        ("abcd", "wxyz", 0),
        ("abcd", "badc", 1),  # sorted in one of them
        ("abcd", "dcba", 1),
        ("abde", "abce", 3),  # another landmark deleted in each
        ("abcd", "acd", 2),
    ],
)
def test_landmarks_are_partners_by_row_unless_their_names_say_otherwise(tmp_path, one, other, row):
    first, second = names_of(tmp_path, "he.csv", one), names_of(tmp_path, "cd34.csv", other)
    if not row:
        check_partners(first, second)
        return
    message = f"landmark {row} is '{one[row - 1]}' in he.csv and '{other[row - 1]}' in cd34.csv"
    with pytest.raises(InputError, match=f"{message}; .*sort both files alike"):
        check_partners(first, second)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name",
    [
        "H40_landmarks_semicolon_decimal_comma",
        "H41_landmarks_empty_cells_at_the_end",
        "H42_landmarks_of_napari",
    ],
)
def test_reported_tables(field_inputs, name):
    points = read_landmarks(field_inputs / f"{name}.csv", 1.0)
    assert points.tolist() == [[20.25, 10.5], [30.5, 200.0], [140.0, 150.75], [120.5, 60.0]]
