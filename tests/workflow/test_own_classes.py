"""A class of the user's own goes from the drawn shape to model, map, tiles and layers."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_mosaik.core import InputError
from napari_mosaik.core.catalogue import CLASS_PROBABILITY, CLASS_RECORD, CLASSES, PARAMETERS
from napari_mosaik.core.palette import CLASS_COLOURS, OWN_CLASS_COLOURS
from napari_mosaik.core.progress import run_to_end
from napari_mosaik.io import Case, write_geojson
from napari_mosaik.view.layers import classes_layer, uncertainty_layer
from napari_mosaik.workflow import parallel
from napari_mosaik.workflow.classifier import retrain
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.steps import classes, step_named


def run_all(case, until):
    for _ in run_until(case, read_recipe(case.root), until):
        pass


@pytest.fixture(scope="module")
def trained(tiny_cohort, tmp_path_factory):
    """A case in which every second non-neoplastic shape is called 'necrosis'."""
    folder = tmp_path_factory.mktemp("own") / "A2"
    shutil.copytree(tiny_cohort / "A2", folder)
    case = Case(folder)
    shapes, seen = [], 0
    for shape in case.annotations("he"):
        seen += shape.label == "non-neoplastic"
        own = shape.label == "non-neoplastic" and seen % 2
        shapes.append(replace(shape, label="necrosis") if own else shape)
    with case.slide("he") as slide:
        write_geojson(case.annotations_path("he"), shapes, slide.lattice)
    case = Case(folder)
    run_all(case, "stain")
    made = run_to_end(retrain([case], [case]))
    return case, made


def test_the_model_knows_the_class_and_is_judged_on_it(trained):
    _, made = trained
    assert made["classes"] == ["background", "neoplastic", "non-neoplastic", "necrosis"]
    scores = made["held_out"]["classes"]
    assert set(scores) == set(made["classes"])
    assert scores["background"]["dice"] > 0.9
    assert made["held_out"]["shapes"] >= 4


def test_the_class_reaches_map_tiles_and_legend(trained):
    case, _ = trained
    run_all(case, "parameters")
    store = case.store
    classes = store.read(CLASSES)
    assert classes.names[4] == "necrosis"
    assert (classes.array() == 4).any()
    assert store.read(CLASS_PROBABILITY).channels[3] == "necrosis"
    assert store.read(CLASS_RECORD)["area_mm2"]["necrosis"] > 0
    table = store.read(PARAMETERS)
    shares = [table[f"{n}_fraction"] for n in ("neoplastic", "non_neoplastic", "necrosis")]
    known = np.isfinite(shares[0])
    assert known.any()
    np.testing.assert_allclose(np.sum(shares, axis=0)[known], 1, atol=1e-6)
    layer = classes_layer(classes)
    assert ("necrosis", OWN_CLASS_COLOURS[0]) in layer.legend.entries
    assert set(layer.style["colormap"]) == {None, 0, *CLASS_COLOURS, 4}


def test_the_uncertainty_is_the_entropy_of_the_probabilities(trained):
    case, _ = trained
    run_all(case, "classes")
    probability = case.store.read(CLASS_PROBABILITY)
    classes = case.store.read(CLASSES)
    layer = uncertainty_layer(probability, classes)
    shares = np.asarray(probability.values, float)
    p = shares / np.maximum(shares.sum(-1, keepdims=True), 1)
    expected = -(p * np.log2(np.maximum(p, 1e-12))).sum(-1) / 2
    inside = classes.array() > 0
    assert inside.any()
    assert not inside.all()
    np.testing.assert_allclose(np.asarray(layer.data)[inside], expected[inside], atol=1e-5)
    assert np.isnan(np.asarray(layer.data)[~inside]).all()
    assert layer.legend.limits == (0.0, 1.0)
    assert "equally likely" in layer.legend.note
    mean = case.store.read(CLASS_RECORD)["mean_uncertainty"]
    assert mean == pytest.approx(
        np.asarray(layer.data)[case.store.read(CLASSES).array() > 0].mean()
    )


@pytest.mark.parametrize("slow", ["_codes", "_mean_uncertainty"])
def test_progress_is_repeated_while_the_classes_are_summed_up(trained, monkeypatch, slow):
    case, _ = trained
    run_all(case, "classes")
    monkeypatch.setattr(parallel, "_REPORT_S", 0.01)
    go, called, texts = threading.Event(), getattr(classes, slow), []

    def waits(*given):
        assert go.wait(60)
        return called(*given)

    monkeypatch.setattr(classes, slow, waits)
    before, step = case.store.read(CLASS_RECORD), step_named("classes")
    for progress in run(case, step, read_recipe(case.root)[step.name], force=True):
        texts.append(progress.text)
        if texts.count("uncertainty of the classes") > 20:
            go.set()
    assert go.is_set()
    assert case.store.read(CLASS_RECORD) == before


def test_settings_that_do_not_fit_the_method_are_told(trained, tmp_path):
    case, _ = trained
    with pytest.raises(InputError, match="no presets"):
        run_to_end(retrain([case], [case], preset="paper"))
    with pytest.raises(InputError, match="preset 'best' is not offered; use one of: paper, robust"):
        run_to_end(retrain([case], [case], method="densenet", preset="best"))
    with pytest.raises(InputError, match="no encoder weights"):
        run_to_end(retrain([case], [case], method="densenet", encoder=tmp_path / "absent.pth"))
    with pytest.raises(InputError, match="only the method 'densenet'"):
        run_to_end(retrain([case], [case], encoder=tmp_path / "absent.pth"))


def test_what_readers_differ_on_counts_less_or_not(trained, tmp_path, monkeypatch):
    source, _ = trained
    case = Case(shutil.copytree(source.root, tmp_path / "A2"))
    given = case.annotations("he")
    first = next(shape for shape in given if shape.label == "neoplastic")
    other = "non-neoplastic"

    def of(reader, *changed):
        return [
            replace(one, key=f"{reader} {one.key}", properties={"reader": reader},
                    label=other if one in changed else one.label)
            for one in given
        ]  # fmt: skip

    taken = {}

    def caught(features, codes, params, rng, classes, record=None, weights=None):
        taken.update(codes=codes, weights=weights)
        raise InputError("enough")

    monkeypatch.setattr("napari_mosaik.segment.tissue_classifier.train_fast", caught)
    monkeypatch.setattr("napari_mosaik.workflow.classifier._assessment", lambda *given: {})

    def samples(*shapes):
        with case.slide("he") as slide:
            write_geojson(case.annotations_path("he"), [s for own in shapes for s in own],
                          slide.lattice)  # fmt: skip
        with pytest.raises(InputError, match="enough"):
            run_to_end(retrain([Case(case.root)], [case], settings={"max_per_class": 10**6}))
        return {**taken}

    whole = samples(of("Anna"))
    assert set(whole["weights"]) == {1.0}
    two = samples(of("Anna"), of("Ben", first))
    assert set(two["weights"]) == {1.0}
    lost = len(whole["codes"]) - len(two["codes"])
    assert lost == pytest.approx(first.geometry.area / 64, rel=0.05)
    three = samples(of("Anna"), of("Ben", first), of("Cid"))
    assert np.unique(three["weights"]) == pytest.approx([2 / 3, 1])
    assert (three["weights"] < 1).sum() == pytest.approx(lost, abs=lost * 0.02)
    assert set(three["codes"][three["weights"] < 1]) == {2}
