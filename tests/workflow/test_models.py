"""Models of a case: listed, adopted and rolled back, exported and imported, never overwritten."""

import errno
import json
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from napari_mosaik.cli.app import run_command
from napari_mosaik.core.errors import CorruptArtifact, InputError
from napari_mosaik.io import CaseFile, create_case
from napari_mosaik.predictor import TrainedModel
from napari_mosaik.segment import TissueClassParams, train_fast
from napari_mosaik.segment.tissue_classifier import CLASSES
from napari_mosaik.workflow.cohort import _trained_model
from napari_mosaik.workflow.models import (
    adopt_model,
    export_model,
    find_model,
    import_model,
    known_models,
    model_in_use,
    roll_back,
    room_for_model,
    with_cohort,
)

CARD = {
    "kind": "mosaik",
    "format": 2,
    "cases": [{"case": "B8", "patient": "p", "role": "training"}],
    "test_case": "B11",
    "warnings": [],
}


def classifier(case, seed, classes=CLASSES):
    """A small forest in the models folder of a case; its hash."""
    rng = np.random.default_rng(seed)
    labels = 1 + np.arange(60) % len(classes)
    features = (labels[:, None] + rng.normal(0, 0.1, (60, 4))).astype(np.float32)
    params = TissueClassParams(n_trees=2)
    made = train_fast(features, labels, params, rng, classes, {"cases": ["B8"], "seed": seed})
    made.save(case.model_folder(made.hash))
    return made.hash


def predictor(case, seed, **more):
    weights = {"w": np.full(3, seed, np.float32)}
    return TrainedModel(weights, {**CARD, **more}).save(case.root / "models").name


@pytest.fixture
def cases(tmp_path):
    return [create_case(tmp_path / "cohort" / name, CaseFile(name=name)) for name in ("B8", "B11")]


