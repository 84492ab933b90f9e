"""Kernels: published Monte Carlo values, transfer functions by quadrature, files."""

import numpy as np
import pytest
from scipy.integrate import quad

from napari_mosaik.core import InputError
from napari_mosaik.dosimetry import KERNEL_COLUMNS, NUCLIDES, DoseKernel
from napari_mosaik.dosimetry.electrons import beta_spectrum, cole_energy_kev

GY_PER_MEV_UM3 = 160.2  # 1 MeV in each cubic micrometre of water
ALONG = np.concatenate([[0.0], np.geomspace(1e-3, 12_000, 1000)])
MIDDLE = (ALONG[1:] + ALONG[:-1]) / 2


def shells(kernel):
    """Share at the decay itself, and in the shells between ALONG."""
    within = kernel.fraction_within(ALONG)
    return within[0], np.diff(within)


def sphere_mean(kernel, radius):
    """Mean dose of an evenly filled sphere relative to full absorption."""
    at_once, share = shells(kernel)
    r = np.minimum(MIDDLE, 2 * radius)
    return at_once + share @ (1 - 3 * r / (4 * radius) + r**3 / (16 * radius**3))


def inside_sphere(kernel, distance, radius):
    """Share of the energy of a decay, away from the centre of a sphere, absorbed inside it."""
    at_once, share = shells(kernel)
    cosine = (distance**2 + MIDDLE**2 - radius**2) / (2 * distance * MIDDLE)
    return at_once * (distance < radius) + share @ np.clip((1 - cosine) / 2, 0, 1)


def nucleus_dose_gy(kernel, where):
    """Dose to a nucleus of 10 µm in a cell of 14 µm by 1436 MeV released in one place."""
    if where == "surface":
        share = inside_sphere(kernel, 7.0, 5.0)
    else:
        low, high = (0.0, 5.0) if where == "nucleus" else (5.0, 7.0)
        nodes, weights = np.polynomial.legendre.leggauss(60)
        at = low + (nodes + 1) / 2 * (high - low)
        weights = weights * at**2
        shares = [inside_sphere(kernel, r, 5.0) for r in at]
        share = weights @ shares / weights.sum()
    return 1436 / (4 / 3 * np.pi * 5**3) * GY_PER_MEV_UM3 * share


def cube_share(kernel, side_um):
    """Share of the energy released in a cube that is absorbed in it, by angles and distances."""
    at_once, share = shells(kernel)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    cosine, angle = np.meshgrid((nodes + 1) / 2, (nodes + 1) / 4 * np.pi, indexing="ij")
    sine = np.sqrt(1 - cosine**2)
    along = np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine])
    overlap = [
        (np.outer(weights, weights) / 4 * np.clip(1 - along * r / side_um, 0, 1).prod(0)).sum()
        for r in MIDDLE
    ]
    return at_once + share @ overlap


@pytest.mark.parametrize(
    ("diameter_um", "published_gy", "limit"), [(2000, 128, 0.05), (200, 42, 0.05), (20, 6.6, 0.1)]
)
def test_published_spheres(diameter_um, published_gy, limit):
    share = sphere_mean(DoseKernel.built_in("Lu-177"), diameter_um / 2)
    assert share * GY_PER_MEV_UM3 == pytest.approx(published_gy, rel=limit)


@pytest.mark.parametrize(
    ("name", "where", "published_gy"),
    [
        ("Lu-177", "surface", 1.9),
        ("Lu-177", "cytoplasm", 3.0),
        ("Lu-177", "nucleus", 10.7),
        ("Tb-161", "surface", 5.0),
        ("Tb-161", "cytoplasm", 8.3),
        ("Tb-161", "nucleus", 38.6),
    ],
)
def test_published_single_cells(name, where, published_gy):
    found = nucleus_dose_gy(DoseKernel.built_in(name), where)
    assert found == pytest.approx(published_gy, rel=0.1)


