"""The shares of parts of a step are those of its time, on slides of several sizes.

The paces are planted: what the parts took on a case of real size (72,000 x 96,000 px, 2,681 tiles),
on a tenth of it, and on the demo, as shares of the whole.  So a machine may be as slow as it likes.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import Lattice, Raster
from napari_mosaik.core.progress import TimeLeft, run_to_end
from napari_mosaik.register import pet_registration, section_registration
from napari_mosaik.register.affine_fit import Smoother
from napari_mosaik.register.params import AlignParams
from napari_mosaik.spatial import association
from napari_mosaik.workflow.predictor_inputs import prediction_shares
from napari_mosaik.workflow.steps import review, tissue

SILENT = True


def off(monkeypatch, seconds, parts):
    """Errors of the time left after 10, 25 and 50 % of a step whose parts end so.

    Each is the share that is told at its end, the true one, and whether it is silent before.
    """
    now = [0.0]
    monkeypatch.setattr("napari_mosaik.core.progress.time.monotonic", lambda: now[0])
    left, errors, share, begun = TimeLeft(), {}, 0.0, 0.0
    for told, ends, *silent in parts:
        for at in np.arange(begun, ends, 0.002):
            now[0] = seconds * at
            gained = 0.0 if silent else (at - begun) / (ends - begun)
            left.reach(share + (told - share) * gained, part="in work")
            rest = left.seconds()
            errors[round(at, 2)] = None if rest is None else rest / (seconds * (1 - at)) - 1
        share, begun = told, ends
    return [errors[at] for at in (0.1, 0.25, 0.5)]


def is_right(errors):
    return all(one is None or abs(one) <= 0.3 for one in errors)


def pet_slice(side):
    return Raster(np.zeros((side, side)), Lattice("pet", (side, side), (400.0, 400.0)))


@pytest.mark.parametrize(
    ("side", "seconds", "ends"),
    [
        pytest.param(71, 9.7, (0.04, 0.19, 0.445, 0.48, 0.815), id="real size: no other angle"),
        pytest.param(29, 3.1, (0.25, 0.31, 0.44, 0.46, 0.625), id="demo: three other angles"),
    ],
)
def test_the_parts_of_a_registration_of_the_pet(monkeypatch, side, seconds, ends):
    shares = pet_registration._shares(pet_slice(side), 1500.0)
    silent = [SILENT, SILENT, False, SILENT, False]  # outlines are told in three jumps
    parts = [
        (told, true, *([SILENT] if one else []))
        for told, true, one in zip(shares, ends, silent, strict=True)
    ]
    errors = off(monkeypatch, seconds, [*parts, (1.0, 1.0)])
    assert is_right(errors), (errors, shares)
    assert errors[-1] is not None


def sections(megapixels):
    rows = int(np.sqrt(megapixels * 1e6))
    values = np.broadcast_to(np.float32(0.0), (rows, rows))
    one = Smoother(Raster(values, Lattice("he", values.shape, (10.0, 10.0))))
    return section_registration._SectionPair(one, one, None, None)


@pytest.mark.parametrize(
    ("megapixels", "seconds", "inliers", "ends"),
    [
        pytest.param(4.3, 7.3, 0.1, (0.2, 0.26, 0.48, 0.86, 1.0), id="real size, all angles"),
        pytest.param(4.3, 4.5, 0.6, (0.31, 0.41, 0.77, 0.77, 1.0), id="real size, clear"),
        pytest.param(0.48, 3.9, 0.1, (0.25, 0.34, 0.44, 0.84, 1.0), id="demo, all angles"),
    ],
)
def test_the_parts_of_a_registration_of_sections(monkeypatch, megapixels, seconds, inliers, ends):
    pair, times = sections(megapixels), section_registration._Times.of_megapixels(megapixels)
    monkeypatch.setattr(
        section_registration, "_refined", lambda *_: SimpleNamespace(inlier_fraction=inliers)
    )
    outlined = section_registration._OUTLINES_S / times.total
    work = section_registration._refined_starts(pair, [None] * 4, AlignParams(), outlined)
    _, refined = run_to_end(work)
    tried = refined
    if inliers < 0.3:
        tried += (1 - refined) * times.search / (times.search + times.match)
    read = section_registration.reading_share(megapixels)
    told = [read, *(read + (1 - read) * one for one in (outlined, refined, tried, 1.0))]
    parts = [(one, true) for one, true in zip(told, ends, strict=True)]
    errors = off(monkeypatch, seconds, parts)
    assert is_right(errors[2:]), (errors, told)
    # Until candidates are refined it is not known whether all angles have to be searched.
    assert all(one is None or -0.5 < one < 0.6 for one in errors[:2]), (errors, told)


@pytest.mark.parametrize(
    ("n_tiles", "seconds", "ends"),
    [
        pytest.param(2681, 17.0, (0.1, 0.915, 0.982), id="real size"),
        pytest.param(275, 4.1, (0.48, 0.935, 0.976), id="a tenth"),
    ],
)
def test_the_parts_of_a_prediction(monkeypatch, n_tiles, seconds, ends):
    shares = prediction_shares(n_tiles)
    silent = [[SILENT], [], [SILENT]]
    parts = [(told, true, *one) for told, true, one in zip(shares, ends, silent, strict=True)]
    errors = off(monkeypatch, seconds, [*parts, (1.0, 1.0)])
    assert is_right(errors), (errors, shares)
    assert errors[-1] is not None


@pytest.mark.parametrize(
    ("n_tiles", "seconds", "ends"),
    [
        pytest.param(2681, 5.8, (0.37, 0.89, 0.973), id="real size"),
        pytest.param(275, 3.1, (0.8, 0.92, 0.95), id="a tenth"),
    ],
)
def test_the_parts_of_a_review(monkeypatch, n_tiles, seconds, ends):
    shares = review._shares(n_tiles, 16)
    silent = [[SILENT], [], [SILENT]]
    parts = [(told, true, *one) for told, true, one in zip(shares, ends, silent, strict=True)]
    errors = off(monkeypatch, seconds, [*parts, (1.0, 1.0)])
    assert is_right(errors), (errors, shares)


def test_the_parts_of_the_tissue(monkeypatch):
    monkeypatch.setattr(tissue, "n_workers", lambda: 2)
    ends = (0.06, 0.29, 0.9, 0.95)  # beside other programs, on a quiet machine the third is less
    quiet = (0.07, 0.39, 0.86, 0.93)
    for true in (ends, quiet):
        parts = list(zip([*tissue._shares(0.0)[:4], 1.0], [*true, 1.0], strict=True))
        errors = off(monkeypatch, 8.0, parts)
        assert is_right(errors), (errors, parts)


def test_the_parts_of_a_correlation_follow_the_number_of_tiles():
    small, large = (association._times_s(n, association.AssociationParams()) for n in (300, 2400))
    assert large[1] / sum(large) > 0.9  # the spectrum of the tiles
    assert large[1] / small[1] == pytest.approx(512)
    beyond = association._times_s(2600, association.AssociationParams())
    assert beyond[1] == 0.0  # none for so many
    assert association._LOAD_S / (association._LOAD_S + sum(large)) == pytest.approx(0.3, abs=0.1)
