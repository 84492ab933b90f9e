"""The journal on disk: whole lines, torn lines, damage, locks, a full disk."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from napari_mosaik.annotate import Journal, read_journal
from napari_mosaik.core import CaseLocked, CorruptArtifact, InputError


def test_events_return_in_order_with_their_time(tmp_path):
    with Journal(tmp_path / "deep" / "a.jsonl") as journal:
        for i in range(3):
            journal.append({"event": "edit", "n": i, "word": "µm"})
        assert [e["n"] for e in journal.events()] == [0, 1, 2]
        assert journal.last_written is not None
    events = read_journal(tmp_path / "deep" / "a.jsonl")
    assert all(e["time"].endswith("+00:00") and e["word"] == "µm" for e in events)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, cut):
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        for i in range(3):
            journal.append({"n": i, "filler": "x" * 100_000})
    path.write_bytes(path.read_bytes()[:-cut])
    kept = [0, 1, 2] if cut == 1 else [0, 1]
    assert [e["n"] for e in read_journal(path)] == kept
    with Journal(path) as journal:
        journal.append({"n": 9})
    assert [e["n"] for e in read_journal(path)] == [*kept, 9]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_zeros_left_by_a_power_cut_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 0}\n' + b"\0" * 300)
    assert [e["n"] for e in read_journal(path)] == [0]
    Journal(path).close()
    assert path.read_bytes() == b'{"n": 0}\n'


def test_damage_in_the_middle_is_told_and_can_be_salvaged(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 0}\n{"n": \n{"n": 2}\n')
    with pytest.raises(CorruptArtifact, match="line 2"):
        read_journal(path)
    assert [e["n"] for e in read_journal(path, salvage=True)] == [0]


def test_an_absent_journal_is_empty(tmp_path):
    assert read_journal(tmp_path / "none.jsonl") == []


def test_one_writer_at_a_time_and_the_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "a.jsonl"
    code = (
        "import os, sys; from napari_mosaik.annotate import Journal;"
        "j = Journal(sys.argv[1]); j.append({'n': 1}); print('held', flush=True);"
        "sys.stdin.read(); os._exit(9)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(CaseLocked, match=r"a\.jsonl"):
        Journal(path)
    assert [e["n"] for e in read_journal(path)] == [1]
    child.communicate("")
    with Journal(path) as journal:
        journal.append({"n": 2})
    assert [e["n"] for e in read_journal(path)] == [1, 2]


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 0})
        before = path.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            journal.append({"n": 1})
        assert path.read_bytes() == before
        monkeypatch.undo()
        journal.append({"n": 2})
    assert [e["n"] for e in read_journal(path)] == [0, 2]
    with pytest.raises(InputError, match="closed"):
        journal.append({"n": 3})


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "file" / "a.jsonl")


def test_a_journal_opened_on_one_thread_can_be_closed_on_another(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        journal = pool.submit(Journal, tmp_path / "a.jsonl").result()
    journal.append({"a": 1})
    journal.close()
    with Journal(tmp_path / "a.jsonl") as again:
        assert len(again.events()) == 1