@pytest.mark.parametrize(("side_mm", "published"), [(3, 1.61), (6, 0.346)])
def test_published_voxels_of_yttrium(side_mm, published):
    share = cube_share(DoseKernel.built_in("Y-90"), 1.04 * side_mm * 1e3)
    mass_g = 1.04 * (side_mm / 10) ** 3
    s_mgy = 933.1e3 * 1.602176634e-19 * 1e6 / (mass_g * 1e-3) * share * 1e3
    assert s_mgy == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(("name", "end", "z", "mean"), [("Lu-177", 497.8, 72, 149.4)])
def test_the_mean_of_a_beta_branch(name, end, z, mean):
    energy = (np.arange(20_000) + 0.5) / 20_000 * end
    spectrum = beta_spectrum(energy, end, z, 177)
    assert energy @ spectrum / spectrum.sum() == pytest.approx(mean, rel=0.01)


def test_the_range_relation():
    r = np.array([0.0, 10.0, 100.0])
    assert cole_energy_kev(r) == pytest.approx([0.0, 21.399, 81.112], abs=2e-3)


def test_most_of_the_energy_of_yttrium_lies_within_six_millimetres():
    assert DoseKernel.built_in("Y-90").radius_holding_um(0.9) == pytest.approx(6000, rel=0.05)


@pytest.mark.parametrize("name", ["Lu-177", "Tb-161", "I-131", "Y-90"])
def test_transfer_of_a_table_by_quadrature(name):
    kernel = DoseKernel.built_in(name)
    fine = np.concatenate([[0.0], np.geomspace(1e-4, kernel.reach_um, 40_000)])
    share = np.diff(kernel.fraction_within(fine))
    middle = (fine[1:] + fine[:-1]) / 2
    k = np.array([0.0, 1e-4, 1e-3, 0.01, 0.05])
    by_sum = [kernel.within[0] + share @ np.sinc(one * middle / np.pi) for one in k]
    assert kernel.transfer(k) == pytest.approx(by_sum, abs=1e-5)
    assert kernel.transfer(0.0) == pytest.approx(1, abs=1e-12)


def test_the_energy_per_decay_of_the_nuclide_weighs_the_parts():
    """Auger electrons but the K ones stay where they are: 0.96 of 147.9 keV of lutetium."""
    assert DoseKernel.built_in("Lu-177").within[0] == pytest.approx(0.96 / 147.9, rel=1e-3)
    assert DoseKernel.built_in(NUCLIDES["Tb-161"]).within[0] == pytest.approx(
        8.32 / 202.5, rel=0.01
    )


def test_the_exponential_kernel():
    kernel = DoseKernel.exponential(50.0)
    k = np.array([[0.0, 1e-3], [0.02, 5.0]])
    x = np.where(k > 0, 50 * k, 1)
    assert kernel.transfer(k) == pytest.approx(np.where(k > 0, np.arctan(x) / x, 1))
    by_quad = quad(lambda r: np.exp(-r / 50) / 50 * np.sinc(0.02 * r / np.pi), 0, 3000, limit=500)
    assert kernel.transfer(0.02) == pytest.approx(by_quad[0])
    assert kernel.fraction_within([0.0, 50.0]) == pytest.approx([0, 1 - np.exp(-1)])
    assert kernel.radius_holding_um(0.5) == pytest.approx(50 * np.log(2))


def test_the_local_kernel():
    kernel = DoseKernel.local()
    assert kernel.fraction_within([0.0, 7.0]).tolist() == [1, 1]
    assert kernel.transfer([[0.0, 3.0]]).tolist() == [[1, 1]]


def test_arrays_keep_their_shape_and_nan():
    kernel = DoseKernel.built_in("Lu-177")
    for found in (kernel.transfer([[0.1], [np.nan]]), kernel.fraction_within([[0.1], [np.nan]])):
        assert found.shape == (2, 1)
        assert np.isnan(found).tolist() == [[False], [True]]
    assert kernel.transfer([]).shape == (0,)


@pytest.mark.parametrize("name", ["Zr-89", "Ac-225", "At-211"])
def test_a_nuclide_without_a_spectrum_is_refused(name):
    with pytest.raises(InputError, match=f"no built-in kernel for {name}, only for Lu-177"):
        DoseKernel.built_in(name)


