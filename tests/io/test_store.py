"""Results are whole or absent, come back as they were, and damage is told."""

import errno
import json
import os
import shutil
import subprocess
import sys

import geopandas
import numpy as np
import pytest

from napari_mosaik.core import (
    Artifact,
    CaseLocked,
    CorruptArtifact,
    InputError,
    LabelImage,
    Lattice,
    MosaikError,
    Origin,
    Raster,
    Table,
    TileGrid,
)
from napari_mosaik.io import store as store_module
from napari_mosaik.io.files import write_lock
from napari_mosaik.io.store import CaseStore

LATTICE = Lattice("he", (30, 40), (2.0, 3.0), (5.0, -7.0))
RASTER = Artifact("raster", Raster, "")
MASK = Artifact("mask", Raster, "")
LABELS = Artifact("labels", LabelImage, "")
TABLE = Artifact("table", Table, "")
GRID = Artifact("grid", TileGrid, "")
RECORD = Artifact("record", dict, "")
ORIGIN = Origin("step", 1, "params", (("slide:he", "digest"),))


def values(seed=0):
    rng = np.random.default_rng(seed)
    big = Lattice("he", (1200, 1100), (0.5, 0.5))
    labels = np.zeros(big.shape, np.int32)
    labels[100:300, 200:900] = 7
    column = rng.random(4)
    column[1] = np.nan
    return {
        RASTER: Raster(rng.random((30, 40, 2)).astype(np.float32), LATTICE, "µm", ("a", "b")),
        MASK: Raster(rng.random((30, 40)) > 0.5, LATTICE),
        LABELS: LabelImage(labels, big, {7: "seven"}),
        TABLE: Table(
            {
                "row_um": column,
                "column_um": rng.random(4),
                "word": np.array(["a", "b", "ä", ""]),
                "yes": np.array([True, False, True, True]),
            },
            {"row_um": "µm"},
            {"word": "a word"},
            "he",
        ),
        GRID: TileGrid(LATTICE, 4.0, np.array([1, 5, 9]), np.array([1, 0.5, 1]), np.ones(3, bool)),
        RECORD: {"a": [1, 2.5, None], "b": {"c": "d"}},
    }


@pytest.fixture
def store(tmp_path):
    made = CaseStore(tmp_path / "artifacts")
    made.commit(ORIGIN, values(), {"version": "1"})
    return made


def test_everything_comes_back(store):
    put = values()
    raster = store.read(RASTER)
    assert (raster.values == put[RASTER].values).all()
    assert (raster.lattice, raster.unit, raster.channels) == (LATTICE, "µm", ("a", "b"))
    mask = store.read(MASK)
    assert mask.values.dtype == bool
    assert (mask.values == put[MASK].values).all()
    labels = store.read(LABELS)
    assert (labels.array() == put[LABELS].values).all()
    assert labels.names == {7: "seven"}
    assert [level.shape for level in labels.levels] == [(600, 550), (300, 275)]
    assert (np.asarray(labels.levels[0][...]) == put[LABELS].values[::2, ::2]).all()
    table = store.read(TABLE)
    assert table["word"].tolist() == ["a", "b", "ä", ""]
    np.testing.assert_array_equal(table["row_um"], put[TABLE]["row_um"])
    assert (table.unit("row_um"), table.about["word"], table.frame) == ("µm", "a word", "he")
    grid = store.read(GRID)
    assert (grid.lattice, grid.size_um, grid.kept.tolist()) == (LATTICE, 4.0, [1, 5, 9])
    assert store.read(RECORD) == put[RECORD]
    assert store.origin(RASTER) == ORIGIN
    assert store.record(TABLE) == {"version": "1"}


def test_tables_of_objects_open_in_geopandas(store):
    frame = geopandas.read_parquet(store.folder(TABLE) / "table.parquet")
    assert frame.geometry.x[0] == store.read(TABLE)["column_um"][0]


def test_images_say_where_they_lie_in_ome_zarr(store):
    meta = json.loads((store.folder(LABELS) / "labels.ome.zarr" / "zarr.json").read_text())
    scales = meta["attributes"]["ome"]["multiscales"][0]["datasets"]
    assert [d["coordinateTransformations"][0]["scale"] for d in scales] == [
        [0.5] * 2,
        [1] * 2,
        [2] * 2,
    ]
    assert scales[0]["coordinateTransformations"][1]["translation"] == [0.25, 0.25]


def test_a_result_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no result 'mask' yet"):
        CaseStore(tmp_path).read(MASK)


