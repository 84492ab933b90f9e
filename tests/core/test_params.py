"""Settings, origins, colour, and how light the import is."""

import re
import subprocess
import sys
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field
from skimage.color import rgb2hed

from napari_mosaik.core import InputError, Origin, Params, setting
from napari_mosaik.core.colour import (
    DAB,
    EOSIN,
    HAEMATOXYLIN,
    WHITE_INTENSITY,
    optical_density,
    stain_density,
    stain_matrix,
)
from napari_mosaik.core.progress import run_to_end


class Example(Params):
    size_um: float = setting(400.0, "Edge of a tile.", unit="µm", gt=0)
    name: str = setting("a", "A word.")


def test_an_invalid_setting_is_named_with_its_value():
    with pytest.raises(InputError, match=r"step x: size_um = -1 is not valid"):
        Example.parse({"size_um": -1}, "step x")
    with pytest.raises(InputError, match=r"width.*choose from: size_um, name"):
        Example.parse({"width": 3})


class Counted(Params):
    count: int = setting(1, "A count.", ge=1)
    exact: bool = setting(False, "Exact?")
    inner: Example = setting(Example(), "Another.")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"inner": {"size_um": "1,500"}}, "inner.size_um = '1,500' is not valid: '1,500' may be"),
        ({"inner": {"size_um": "a"}}, "inner.size_um = 'a' is not valid: give a number"),
        ({"inner": {"size_um": float("nan")}}, "inner.size_um = nan is not valid: give a number"),
        ({"count": 0}, "count = 0 is not valid: give 1 or more"),
        ({"count": 1.5}, "count = 1.5 is not valid: give a whole number"),
        ({"exact": "perhaps"}, "exact = 'perhaps' is not valid: give true or false"),
        ({"inner": 3}, "inner = 3 is not valid: give a table"),
    ],
)
def test_an_invalid_setting_says_what_to_give(given, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        Counted.parse(given)


def test_a_number_typed_with_a_decimal_comma_is_that_number():
    assert Counted.parse({"inner": {"size_um": "0,5"}}).inner.size_um == 0.5


class Lists(Params):
    three: tuple[int, int, int] = setting((8, 16, 16), "Three numbers.")
    words: tuple[Literal["a", "b"], ...] = setting((), "Words.")
    sizes: tuple[Annotated[float, Field(gt=0)], ...] = setting((4.0, 8.0), "Sizes.")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"three": "4, 8,16"}, {"three": (4, 8, 16)}),
        ({"three": [4, 8, 16]}, {"three": (4, 8, 16)}),
        ({"words": "b"}, {"words": ("b",)}),
        ({"words": "a,b"}, {"words": ("a", "b")}),
        ({"words": " "}, {"words": ()}),
        ({"sizes": 3}, {"sizes": (3.0,)}),
        ({"sizes": "0.5,2"}, {"sizes": (0.5, 2.0)}),
    ],
)
def test_a_setting_with_several_values_is_typed_with_commas(given, values):
    assert Lists.parse(given) == Lists(**values)
    assert Lists.parse(given).digest() == Lists(**values).digest()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"three": "4,8"}, "three = '4,8' is not valid: the number of values is another; give 3"),
        ({"three": "1,2,3,4"}, "the number of values is another; give 3 values, separated"),
        ({"three": "4,x,8"}, "three = '4,x,8' is not valid: 'x': give a whole number"),
        ({"three": {"a": 1}}, "give 3 values, separated by commas"),
        ({"words": "c"}, "words = 'c' is not valid: 'c': give 'a' or 'b'; give any"),
        ({"words": "a,,b"}, "'': give 'a' or 'b'"),
        ({"sizes": "0"}, "'0': give more than 0; give any number of values"),
    ],
)
def test_a_wrong_list_is_named_with_its_value_and_its_form(given, problem):
    with pytest.raises(InputError, match=re.escape(problem)):
        Lists.parse(given)


def test_equal_settings_have_equal_digests():
    assert Example().digest() == Example(size_um=400).digest() != Example(size_um=401).digest()


def test_an_origin_comes_back_and_feels_every_part():
    origin = Origin("vessels", 1, "p", (("slide:cd34", "d"),))
    assert Origin.from_dict(origin.as_dict()) == origin
    others = [
        Origin("nuclei", 1, "p", origin.inputs),
        Origin("vessels", 2, "p", origin.inputs),
        Origin("vessels", 1, "q", origin.inputs),
        Origin("vessels", 1, "p", (("slide:cd34", "e"),)),
    ]
    assert len({origin.digest(), *(one.digest() for one in others)}) == 5


def test_stains_are_separated_as_they_were_mixed():
    amounts = np.random.default_rng(0).uniform(0, 0.8, (200, 2))
    matrix = stain_matrix(HAEMATOXYLIN, DAB)
    od = amounts @ matrix[:, :2].T
    rgb = np.clip(np.rint(WHITE_INTENSITY * np.exp(-od) - 1), 0, 255).astype(np.uint8)
    assert np.abs(stain_density(rgb, matrix)[:, :2] - amounts).max() < 0.03


def test_one_unit_of_scikit_image_is_13_8155_of_ours():
    rgb = np.array([[[150, 110, 160]], [[90, 60, 40]]], np.uint8)
    theirs = rgb2hed(rgb / 255.0)
    log = np.log(np.maximum(rgb / 255.0, 1e-6))
    matrix = stain_matrix(HAEMATOXYLIN, EOSIN, DAB)
    ours = -log @ np.linalg.inv(matrix).T
    hed = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    same_vectors = -log @ np.linalg.inv(hed)
    positive = theirs > 1e-3
    assert np.allclose(same_vectors[positive] / theirs[positive], 13.8155, rtol=1e-4)
    assert np.allclose(ours[positive], same_vectors[positive], rtol=0.1, atol=0.05)


def test_optical_density_needs_bytes():
    with pytest.raises(InputError, match="8-bit"):
        optical_density(np.zeros((2, 3)))


def test_finishing_returns_the_result():
    def work():
        yield 1
        return "end"

    assert run_to_end(work()) == "end"


class Offered(Params):
    edge: Literal[40, 80] = setting(40, "An edge.")
    word: Literal["40", "x"] = setting("x", "A word.")


def test_one_of_several_numbers_can_be_typed():
    assert Offered.parse({"edge": " 80 "}).edge == 80
    assert Offered.parse({"word": "40"}).word == "40"
    with pytest.raises(InputError, match="edge = '81' is not valid: give 40 or 80"):
        Offered.parse({"edge": "81"})


def test_importing_the_package_is_light():
    code = (
        "import sys, napari_mosaik, napari_mosaik.core; "
        "print(sorted({'torch', 'pandas', 'napari', 'numba', 'zarr'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
