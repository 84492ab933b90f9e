"""Weights of networks from the command line, and nuclei by them."""

import json

import pytest
import tifffile

from napari_mosaik.segment.stardist import embedded_weights, save_stardist
from napari_mosaik.workflow.model_weights import WEIGHTS_VARIABLE
from tests.cli.test_commands import call, told
from tests.segment.test_stardist_nuclei import noise, random_weights


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "weights"))
    save_stardist(random_weights(), tmp_path / "net")
    return tmp_path


def test_weights_are_taken_in_and_listed(home, capsys):
    assert "--yes" in told(capsys, "weights", "--fetch")
    assert "not both" in told(capsys, "weights", "--fetch", "--file", home / "net")
    assert "no weights at" in told(capsys, "weights", "--file", home / "nothing")
    assert call("weights", "--file", home / "net", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    (entry,) = listed["installed"]
    assert listed["embedded"]["weights"] == embedded_weights().hash
    assert entry["weights"] == random_weights().hash
    assert entry["name"] == "random"
    assert call("weights") == 0
    assert entry["weights"][:12] in capsys.readouterr().out


def test_nuclei_of_a_picture_by_a_network(home, capsys):
    picture, out = home / "he.tif", home / "labels.tif"
    tifffile.imwrite(picture, noise((96, 112)))
    base = ("segment", "nuclei", picture, "--spacing", 0.5, "--out", out)
    assert call(*base, "--weights", home / "net", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["method"] == "stardist"
    assert record["weights"] == random_weights().hash
    assert record["count"] == tifffile.imread(out).max() > 5
    for method in ((), ("--method", "stardist")):
        assert call(*base, *method, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["method"], found["weights"]) == ("stardist", embedded_weights().hash)
        assert found["weights_name"] == "mosaik_he"
    assert call(*base, "--method", "classical", "--json") == 0
    classical = json.loads(capsys.readouterr().out)
    assert (classical["method"], classical["weights"]) == ("classical", None)
    assert "use one of: classical, stardist" in told(capsys, *base, "--method", "hsv")
    assert "only nuclei" in told(capsys, *base, "--method", "classical", "--weights", home / "net")
