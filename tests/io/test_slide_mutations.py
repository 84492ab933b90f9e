"""Damaged slides end in pixels or in one clear line: the short form of benchmarks/mutations.py."""

import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FORMATS = ("jpeg.svs", "jpeg2000.svs", "deflate.tif", "lzw-strips.tif", "bigtiff-jpeg.tif",
           "picture.png", "progressive.jpg", "plain-strip.tif")  # fmt: skip
EACH = 8


@pytest.fixture(scope="module")
def parts():
    """The modules of the benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _mutants_seeds
        import mutations
    finally:
        sys.path.remove(str(BENCHMARKS))
    return _mutants_seeds, mutations


@pytest.fixture(scope="module")
def seeds(parts, tmp_path_factory):
    return parts[0].make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_slide_is_read_or_told(parts, seeds, tmp_path, name):
    outcomes = Counter()
    for number in range(EACH):
        place = tmp_path / str(number)
        place.mkdir()
        kind, path = seeds[name].damaged(place, 100 * FORMATS.index(name) + number)
        if kind == "unpacks to a huge picture":  # takes seconds; the benchmark has it
            continue
        outcome, text = parts[1].judge(path, number)
        assert outcome in ("read", "error"), (number, kind, text)
        outcomes[outcome] += 1
    assert outcomes.total() >= EACH - 2


def test_equal_seeds_give_equal_damage(seeds, tmp_path):
    found = []
    for number, seed in enumerate((5, 5, 6)):
        place = tmp_path / str(number)
        place.mkdir()
        kind, path = seeds["deflate.tif"].damaged(place, seed)
        found.append((kind, path.read_bytes()))
    assert found[0] == found[1] != found[2]


def test_an_undamaged_slide_is_a_valid_read(parts, seeds):
    for name in FORMATS:
        assert parts[1].judge(seeds[name].main, 1) == ("read", "")