def test_negative_arguments_are_refused():
    with pytest.raises(InputError, match="distance must be 0"):
        DoseKernel.local().fraction_within(-1)
    with pytest.raises(InputError, match="frequencies must be 0"):
        DoseKernel.local().transfer(-1)
    with pytest.raises(InputError, match="range of an exponential kernel must be"):
        DoseKernel.exponential(0)


HEADER = ",".join(KERNEL_COLUMNS)


def kernel_file(tmp_path, rows, header=HEADER):
    path = tmp_path / "kernel.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]), "utf-8")
    return path


def water_rows(radii_cm, energies, density=1.0):
    edges = np.concatenate([[0.0], radii_cm])
    mass = density * 4 / 3 * np.pi * np.diff(edges**3)
    return [(r, e, 0.001, m, e / m) for r, e, m in zip(radii_cm, energies, mass, strict=True)]


def test_a_file(tmp_path):
    rows = water_rows([0.01, 0.02, 0.04], [0.06, 0.03, 0.01])
    kernel = DoseKernel.from_file(kernel_file(tmp_path, rows))
    assert kernel.fraction_within([0, 50, 100, 200, 300, 400, 500]) == pytest.approx(
        [0, 0.3, 0.6, 0.9, 0.95, 1, 1]
    )
    k = 0.01
    expected = sum(
        share * quad(lambda r: np.sin(k * r) / (k * r), low, high)[0] / (high - low)
        for share, low, high in ((0.6, 0, 100), (0.3, 100, 200), (0.1, 200, 400))
    )
    assert kernel.transfer(k) == pytest.approx(expected)


def test_a_file_of_the_built_in_kernel_gives_the_same_transfer(tmp_path):
    own = DoseKernel.built_in("Lu-177")
    energies = np.diff(own.within)
    energies[0] += own.within[0]
    path = kernel_file(tmp_path, water_rows(own.radius_um[1:] / 1e4, energies))
    k = np.geomspace(1e-4, 0.1, 20)
    assert DoseKernel.from_file(path).transfer(k) == pytest.approx(own.transfer(k), abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([(0.1, 1, 0, 1, 1)], "r_mm,E_MeV,uncertainty,mass_g,dose_MeV_per_g", "header must be"),
        ([(0.1, 1, 0, 1, 1)], "r_cm,E_keV,uncertainty,mass_g,dose_MeV_per_g", "header must be"),
        ([(0.2, 1, 0, 1, 1), (0.1, 1, 0, 1, 1)], None, "must ascend .* row 2 has 0.1 cm"),
        ([(0.1, 1, 0, 1, 1), (0.1, 1, 0, 1, 1)], None, "must ascend"),
        ([(-0.1, 1, 0, 1, 1)], None, "must ascend from 0 on"),
        ([(0.1, 1, 0, 1, 1), (0.2, -1, 0, 1, 1)], None, "not be negative, but row 2 has -1 MeV"),
        ([(0.1, 0, 0, 1, 1)], None, "add up to 0"),
        ([(0.1, "x", 0, 1, 1)], None, "'x' in row 1 is not a number"),
        ([(0.1, 1)], None, "row 1 has 2 columns, not 5"),
        ([(0.1, "nan", 0, 1, 1)], None, "not a finite number"),
        ([], None, "no shells"),
    ],
)
def test_files_that_are_refused(tmp_path, rows, header, says):
    with pytest.raises(InputError, match=f"kernel.csv.*{says}"):
        DoseKernel.from_file(kernel_file(tmp_path, rows, header or HEADER))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none.csv cannot be read: no such file"):
        DoseKernel.from_file(tmp_path / "none.csv")


def test_radii_in_another_unit_are_noticed_by_the_masses(tmp_path):
    rows = water_rows([0.01, 0.02, 0.04, 0.08], [0.06, 0.03, 0.01, 0.01])
    in_mm = [(10 * r, *rest) for r, *rest in rows]
    with pytest.raises(InputError, match=r"mass_g belongs to shells of 0.001 g/mL"):
        DoseKernel.from_file(kernel_file(tmp_path, in_mm))