def test_all_models_are_listed_once_with_the_cases_that_use_them(cases, capsys):
    first, second = classifier(cases[0], 0), classifier(cases[0], 1)
    network = predictor(cases[1], 2)
    adopt_model(cases, find_model(cases, first))
    found = {one.hash: one for one in known_models(cases)}
    assert set(found) == {first, second, network}
    assert (found[first].cases, found[first].used_by) == (["B8", "B11"], ["B8", "B11"])
    assert found[second].used_by == []
    assert (found[network].kind, found[network].trained_on) == ("predictor", ["B8"])
    assert run_command(["models", str(cases[0].root.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert {one["model"] for one in told} == set(found)
    assert next(one for one in told if one["model"] == first)["used_by"] == ["B11", "B8"]


def test_adopting_is_journalled_and_rolled_back_step_by_step(cases):
    case = cases[0]
    first, second = classifier(case, 0), classifier(case, 1)
    with pytest.raises(InputError, match="used no other model"):
        roll_back(case)
    for name in (first, second, first):
        adopt_model([case], find_model([case], name))
    assert model_in_use(case, "classes") == first
    assert roll_back(case) == ("classes", first, second)
    assert roll_back(case) == ("classes", second, first)
    assert roll_back(case) == ("classes", first, "")
    with pytest.raises(InputError, match="used no other model"):
        roll_back(case)
    adopt_model([case], find_model([case], second))
    assert roll_back(case) == ("classes", second, "")
    lines = (case.root / "journal/runs.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events].count("roll back") == 4


def test_an_adoption_that_was_cut_short_is_not_rolled_back_to(cases):
    case = cases[0]
    first, second = classifier(case, 0), classifier(case, 1)
    adopt_model([case], find_model([case], first))
    case.log("adopt", step="classes", model=second, before=first, how="adopt")  # and then: kill -9
    with (case.root / "journal/runs.jsonl").open("a") as file:
        file.write('{"event": "adopt", "st')
    assert roll_back(case) == ("classes", first, "")


def test_a_predictor_is_not_adopted_by_a_case_it_was_trained_on(cases):
    model = find_model(with_cohort(cases[:1]), predictor(cases[1], 1))
    with pytest.raises(InputError, match="was trained on case B8"):
        adopt_model(cases[::-1], model)
    assert model_in_use(cases[1], "predict") == ""  # none of both is changed


def test_a_model_goes_to_another_case_by_a_file(cases, tmp_path):
    file = tmp_path / "model.zip"
    for name in (classifier(cases[0], 0), predictor(cases[0], 1)):
        model = find_model(cases[:1], name)
        export_model(model, file)
        first = file.read_bytes()
        export_model(model, file)
        assert file.read_bytes() == first
        made = import_model(cases[1], file)
        parts = sorted(path.name for path in made.folder.iterdir())
        assert parts == ["card.json", "files.json", "weights.safetensors"]
        for part in parts:
            assert (made.folder / part).read_bytes() == (model.folder / part).read_bytes()
        assert model_in_use(cases[1], model.step) == ""


def test_a_predictor_from_elsewhere_may_consist_of_its_weights_and_its_card(
    cases, tmp_path, capsys
):
    name = predictor(cases[0], 1)
    elsewhere = tmp_path / name
    elsewhere.mkdir()
    for part in ("card.json", "weights.safetensors"):
        (elsewhere / part).write_bytes((cases[0].root / "models" / name / part).read_bytes())
    copied = cases[1].root / "models" / name
    copied.parent.mkdir()
    shutil.copytree(elsewhere, copied)
    with pytest.raises(CorruptArtifact, match=r"files.json is missing.*models import CASE FOLDER"):
        TrainedModel.load(copied)
    shutil.rmtree(copied)
    made = import_model(cases[1], elsewhere)
    assert made.hash == name
    assert not made.damage
    assert TrainedModel.load(copied).hash == name
    other = elsewhere.rename(tmp_path / "mine")
    assert run_command(["models", "import", str(cases[1].root), str(other)]) == 2
    told = capsys.readouterr().err
    assert f"its folder states the hash mine, and its content has {name}" in told


def changed_file(source, target, part, change):
    """The exported model with one part changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(part) else content)
    return target


def test_too_little_memory_is_no_damage_of_a_model(cases, tmp_path, monkeypatch):
    name = classifier(cases[0], 0)
    export_model(find_model(cases[:1], name), tmp_path / "good.zip")

    def refuse(_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("safetensors.numpy.load_file", refuse)
    with pytest.raises(MemoryError, match="Cannot allocate memory"):
        import_model(cases[1], tmp_path / "good.zip")


@pytest.mark.parametrize("kind", [classifier, predictor])
def test_a_changed_file_is_refused_with_both_hashes(cases, tmp_path, capsys, kind):
    name = kind(cases[0], 0)
    export_model(find_model(cases[:1], name), tmp_path / "good.zip")

    def flip(content):
        return content[:-1] + bytes([content[-1] ^ 1])

    bad = changed_file(tmp_path / "good.zip", tmp_path / "bad.zip", ".safetensors", flip)
    assert run_command(["models", "import", str(cases[1].root), str(bad)]) == 2
    told = capsys.readouterr().err
    assert "was changed" in told
    assert name in told
    assert told.count("\n") == 1
    assert not (cases[1].root / "models" / name).exists()
    card = changed_file(
        tmp_path / "good.zip", bad, "card.json", lambda c: c.replace(b'"B8"', b'"C1"')
    )
    with pytest.raises(CorruptArtifact, match=r"was changed|card\.json is changed"):
        import_model(cases[1], card)


def test_a_model_of_other_classes_is_refused_with_the_difference(cases, tmp_path, capsys):
    name = classifier(cases[0], 0, (*CLASSES, "necrosis"))
    export_model(find_model(cases[:1], name), tmp_path / "model.zip")
    command = ["models", "import", str(cases[1].root), str(tmp_path / "model.zip")]
    assert run_command(command) == 2
    assert "it has necrosis, which the case does not" in capsys.readouterr().err
    name = classifier(cases[0], 1, CLASSES[::-1])
    with pytest.raises(InputError, match="the first must be"):
        adopt_model(cases[:1], find_model(cases[:1], name))


def test_what_is_no_model_is_refused(cases, tmp_path):
    pickled = tmp_path / "model.pkl"
    pickled.write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="not an exported model"):
        import_model(cases[0], pickled)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("../../card.json", "{}")
    with pytest.raises(InputError, match="not an exported model"):
        import_model(cases[0], tmp_path / "other.zip")
    with pytest.raises(InputError, match="there is no model 'abc'"):
        find_model(cases, "abc")


def test_a_damaged_model_is_told_and_set_aside_not_overwritten(cases):
    case = cases[0]
    name = classifier(case, 0)
    weights = case.model_folder(name) / "weights.safetensors"
    damaged = weights.read_bytes()[:-8]
    weights.write_bytes(damaged)
    (model,) = known_models([case])
    assert "is changed" in model.damage
    with pytest.raises(CorruptArtifact):
        adopt_model([case], model)
    room_for_model(case.model_folder(name))
    assert classifier(case, 0) == name
    (aside,) = (case.root / "models").glob(".*.damaged")
    assert (aside / "weights.safetensors").read_bytes() == damaged
    assert not find_model([case], name).damage


@pytest.mark.parametrize(
    ("patients", "shared", "there"),
    [
        ({"A2": "1", "B8": "2"}, True, "m"),
        ({"A2": "2", "B8": "2"}, True, ""),  # a patient was corrected since
        ({"A2": "1", "B8": "2"}, False, ""),  # that of the test case was
    ],
)
def test_a_model_with_other_patients_is_trained_again(
    tmp_path, monkeypatch, patients, shared, there
):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "card.json").touch()
    entries = [{"case": "A2", "patient": "1"}, {"case": "B8", "patient": "2"}]
    card = {"fingerprint": "f", "cases": entries, "shared_patient": True}
    monkeypatch.setattr(TrainedModel, "load", lambda folder: SimpleNamespace(card=card))
    assert _trained_model(tmp_path, "f", patients, shared=shared) == there
    assert not _trained_model(tmp_path, "g", patients, shared=shared)