def _chunk(store):
    return next(p for p in store.folder(LABELS).rglob("*") if "/c/" in str(p) and p.is_file())


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["flip", "delete", "truncate"])
def test_damaged_chunks_are_told(store, damage):
    path = _chunk(store)
    if damage == "flip":
        _flip(path)
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptArtifact, match=r"'labels'.*--force"):
        store.read(LABELS)


def test_a_table_is_read_once_wherever_its_file_lies_and_again_when_it_changed(
    store, tmp_path, monkeypatch
):
    path = store.folder(TABLE) / "table.parquet"
    os.utime(path, ns=(1, 1))  # as old as a file that a later change would not touch unseen
    first = store.read(TABLE)
    os.rename(path, tmp_path / "away.parquet")
    os.rename(tmp_path / "away.parquet", path)
    assert store.read(TABLE) is first
    with pytest.raises(ValueError, match="read-only"):
        first["row_um"][0] = 0
    with write_lock(store.root.parent):
        store.commit(ORIGIN, values(1))
    np.testing.assert_array_equal(store.read(TABLE)["row_um"], values(1)[TABLE]["row_um"])
    monkeypatch.setattr(store_module._TABLES, "limit", 0)
    os.utime(path, ns=(2, 2))
    assert store.read(TABLE) is not store.read(TABLE)


def test_of_a_table_only_the_columns_asked_for_are_read(store, monkeypatch):
    import pyarrow.parquet as pq

    read, original = [], pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda f, columns: read.extend(columns) or original(f, columns)
    )
    whole = values()[TABLE]
    rows, none = store.part(TABLE)
    assert (rows, list(none), none.about, none.units) == (len(whole), [], whole.about, whole.units)
    assert read == []
    rows, one = store.part(TABLE, "row_um")
    assert read == list(one) == ["row_um"]
    np.testing.assert_array_equal(one["row_um"], whole["row_um"])
    with pytest.raises(InputError, match="no column 'area'"):
        store.part(TABLE, "area")


def test_a_table_that_was_just_written_is_not_read_and_is_as_it_would_be_read(store, monkeypatch):
    given = {TABLE: values(2)[TABLE]}
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_read_parquet", lambda _: 1 / 0)
        with write_lock(store.root.parent):
            store.commit(ORIGIN, given)
        kept = store.read(TABLE)
        given[TABLE]["column_um"][:] = 7  # whoever made it may go on with its arrays
        assert store.read(TABLE) is kept
    store_module._TABLES.clear()
    read = store.read(TABLE)
    assert (dict(kept.units), dict(kept.about), kept.frame) == (read.units, read.about, read.frame)
    for name in read:
        np.testing.assert_array_equal(kept[name], read[name])
        assert kept[name].dtype == read[name].dtype
        with pytest.raises(ValueError, match="read-only"):
            kept[name][0] = kept[name][1]
    _flip(store.folder(TABLE) / "table.parquet")  # at once
    with pytest.raises(CorruptArtifact, match="'table'"):
        store.read(TABLE)


