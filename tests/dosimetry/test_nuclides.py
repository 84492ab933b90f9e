"""Energies per decay against the table of the specification, and the dose by hand."""

import math

import pytest

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import NUCLIDES, Nuclide, dose_per_activity_gy, nuclide

TABLE = {
    "Zr-89": (78.41, 101.9, 0, 1158),
    "Y-90": (64.10, 933.1, 0, 0),
    "I-131": (192.5, 191.8, 0, 383),
    "Tb-161": (165.7, 202.5, 0, 37),
    "Lu-177": (159.5, 147.9, 0, 35),
    "At-211": (7.214, 6.0, 6910, 41),
    "Ac-225": (238.1, 690, 27990, 219),
}


def test_the_table():
    assert list(NUCLIDES) == list(TABLE)
    for name, (half_life, electrons, heavy, photons) in TABLE.items():
        own = NUCLIDES[name]
        assert own.name == name
        assert own.source
        assert (own.half_life_h, own.electron_kev, own.photon_kev) == (
            half_life,
            electrons,
            photons,
        )
        assert own.alpha_kev + own.recoil_kev == heavy


def test_the_parts_of_the_electrons_add_up():
    for own in NUCLIDES.values():
        parts = own.beta_kev + own.conversion_kev + own.auger_kev
        assert math.isnan(parts) or parts == pytest.approx(own.electron_kev, abs=0.15)


@pytest.mark.parametrize("name", ["Lu-177", "177Lu", "177-Lu", "lu177", " LU-177 "])
def test_names(name):
    assert nuclide(name) is NUCLIDES["Lu-177"]


@pytest.mark.parametrize("name", ["Lu-176", "F-18", "", "177", "Lu-177m"])
def test_an_unknown_nuclide_is_refused_with_the_names_offered(name):
    with pytest.raises(InputError, match=r"is not known; one of: Zr-89, Y-90, .*Ac-225"):
        nuclide(name)


def test_the_dose_of_lutetium_by_hand():
    joules = 147.9e3 * 1.602176634e-19  # per decay
    decays = 1e6 * 3600  # 1 MBq h
    assert dose_per_activity_gy("177Lu") == pytest.approx(joules * decays / 1e-3, rel=1e-12)
    assert dose_per_activity_gy("Lu-177") == pytest.approx(0.0853064, rel=2e-6)


def test_parts_and_the_share_of_daughters_that_stays():
    per_mev = 0.57678358824
    ac = NUCLIDES["Ac-225"]
    assert dose_per_activity_gy(ac, part="alpha") == pytest.approx(27.99 * per_mev)
    assert dose_per_activity_gy(ac, part="all") == pytest.approx(28.68 * per_mev)
    assert dose_per_activity_gy(ac, part="alpha", retained=0) == pytest.approx(19.513 * per_mev)
    assert dose_per_activity_gy(ac, retained=0) == pytest.approx(0.0338 * per_mev)
    middle = dose_per_activity_gy(ac, part="all", retained=0.25)
    ends = [dose_per_activity_gy(ac, part="all", retained=f) for f in (0, 1)]
    assert middle == pytest.approx(0.75 * ends[0] + 0.25 * ends[1])
    assert dose_per_activity_gy("At-211", part="alpha", retained=0) == pytest.approx(6.91 * per_mev)


def test_a_nuclide_of_ones_own():
    own = Nuclide("X-1", 1.0, 1000.0, 0, 0, 0, 0, 0, 0, "test")
    assert dose_per_activity_gy(own) == pytest.approx(0.57678358824)


def test_what_is_refused():
    with pytest.raises(InputError, match="part 'gamma'"):
        dose_per_activity_gy("Lu-177", part="gamma")
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="retained share"):
            dose_per_activity_gy("Ac-225", retained=share)
