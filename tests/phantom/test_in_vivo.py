"""The sample's series of days 3, 5 and 7: its law by another integrator, its images, its values."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from napari_mosaik import phantom
from napari_mosaik.io import Case
from napari_mosaik.io.invivo import read_invivo
from napari_mosaik.io.pet import open_pet_volume
from napari_mosaik.phantom import in_vivo
from napari_mosaik.phantom.in_vivo import InVivoLaw, in_vivo_curves, write_in_vivo
from napari_mosaik.phantom.presets import PLANS
from napari_mosaik.workflow.invivo import SphereOfInterest, measure_invivo, open_series

WRITTEN = Path(__file__).parents[2] / "sample_data" / "tiny" / "A2"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case") / "A2"
    folder.mkdir()
    write_in_vivo(folder, PLANS["A2"], 0)
    return folder


@pytest.fixture(scope="module")
def truth(made):
    return json.loads((made / "truth" / "invivo.json").read_text("utf-8"))


def law_of(truth):
    return InVivoLaw(**{**truth["law"], "plasma_half_h": tuple(truth["law"]["plasma_half_h"])})


def test_the_curves_are_those_of_another_integrator(truth):
    law = truth["law"]
    first, second = law["plasma_half_h"]

    def plasma(t):
        fast = law["plasma_share"] * 2 ** (-t / first)
        return law["plasma_start"] * (fast + (1 - law["plasma_share"]) * 2 ** (-t / second))

    def rate(t, state):
        bound, inside = state
        taken = law["delivery_per_h"] * plasma(t) * (1 - (bound + inside) / law["capacity"])
        out = law["k32_per_h"] * bound
        return [taken - out, out - law["k03_per_h"] * inside]

    hours = np.array([*truth["times_h"], truth["excised_h"]])
    found = solve_ivp(rate, (0, 340), [0, 0], t_eval=hours, rtol=1e-10, atol=1e-12).y.sum(axis=0)
    blood = (1 - law["haematocrit"]) * plasma(hours)
    expected = (1 - law["blood_fraction"]) * found + law["blood_fraction"] * blood
    stored = [*truth["uptake_g_ml"]["tumour"], truth["uptake_at_excision_g_ml"]["tumour"]]
    np.testing.assert_allclose(stored, expected, rtol=2e-5)
    np.testing.assert_allclose(truth["uptake_g_ml"]["blood"], blood[:3], rtol=1e-12)


def test_the_tumour_saturates(truth):
    law = law_of(truth)
    hours = np.array(truth["times_h"])
    once = in_vivo_curves(law, hours)["tumour"]
    twice = in_vivo_curves(
        InVivoLaw(**{**vars_of(law), "plasma_start": 2 * law.plasma_start}), hours
    )
    assert (twice["tumour"] < 1.96 * once).all()
    free = InVivoLaw(**{**vars_of(law), "capacity": 1e9})
    assert (in_vivo_curves(free, hours)["tumour"] > 1.03 * once).all()


def vars_of(law):
    return {name: getattr(law, name) for name in law.__slots__}


def test_the_series_is_small_and_the_same_for_every_case_of_a_patient(made, truth, tmp_path):
    (tmp_path / "A5").mkdir()
    write_in_vivo(tmp_path / "A5", PLANS["A5"], 0)
    files = sorted(path for path in (made / "invivo").rglob("*") if path.is_file())
    assert len(files) == 3 * 26
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        other = tmp_path / "A5" / "invivo" / path.relative_to(made / "invivo")
        assert other.read_bytes() == path.read_bytes()
    (tmp_path / "seed").mkdir()
    write_in_vivo(tmp_path / "seed", PLANS["A2"], 1)
    first = "invivo/day3/010.dcm"
    assert (tmp_path / "seed" / first).read_bytes() != (made / first).read_bytes()
    other = json.loads((tmp_path / "seed" / "truth" / "invivo.json").read_text("utf-8"))
    assert not set(other["calibration"]) & set(truth["calibration"])


def test_the_images_show_the_truth_through_the_scanner(made, truth):
    volume = open_pet_volume(made / "invivo" / "day5")
    assert volume.grid.shape == (26, 32, 32)
    header = volume.images[0].header
    hours = (header.scanned - header.injected).total_seconds() / 3600
    factor = 82_000 / (37.1e6 * 2 ** (-hours / 78.41))
    suv = np.stack([image.raster.values for image in volume.images]) * factor
    place = truth["regions"]["tumour"]
    index = np.argwhere(np.ones(suv.shape))
    apart = np.linalg.norm(
        volume.grid.positions_mm(index) - np.array(place["centre_mm"]), axis=1
    ).reshape(suv.shape)
    inside = suv[apart < 16]
    expected = truth["uptake_g_ml"]["tumour"][1] * truth["calibration"][1]
    assert inside.mean() == pytest.approx(expected, rel=0.03)
    assert 0.03 < inside.std() / inside.mean() < 0.2
    # at the surface of a large sphere the scanner shows the mean of inside and outside
    edge = suv[np.abs(apart - place["radius_mm"]) < 1.0].mean()
    outside = truth["uptake_g_ml"]["soft tissue"][1] * truth["calibration"][1]
    assert edge == pytest.approx((expected + outside) / 2, rel=0.12)


def test_the_values_are_those_of_the_measuring_code_and_near_the_truth(truth):
    case = Case(WRITTEN)
    values = {(one.region, round(one.time_h)): one for one in read_invivo(WRITTEN)}
    assert {region for region, _ in values} == {"tumour", "blood", "liver"}
    assert len(values) == 9
    for index, day in enumerate((3, 5, 7)):
        volume = open_series(case, [WRITTEN / "invivo" / f"day{day}"])
        for region, place in truth["regions"].items():
            stored = values[region, round(truth["times_h"][index])]
            assert stored.time_h == pytest.approx(truth["times_h"][index], abs=1e-4)
            sphere = SphereOfInterest(tuple(place["centre_mm"]), place["measured_radius_mm"])
            found = measure_invivo(case, volume, sphere, region)
            assert found.value.mean == pytest.approx(stored.mean, rel=1e-9)
            assert found.value.source == stored.source
            true = truth["uptake_g_ml"][region][index]
            assert abs(stored.mean - true) < 3 * math.hypot(stored.sd, 0.03 * true)


def test_the_made_case_is_the_written_one(made):
    assert (made / "invivo.csv").read_bytes() == (WRITTEN / "invivo.csv").read_bytes()
    a, b = (json.loads((f / "truth" / "invivo.json").read_text()) for f in (made, WRITTEN))
    assert a["law"] == b["law"]
    np.testing.assert_allclose(a["uptake_g_ml"]["tumour"], b["uptake_g_ml"]["tumour"], rtol=1e-9)


def test_an_older_sample_case_gains_its_series(tmp_path):
    stamp = json.loads((WRITTEN / "phantom.json").read_text())
    (tmp_path / "A2").mkdir()
    (tmp_path / "A2" / "phantom.json").write_text(json.dumps(stamp))
    list(phantom.sample(tmp_path, "tiny", cases=["A2"]))
    assert len(read_invivo(tmp_path / "A2")) == 9
    before = (tmp_path / "A2" / "invivo.csv").stat().st_mtime_ns
    list(phantom.sample(tmp_path, "tiny", cases=["A2"]))
    assert (tmp_path / "A2" / "invivo.csv").stat().st_mtime_ns == before


def test_it_shares_no_code_with_the_models():
    tree = ast.parse(Path(in_vivo.__file__).read_text("utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not any("kinetics" in name or "twin" in name for name in modules)