def test_a_damaged_table_is_told(store):
    _flip(store.folder(TABLE) / "table.parquet")
    with pytest.raises(CorruptArtifact, match=r"'table'.*--force"):
        store.read(TABLE)
    with pytest.raises(CorruptArtifact, match=r"'table'.*--force"):
        store.part(TABLE)


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("can't start new thread"),
        OSError("libblosc.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_no_damage_of_what_is_stored(store, monkeypatch, refusal):
    def refuse(*_):
        raise refusal

    monkeypatch.setattr("napari_mosaik.io.store.read_json", refuse)
    with pytest.raises(MemoryError, match=str(refusal.args[-1])):
        store.read(RECORD)


def test_a_damaged_record_is_told(store):
    path = store.folder(RECORD) / "document.json"
    path.write_text(path.read_text().replace("2.5", "3.5"))
    with pytest.raises(CorruptArtifact, match=r"'record'.*--force"):
        store.read(RECORD)


def test_a_damaged_or_lost_origin_is_damage(store):
    for spoil in (lambda path: path.write_text("{"), lambda path: path.unlink()):
        spoil(store.folder(RECORD) / "origin.json")
        with pytest.raises(CorruptArtifact, match=r"damaged.*origin\.json"):
            store.origin(RECORD)


class _Stopped(BaseException):
    """Stands for a process that is killed."""


def _staged(store, monkeypatch, kill_at):
    """Kill a second commit at its *kill_at*-th rename; None: before the marker."""
    calls = {"n": 0}
    from pathlib import Path

    real = Path.rename

    def rename(self, target):
        calls["n"] += 1
        if calls["n"] == kill_at:
            raise _Stopped
        return real(self, target)

    new = Origin("step", 1, "other", ORIGIN.inputs)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(_Stopped):
            store.commit(new, values(1))
    return new


@pytest.mark.parametrize("kill_at", [1, 2, 3, 6, 11])
def test_a_commit_cut_off_after_its_marker_is_finished(store, monkeypatch, kill_at):
    new = _staged(store, monkeypatch, kill_at)
    store.recover()
    assert {store.origin(artifact) for artifact in values()} == {new}
    assert (store.read(RASTER).values == values(1)[RASTER].values).all()
    assert not list(store.root.glob(".staging*"))


def test_a_commit_cut_off_before_its_marker_leaves_the_old(store):
    staging = store.root / ".staging-abc"
    shutil.copytree(store.folder(MASK), staging / "mask")
    (staging / "mask" / "origin.json").write_text("{}")
    store.recover()
    assert store.origin(MASK) == ORIGIN
    assert not staging.exists()


def _two_disks(monkeypatch, store):
    """Let results lie on a disk of their own: nothing can be renamed into or out of it."""
    from pathlib import Path

    real = Path.rename

    def rename(self, target):
        if self.is_relative_to(store.root) != Path(target).is_relative_to(store.root):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


def _labels_in_scratch(folder):
    """New values whose labels a step has written in its scratch folder."""
    found = values(1)
    written = found[LABELS]
    writer = store_module.LabelWriter(folder / "labels", written, "labels")
    for level in range(writer.n_levels):
        for window in writer.windows(level):
            writer.write(level, window)
    return {**found, LABELS: writer.finish()}


def test_scratch_and_results_may_lie_on_two_file_systems(store, monkeypatch, tmp_path):
    new = Origin("step", 1, "other", ORIGIN.inputs)
    found = _labels_in_scratch(tmp_path / "scratch")
    _two_disks(monkeypatch, store)
    store.commit(new, found)
    assert (store.read(LABELS).array() == values(1)[LABELS].array()).all()
    assert store.origin(LABELS) == new
    before = store.version(LABELS, ORIGIN.digest())
    assert before is not None  # moved to the earlier ones, which lie on the other disk
    assert (before.read(RASTER).values == values()[RASTER].values).all()
    left = [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]
    assert not left
    assert not (tmp_path / "scratch" / "labels").exists()


@pytest.mark.parametrize("broken_at", [1, 8, 30])
def test_a_copy_to_another_file_system_is_whole_or_absent(store, monkeypatch, tmp_path, broken_at):
    found = _labels_in_scratch(tmp_path / "scratch")
    _two_disks(monkeypatch, store)
    copied = []

    def copy(source, target):
        copied.append(target)
        if len(copied) == broken_at:
            raise OSError(errno.ENOSPC, "no space")
        return shutil.copyfile(source, target)

    monkeypatch.setattr(shutil, "copy2", copy)
    new = Origin("step", 1, "other", ORIGIN.inputs)
    with pytest.raises(MosaikError, match="disk is full"):
        store.commit(new, found)
    monkeypatch.undo()
    store.recover()
    assert len({store.origin(artifact) for artifact in values()}) == 1
    assert store.origin(RASTER) in (ORIGIN, new)
    for artifact in values():
        store.glance(artifact)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "permission denied")]
)
def test_a_full_or_closed_disk_leaves_the_old(store, monkeypatch, number, words):
    def refuse(self, content):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", lambda handle: refuse(None, None))
    with pytest.raises(MosaikError, match=words):
        store.commit(Origin("step", 2, "p", ()), {RECORD: {"new": 1}})
    monkeypatch.undo()
    store.recover()
    assert store.origin(RECORD) == ORIGIN
    assert store.read(RECORD) == values()[RECORD]


def test_one_writer_at_a_time_and_none_after_its_death(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from napari_mosaik.io.files import write_lock\n"
        f"with write_lock(Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(CaseLocked, match="another process"), write_lock(tmp_path):
            pass
        holder.kill()
    with write_lock(tmp_path), write_lock(tmp_path):
        pass


def test_columns_are_those_that_arrow_gives():
    import pyarrow

    from napari_mosaik.io.store import _values

    for values in (
        pyarrow.array([1, 2, 3], pyarrow.int8()),
        pyarrow.array([1.5, float("nan"), -2.0]),
        pyarrow.array([1.5, None, -2.0]),
        pyarrow.array([True, False, True]),
        pyarrow.array(["a", "", "µ"]),
        pyarrow.array([], pyarrow.string()),
        pyarrow.array([], pyarrow.float32()),
    ):
        for column in (
            pyarrow.chunked_array([values]),
            pyarrow.chunked_array([values[:1], values[1:]]),
        ):
            found, plain = _values(column), column.to_numpy()
            assert found.dtype == plain.dtype
            np.testing.assert_array_equal(found, plain)
