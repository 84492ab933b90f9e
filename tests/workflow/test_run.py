"""Running steps: states, staleness, cancel, resume, failures."""

import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

import napari_mosaik
from napari_mosaik.core import Blocked, CaseLocked, InputError, MosaikError
from napari_mosaik.core.artifact import Origin
from napari_mosaik.core.table import Table
from napari_mosaik.io import Case
from napari_mosaik.workflow.case_status import _stale, case_status
from napari_mosaik.workflow.recipe import (
    changed,
    parse_setting,
    read_recipe,
    recipe_from,
    write_recipe,
)
from napari_mosaik.workflow.run import CaseContext, plan, run, run_until

from .conftest import FIRST, LAST, Settings, install


def words(case, recipe=None):
    return {name: found.word for name, found in case_status(case, recipe).states.items()}


def run_all(case, recipe=None):
    list(run_until(case, recipe or read_recipe(case.root)))


def test_from_nothing_to_done(chain, case):
    assert words(case) == {"first": "missing", "extra": "blocked", "last": "missing"}
    assert case_status(case).states["extra"].reason == "no CD34 slide given"
    run_all(case)
    assert words(case) == {"first": "done", "extra": "blocked", "last": "done"}
    assert case.store.read(LAST) == {"sum": 2 * sum(range(40))}
    assert not (case.root / "scratch").exists() or not list((case.root / "scratch").iterdir())


def test_nothing_is_computed_twice(chain, case):
    run_all(case)
    chain.blocks.clear()
    run_all(case)
    assert chain.blocks == []


def test_memory_is_given_back_before_the_blocks_of_a_stage_and_after_a_step(
    chain, case, monkeypatch
):
    done = []
    for module in ("run", "block_work"):
        name = f"napari_mosaik.workflow.{module}.give_back_memory"
        monkeypatch.setattr(name, lambda module=module: done.append((module, len(chain.blocks))))
    run_all(case)
    assert done == [("block_work", 0), ("run", len(chain.blocks)), ("run", len(chain.blocks))]


def test_a_changed_setting_makes_all_after_it_stale(chain, case):
    run_all(case)
    recipe = changed(read_recipe(case.root), "first", factor=3)
    found = case_status(case, recipe).states
    assert (found["first"].word, found["first"].reason) == ("stale", "settings changed")
    assert found["last"].word == "stale"
    assert found["last"].reason == "changed: first result (the settings of First changed)"
    run_all(case, recipe)
    assert case.store.read(LAST) == {"sum": 3 * sum(range(40))}


def test_a_changed_source_makes_stale(chain, case):
    run_all(case)
    (case.root / "pet.dcm").write_bytes(b"another")
    assert words(Case(case.root))["last"] == "stale"


def test_inputs_in_another_order_are_those_of_another_version():
    one = Origin("step", 1, "settings", (("a", "1"), ("b", "2")))
    other = Origin("step", 1, "settings", (("b", "2"), ("a", "1")))
    assert _stale(one, other).cause == "revision"
    changed = Origin("step", 1, "settings", (("b", "3"), ("a", "1")))
    assert (_stale(one, changed).cause, _stale(one, changed).details) == ("inputs", ("b",))


def test_a_new_revision_makes_stale_but_a_new_version_does_not(chain, case, monkeypatch):
    run_all(case)
    monkeypatch.setattr(napari_mosaik, "__version__", "99.0")
    assert words(case)["last"] == "done"
    from dataclasses import replace

    first, extra, last = chain.steps()
    install(monkeypatch, (replace(first, revision=2), extra, last))
    found = case_status(case).states
    assert (found["first"].word, found["first"].reason) == ("stale", "method revision changed")
    assert found["last"].word == "stale"


def test_an_optional_input_that_comes_later_counts(chain, case):
    run_all(case)
    (case.root / "cd34.png").write_bytes(b"x")
    import napari_mosaik.io.case as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.SlideSource, "digest", lambda *_: "digest")
        case.update(slides={"cd34": {"path": "cd34.png", "spacing_um": (0.5, 0.5)}})
        assert words(case) == {"first": "done", "extra": "missing", "last": "stale"}
        run_all(case)
        assert case.store.read(LAST) == {"sum": 2 * sum(range(40)) + 1}


def test_an_optional_input_that_is_gone_is_not_used(chain, case, monkeypatch):
    import napari_mosaik.io.case as module

    monkeypatch.setattr(module.SlideSource, "digest", lambda *_: "digest")
    (case.root / "cd34.png").write_bytes(b"x")
    case.update(slides={"cd34": {"path": "cd34.png", "spacing_um": (0.5, 0.5)}})
    run_all(case)
    assert case.store.read(LAST) == {"sum": 2 * sum(range(40)) + 1}
    (case.root / "cd34.png").unlink()
    found = case_status(case).states
    assert found["extra"].reason == f"the CD34 slide is not at {case.path('cd34.png')}"
    assert (found["last"].word, found["last"].reason) == ("stale", "changed: optional result")
    run_all(case)
    assert case.store.read(LAST) == {"sum": 2 * sum(range(40))}


def test_one_step_needs_what_it_reads(chain, case):
    last = chain.steps()[2]
    with pytest.raises(Blocked, match=r"'First', which is missing.*--until last"):
        list(run(case, last, Settings()))
    assert [step.name for step in plan(case_status(case), "last")] == ["first", "last"]
    with pytest.raises(Blocked, match="no CD34 slide given"):
        plan(case_status(case), "extra")


def test_cancel_commits_nothing_and_keeps_finished_blocks(chain, case):
    work = run(case, chain.steps()[0], Settings())
    for _ in range(4):
        next(work)
    work.close()
    before = len(chain.blocks)
    assert 0 < before < 40
    assert words(case)["first"] == "missing"
    assert case.store.origin(FIRST) is None
    run_all(case)
    assert sorted(chain.blocks) == list(range(40))
    assert case.store.read(FIRST) == {"sum": 2 * sum(range(40))}


