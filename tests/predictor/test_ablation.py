"""What each part of the network contributes: trained without it, compared on the held-out case."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.predictor import PARTS, TrainParams
from napari_mosaik.workflow import cohort
from tests.predictor.test_training import finish

PARAMS = TrainParams(members=1, epochs=2, threads=1)


class _Case:
    def __init__(self, inputs):
        self.inputs, self.name = inputs, inputs.case


@pytest.fixture
def cases(small_cases, monkeypatch):
    """Cases in memory in place of stored ones."""

    proxies = dict(zip(("vascular", "nuclear", "caix"), small_cases[0].proxies, strict=True))
    choice = SimpleNamespace(proxies=proxies)
    monkeypatch.setattr(cohort, "_require_done", lambda cases: None)
    monkeypatch.setattr(cohort, "absent_slides", lambda cases: {})
    monkeypatch.setattr(cohort, "choose_proxies_of", lambda cases: choice)
    monkeypatch.setattr(cohort, "training_inputs", lambda case, proxies, params: case.inputs)
    monkeypatch.setattr(cohort, "scanner_width_um", lambda cases: (1500.0, ""))
    found = [_Case(one) for one in small_cases]
    monkeypatch.setattr(cohort, "training_cases", lambda cases, test, split: (cases[:2], None))
    return found


def test_each_part_is_cut_out_once_and_compared_with_the_whole(cases):
    found = finish(cohort.ablate_network(cases, "B8", PARAMS))
    assert set(found["without"]) == {*PARTS, "blur"}
    whole = found["whole"]["mae"]
    for one in found["without"].values():
        assert one["mae_minus_whole"]["estimate"] == pytest.approx(one["mae"] - whole, abs=1e-9)
    assert len({one["mae"] for one in found["without"].values()} | {whole}) == 6


def test_the_paper_has_no_parts_to_cut(cases):
    with pytest.raises(InputError, match="over whole slides"):
        next(cohort.ablate_network(cases, "B8", TrainParams.preset("paper")))


def test_the_test_case_may_lack_tiles_without_a_number_being_lost(cases):
    suv = np.asarray(cases[2].inputs.suv).copy()
    suv[:10] = np.nan
    cases[2].inputs = replace(cases[2].inputs, suv=suv)
    found = finish(cohort.ablate_network(cases, "B8", PARAMS))
    assert np.isfinite(found["whole"]["mae"])


def test_a_network_keeps_one_of_its_parts():
    assert TrainParams.parse({"without": "spatial,blur"}).without == ("spatial", "blur")
    assert TrainParams.parse({"branch_channels": "4,8,8"}).branch_channels == (4, 8, 8)
    with pytest.raises(InputError, match=r"without = 'caix' is not valid: 'caix'.*or 'blur'"):
        TrainParams.parse({"without": "caix"}, "settings")
    with pytest.raises(InputError, match="without all its parts reads nothing; leave one of them"):
        TrainParams.parse({"without": "spatial,heterogeneity,temporal,parameters"})
    with pytest.raises(InputError, match="'0': give 1 or more"):
        TrainParams.parse({"branch_channels": "0,8,8"})
