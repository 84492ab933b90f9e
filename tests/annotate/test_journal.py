"""One reader's journal: durable lines, checksums, one lock, one undo, damage, earlier versions."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from napari_mosaik.core import CaseLocked, InputError
from napari_mosaik.core import earlier_journals as earlier
from napari_mosaik.core import journal as journals
from napari_mosaik.core.journal import (
    JournalPart,
    ReaderJournal,
    annotation_part,
    correction_part,
    journal_damage,
    journal_of,
    journal_path,
    journals_of,
    qa_part,
    readers_of,
)

HE, VESSELS, QA = annotation_part("he"), correction_part("vessels"), qa_part("vessels")


def edit(n):
    return {"event": "edit", "title": f"brush {n}", "x": n, "word": "µm"}


def drawn(root, reader="Anna", part=HE):
    scan = journal_of(root, reader)
    return [event["x"] for event in scan.events(scan.active(part)) if "x" in event]


def filled(root, n=5):
    with JournalPart(root, "Anna", HE) as part:
        for i in range(n):
            part.append(edit(i))
    return journal_path(root, "Anna")


def test_a_line_is_json_with_a_checksum_and_stands_for_one_entry(tmp_path):
    path = filled(tmp_path, 2)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2]
    assert lines[0]["reader"] == "Anna"
    assert lines[1]["part"] == HE
    assert lines[1]["word"] == "µm"
    assert all(len(line["sum"]) == 16 and line["time"].endswith("+00:00") for line in lines)
    assert path.parent.parent == tmp_path / "readers"


def test_readers_have_folders_of_their_own(tmp_path):
    names = ["Åsa", "Äsa", "anna", "Anna", "a.jsonl", "con", "earlier version", "L\u00e9o", "李"]
    for name in names:
        JournalPart(tmp_path, name, HE).close()
    assert readers_of(tmp_path) == sorted(names)
    JournalPart(tmp_path, "Le\u0301o", HE).close()
    folders = [path.name for path in (tmp_path / "readers").iterdir()]
    assert len({name.casefold() for name in folders}) == len(folders) == len(names)
    (tmp_path / "readers" / "A stranger").mkdir()
    (tmp_path / "readers" / "A stranger" / "journal.jsonl").touch()
    assert readers_of(tmp_path) == sorted(names)


def test_one_undo_goes_back_through_all_parts_in_order(tmp_path):
    with JournalPart(tmp_path, "Anna", HE) as here, JournalPart(tmp_path, "Anna", QA) as there:
        assert here.journal is there.journal
        here.append(edit(1))
        there.append({"event": "object", "title": "rating", "x": 2})
        there.append({"event": "sample", "x": 3})  # without a title: no undo
        here.append(edit(4))
        told = []
        there.follow(lambda change: told.append((change.kind, change.title)))
        undone = [here.journal.undo_last() for _ in range(4)]
        assert [one and (one.part, one.event["x"]) for one in undone] == [
            (HE, 4), (QA, 2), (HE, 1), None
        ]  # fmt: skip
        assert drawn(tmp_path) == []
        assert drawn(tmp_path, part=QA) == [3]
        assert here.journal.redo_title() == "brush 1"
        assert here.journal.redo_title(QA) == "rating"
        assert here.journal.redo_last(QA).n == 2
        assert told == [("undo", "rating"), ("redo", "rating")]
        there.append({"event": "object", "title": "rating", "x": 5})
        assert here.journal.redo_last() is None  # a new act ends what could be redone, everywhere
    with JournalPart(tmp_path, "Anna", HE) as again:
        assert again.journal.undo_title() == "rating"
        assert again.journal.undo_title(HE) == ""
        assert drawn(tmp_path, part=QA) == [2, 3, 5]


def test_a_part_is_open_once_and_the_journal_until_its_last_user(tmp_path):
    one, two = JournalPart(tmp_path, "Anna", HE), JournalPart(tmp_path, " Anna ", QA)
    with pytest.raises(CaseLocked, match="Anna is open in another"):
        JournalPart(tmp_path, "Anna", HE)
    one.close()
    one.close()
    with pytest.raises(InputError, match="closed"):
        one.append(edit(1))
    two.append(edit(2))
    JournalPart(tmp_path, "Anna", HE).close()
    two.close()
    assert not ReaderJournal._open


def test_one_program_at_a_time_and_the_lock_dies_with_it(tmp_path):
    code = (
        "import os, sys; from pathlib import Path;"
        "from napari_mosaik.core.journal import JournalPart;"
        "part = JournalPart(Path(sys.argv[1]), 'Anna', 'annotation:he');"
        "part.append({'event': 'edit', 'title': 'a', 'x': 1}); print('held', flush=True);"
        'sys.stdin.read(); part.journal._file.write(b\'{"sum":"0\'); os._exit(9)'
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(CaseLocked, match="Anna is open in another program"):
        JournalPart(tmp_path, "Anna", VESSELS)
    with JournalPart(tmp_path, "Ben", HE) as other:
        other.append(edit(7))
    assert drawn(tmp_path) == [1]
    child.communicate("")  # it is killed while it writes
    journal_damage(forget=True)
    assert drawn(tmp_path) == [1]
    assert "line 3 was not written to its end" in journal_damage()[0]
    with JournalPart(tmp_path, "Anna", HE) as part:
        part.append(edit(2))
    journal_damage(forget=True)
    assert drawn(tmp_path) == [1, 2]
    assert journal_damage() == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_told_and_cut_off(tmp_path, cut):
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    journal_damage(forget=True)
    assert drawn(tmp_path) == [0, 1, 2, 3]
    (told,) = journal_damage()
    assert "line 6" in told
    assert "1 entry was lost" in told
    with JournalPart(tmp_path, "Anna", HE) as part:
        part.append(edit(9))
    journal_damage(forget=True)
    assert drawn(tmp_path) == [0, 1, 2, 3, 9]
    assert journal_damage() == []


def test_an_empty_journal_is_damaged_and_can_be_written_again(tmp_path):
    path = filled(tmp_path)
    head = path.read_bytes().split(b"\n")[0]
    path.write_bytes(b"")
    for _ in range(2):  # a file that was read before is not forgotten either
        journal_damage(forget=True)
        assert drawn(tmp_path) == []
        (told,) = journal_damage()
        assert "Anna" in told
        assert "damaged: it is empty" in told
    journal_damage(forget=True)
    with JournalPart(tmp_path, "Anna", HE) as part:
        part.append(edit(9))
        assert "damaged: it is empty" in journal_damage()[0]
    journal_damage(forget=True)
    assert drawn(tmp_path) == [9]
    assert path.read_bytes().split(b'"event"')[1][:12] == head.split(b'"event"')[1][:12]
    with JournalPart(tmp_path, "Ben", HE):
        assert journal_damage() == []  # a new one


def test_lines_that_end_as_on_windows_are_the_same_entries(tmp_path):
    path = filled(tmp_path)
    before = journal_of(tmp_path, "Anna")
    digest, marks = before.digest(), [one.mark for one in before.entries]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    journal_damage(forget=True)
    assert drawn(tmp_path) == [0, 1, 2, 3, 4]
    with JournalPart(tmp_path, "Anna", HE) as part:
        part.append(edit(5))
        part.journal.undo_last()
        part.append(edit(6))
    assert drawn(tmp_path) == [0, 1, 2, 3, 4, 6]
    assert journal_damage() == []
    after = journal_of(tmp_path, "Anna")
    assert [one.mark for one in after.entries[: len(marks)]] == marks
    assert after.digest(after.entries[len(marks) - 1].n) == digest
    content = path.read_bytes()  # another byte at the end of a line is damage as before
    path.write_bytes(content.replace(b"\r\n", b" \r\n", 3).replace(b" \r\n", b"\r\n", 2))
    assert drawn(tmp_path) == [0, 2, 3, 4, 6]
    assert "line 3" in journal_damage()[0]


@pytest.mark.parametrize(
    ("damage", "kept", "lines", "lost"),
    [
        (lambda rows: [*rows[:2], rows[2].replace(b'"x":1', b'"x":7'), *rows[3:]], [0, 2, 3, 4],
         "line 3", "1 entry was lost"),
        (lambda rows: [*rows[:2], b"\0" * 200, *rows[4:]], [0, 3, 4], "line 3",
         "2 entries were lost"),
        (lambda rows: [*rows[:2], rows[2] + rows[3], *rows[4:]], [0, 3, 4], "line 3",
         "2 entries were lost"),
        (lambda rows: [*rows[:2], rows[2][:9], rows[3][9:], *rows[4:]], [0, 3, 4], "lines 3 to 4",
         "2 entries were lost"),
        (lambda rows: [*rows[:3], *rows[4:]], [0, 1, 3, 4], "before line 4", "1 entry was lost"),
        (lambda rows: [*rows[:5], b"x" + rows[5][1:]], [0, 1, 2, 3], "line 6", "1 entry was lost"),
        (lambda rows: [b"", *rows[1:]], [0, 1, 2, 3, 4], "before line 2", "1 entry was lost"),
        (lambda rows: [*rows[:3], rows[2], *rows[3:]], [0, 1, 2, 3, 4], "line 4",
         "0 entries were lost"),
    ],
)  # fmt: skip
def test_damage_in_the_middle_loses_what_it_hit_and_says_so_ever_after(
    tmp_path, damage, kept, lines, lost
):
    path = filled(tmp_path)
    path.write_bytes(b"\n".join(damage(path.read_bytes().split(b"\n")[:-1])) + b"\n")
    for added in ([], [8], [8, 9]):
        if added:
            with JournalPart(tmp_path, "Anna", HE) as part:
                part.append(edit(added[-1]))
        journal_damage(forget=True)
        assert drawn(tmp_path) == [*kept, *added]
        (told,) = journal_damage()
        assert "damaged" in told
        assert lines in told
        assert lost in told


def test_an_undo_of_a_lost_entry_undoes_nothing_else(tmp_path):
    with JournalPart(tmp_path, "Anna", HE) as part:
        for i in range(3):
            part.append(edit(i))
        part.journal.undo_last()
    path = journal_path(tmp_path, "Anna")
    path.write_bytes(path.read_bytes().replace(b'"x":2', b'"x":3'))
    assert drawn(tmp_path) == [0, 1]


def test_a_full_disk_refuses_aloud_and_keeps_the_edit_in_memory(tmp_path, monkeypatch):
    path = filled(tmp_path, 1)
    with JournalPart(tmp_path, "Anna", HE) as part:
        before = path.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"nothing was changed.*No space left"):
            part.append(edit(1))
        with pytest.raises(InputError, match="No space left"):
            part.journal.undo_last()
        with pytest.raises(InputError, match="No space left"):
            part.journal.retry()
        assert path.read_bytes() == before
        assert drawn(tmp_path) == [0]
        assert [event["x"] for _, event in part.journal.refused] == [1]
        monkeypatch.undo()
        told = []
        part.follow(lambda change: told.append(change.event["x"]))
        elsewhere = tmp_path / "copy.jsonl"
        refused = list(part.journal.refused)
        assert part.journal.save_elsewhere(elsewhere) == 1
        part.journal.refused += refused
        assert part.journal.retry() == 1
        assert part.journal.refused == []
        assert told == [1]
    assert drawn(tmp_path) == [0, 1]
    path.write_bytes(elsewhere.read_bytes())
    assert drawn(tmp_path) == [0, 1]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "readers").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        JournalPart(tmp_path, "Anna", HE)
    assert not ReaderJournal._open


def test_a_clock_set_back_changes_no_order(tmp_path, monkeypatch):
    class Clock(journals.datetime):
        years = iter((2030, 2020, 2025))

        @classmethod
        def now(cls, zone=None):
            return cls(next(cls.years), 1, 1, tzinfo=zone)

    with JournalPart(tmp_path, "Anna", HE) as part:
        monkeypatch.setattr(journals, "datetime", Clock)
        for i in range(3):
            part.append(edit(i))
    scan = journal_of(tmp_path, "Anna")
    assert drawn(tmp_path) == [0, 1, 2]
    assert [entry.time[:4] for entry in scan.entries[1:]] == ["2030", "2020", "2025"]
    assert [entry.at[:4] for entry in scan.entries[1:]] == ["2030", "2030", "2030"]


def test_a_newer_journal_is_refused(tmp_path):
    path = filled(tmp_path, 1)
    path.write_bytes(journals.journal_line(0, "", "", {"event": "journal", "format": 2}))
    with pytest.raises(InputError, match="newer version"):
        journals_of(tmp_path)


def test_several_threads_write_whole_lines(tmp_path):
    with JournalPart(tmp_path, "Anna", HE) as one, JournalPart(tmp_path, "Anna", QA) as two:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: (one, two)[i % 2].append(edit(i)), range(40)))
        scan = one.scan
    assert [entry.n for entry in scan.entries] == list(range(41))
    assert sorted(drawn(tmp_path) + drawn(tmp_path, part=QA)) == list(range(40))


# --- earlier versions -----------------------------------------------------------------------------
def line(minute, **event):
    return json.dumps({"time": f"2026-01-01T00:{minute:02}:00.000+00:00", **event})


CUT = {"kind": "cut", "area_wkt": "POLYGON ((0 0, 9 0, 9 9, 0 0))"}


@pytest.fixture
def old_case(tmp_path):
    files = {
        "journal/runs.jsonl": [json.dumps({"event": "run"})],
        "journal/%41.nna.jsonl": [
            line(1, event="edit", document="he", title="brush", x=1),
            line(4, event="edit", document="he", title="brush", x=4),
            line(6, event="undo", document="he"),
            line(7, event="finished", document="he"),
        ],
        "corrections/tissue_he/%41.nna.jsonl": [
            line(2, event="add", correction=CUT, x=2),
            line(5, event="add", correction=CUT, x=5),
            line(8, event="undo"),
            line(9, event="redo"),
            "damaged",
            line(11, event="add", correction=CUT, x=11),
            '{"torn',
        ],
        "qa/vessels/%41.nna.jsonl": [
            line(3, qa="vessels", result="r", x=3), line(10, object=1, rating="wrong", x=10)
        ],
        "corrections/vessels/ben.jsonl": [line(1, event="add", correction=CUT, x=1)],
    }  # fmt: skip
    for name, lines in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n" * ("torn" not in lines[-1]))
    return tmp_path


def check_old_case(root):
    assert readers_of(root) == ["Anna", "ben"]
    assert drawn(root) == [1]
    assert drawn(root, part=correction_part("tissue_he")) == [2, 5, 11]
    assert drawn(root, part=QA) == [3, 10]
    assert drawn(root, "ben", VESSELS) == [1]
    assert journal_of(root, "Anna").of_part(HE)[-1].event == "finished"
    (told,) = journal_damage()
    assert "1 entry was lost" in told


def test_journals_of_an_earlier_version_become_one_and_are_kept(old_case):
    old = {path: path.read_bytes() for path in earlier.earlier_files(old_case)}
    journal_damage(forget=True)
    check_old_case(old_case)
    assert earlier.earlier_files(old_case) == []
    assert not (old_case / "qa").exists()
    assert (old_case / "journal" / "runs.jsonl").is_file()
    for path, content in old.items():
        kept = old_case / "readers" / earlier.EARLIER / path.relative_to(old_case)
        assert kept.read_bytes() == content
    with JournalPart(old_case, "Anna", HE) as part:
        assert part.journal.undo_last().event["x"] == 11
        assert part.journal.undo_last().event["x"] == 10
        assert part.journal.undo_last().event["x"] == 5


@pytest.mark.parametrize("where", ["_fill", "_remove", "flush_to_disk"])
def test_they_are_taken_over_whole_or_not_at_all(old_case, monkeypatch, where):
    def killed(*_):
        raise KeyboardInterrupt

    journal_damage(forget=True)
    monkeypatch.setattr(earlier, where, killed)
    with pytest.raises(KeyboardInterrupt):
        readers_of(old_case)
    assert (old_case / "readers").exists() == (where == "_remove")
    assert len(earlier.earlier_files(old_case)) == 4
    monkeypatch.undo()
    check_old_case(old_case)


def test_a_case_that_cannot_be_written_is_read_all_the_same(old_case, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(earlier, "atomic_folder", refuse)
    journal_damage(forget=True)
    check_old_case(old_case)
    assert not (old_case / "readers").exists()
    with pytest.raises(InputError, match="cannot be written"):
        JournalPart(old_case, "Anna", HE)
    assert len(earlier.earlier_files(old_case)) == 4