def test_a_step_that_fails_says_so_and_can_be_run_again(chain, case):
    chain.fail = "the picture is upside down"
    with pytest.raises(InputError, match="First: the picture is upside down"):
        run_all(case)
    assert words(case) == {"first": "missing", "extra": "blocked", "last": "missing"}
    chain.fail = ""
    run_all(case)
    assert words(case)["last"] == "done"


def test_a_fault_of_the_program_leaves_the_case_usable(chain, case, monkeypatch):
    def broken(inputs, params):
        yield from ()
        raise ZeroDivisionError

    from dataclasses import replace

    first, extra, last = chain.steps()
    install(monkeypatch, (replace(first, body=broken), extra, last))
    with pytest.raises(ZeroDivisionError):
        run_all(case)
    install(monkeypatch, chain.steps())
    run_all(case)
    assert words(case)["last"] == "done"


def test_reading_what_was_not_declared_is_a_fault(chain, case, monkeypatch):
    def curious(inputs, params):
        yield from ()
        inputs.read(LAST)

    from dataclasses import replace

    first, extra, last = chain.steps()
    install(monkeypatch, (replace(first, body=curious), extra, last))
    with pytest.raises(KeyError, match="without declaring"):
        run_all(case)


def test_of_large_tables_a_step_keeps_the_latest_only(chain, case, monkeypatch):
    tables = {name: Table({"x": np.arange(3)}) for name in "ab"}
    artifacts = {name: SimpleNamespace(name=name) for name in tables}
    read = []

    def stored(self, artifact):
        read.append(artifact.name)
        return tables[artifact.name]

    monkeypatch.setattr("napari_mosaik.io.store.CaseStore.read", stored)
    for largest, expected in ((3, "ab"), (2, "aba")):
        monkeypatch.setattr("napari_mosaik.workflow.run._LARGE_TABLE", largest)
        context = CaseContext(case, chain.steps()[0], case.root / "scratch")
        read.clear()
        for name in "aaba":
            assert context._once(case.store, artifacts[name]) is tables[name]
        assert "".join(read) == expected


def test_two_writers_do_not_meet(chain, case, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from napari_mosaik.io import Case\n"
        f"with Case({str(case.root)!r}).writing():\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(CaseLocked):
            run_all(case)
        assert words(case)["first"] == "missing"
        holder.kill()


def test_the_record_says_who_when_and_how(chain, case):
    run_all(case)
    record = case.store.record(FIRST)
    assert record["params"] == {"factor": 2}
    assert record["version"] == napari_mosaik.__version__
    lines = logged(case)
    assert [line["step"] for line in lines] == ["first", "last"]
    for line in lines:
        assert line["outcome"] == "done"
        assert line["seconds"] >= 0
        assert line["process_peak_mib"] is None or line["process_peak_mib"] > 20
        assert line["objects"] is None
        assert line["warnings"] == []


def test_unfinished_work_goes_once_the_step_is_done(chain, case):
    left = case.root / "scratch" / "first-ffff0000" / "parts"
    for work in (run_all, lambda case: list(run(case, chain.steps()[0], Settings()))):
        left.mkdir(parents=True)  # of other settings, or of a run by force that was killed
        work(case)
        assert not list((case.root / "scratch").iterdir())


def test_the_log_also_tells_what_failed_or_was_stopped(chain, case):
    chain.fail = "the picture is upside down"
    with pytest.raises(InputError):
        run_all(case)
    chain.fail = ""
    work = run_until(case, read_recipe(case.root))
    for step, progress in work:
        if step.name == "last" and 0 < progress.fraction < 1:
            break
    work.close()
    lines = [(line["step"], line["outcome"], line.get("error")) for line in logged(case)]
    failure = ("first", "failed", "the picture is upside down")
    assert lines == [failure, ("first", "done", None), ("last", "stopped", None)]


def logged(case):
    lines = (case.root / "journal" / "runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_recipe_is_complete_and_replayed(chain, case, tmp_path):
    recipe = changed(read_recipe(case.root), "last", factor=7)
    write_recipe(case.root, recipe)
    stored = tomllib.loads((case.root / "recipe.toml").read_text())
    assert stored == {"first": {"factor": 2}, "extra": {"factor": 2}, "last": {"factor": 7}}
    assert recipe_from(stored) == read_recipe(case.root) == recipe
    assert case_status(case, recipe).states["first"].word == "missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[zeroth]\nfactor = 1", "unknown step 'zeroth'; the steps are: first, extra, last"),
        ("[first]\ncolour = 1", "colour"),
        ("[first]\nfactor = -1", "step first: factor = -1"),
        ("[first", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_told(chain, case, text, message):
    (case.root / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(case.root)


def test_settings_from_the_command_line():
    assert parse_setting("vessels.closing_um=2.5") == ("vessels", "closing_um", 2.5)
    assert parse_setting("classes.model=abc") == ("classes", "model", "abc")
    with pytest.raises(InputError, match=r"step\.setting=value"):
        parse_setting("vessels")


def test_a_cluster_gives_the_same(chain, case):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as cluster:
        for _ in run_until(case, read_recipe(case.root), scheduler=cluster.scheduler_address):
            pass
    assert case.store.read(FIRST) == {"sum": 2 * sum(range(40))}


def test_a_cluster_that_is_not_there_is_told(chain, case):
    with pytest.raises(MosaikError, match=r"^no dask scheduler answers.*run without --scheduler"):
        list(run_until(case, read_recipe(case.root), scheduler="not-a-scheduler"))
