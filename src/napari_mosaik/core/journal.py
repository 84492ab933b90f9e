"""One reader's journal of a case: annotations, corrections, visual QA and review, with one undo.

    CASE/readers/FOLDER/journal.jsonl     one JSON object a line; FOLDER stands for one reader
    {"sum":"…","n":7,"time":"…","part":"correction:vessels","event":"add","title":"…",…}

`sum` is the checksum of the rest of the line and `n` counts the entries, so that a changed digit
and a lost entry are both noticed.  A line is on the disk before `append` returns, and no line is
ever rewritten: undo and redo are entries that name the entry they concern.  An entry with a title
can be undone.

    JournalPart ──┐
    JournalPart ──┼─► ReaderJournal (one in a process, one lock) ─► file ─► journal_of ─► readers
    undo_last  ───┘        └─► changed ─► the views of the part that was undone
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import orjson
from filelock import FileLock, Timeout
from psygnal import Signal

from napari_mosaik.core.closing import Closing
from napari_mosaik.core.earlier_journals import earlier_files, take_over
from napari_mosaik.core.errors import CaseLocked, InputError
from napari_mosaik.core.readers import check_reader_name, coded_name, reader_of

__all__ = [
    "JournalChange",
    "JournalEntry",
    "JournalPart",
    "JournalScan",
    "ReaderJournal",
    "annotation_part",
    "correction_part",
    "journal_damage",
    "journal_line",
    "journal_of",
    "journal_path",
    "journals_of",
    "qa_part",
    "readers_of",
]

FOLDER: Final = "readers"
FILE: Final = "journal.jsonl"
FORMAT: Final = 1
REVIEW: Final = "review"
"""The part of the decisions in the review queue."""
_HEAD = re.compile(
    rb'\{"sum":"(?P<sum>[0-9a-f]{16})",'
    rb'(?="n":(?P<n>\d+),"time":"(?P<time>[^"]*)","part":(?P<part>"(?:[^"\\]|\\.)*")'
    rb',"event":(?P<event>"(?:[^"\\]|\\.)*")(?:,"title":(?P<title>"(?:[^"\\]|\\.)*"))?'
    rb'(?:,"of":(?P<of>\d+))?[,}])'
)
_DAMAGE: dict[str, None] = {}


def annotation_part(stain: str) -> str:
    """The part of the annotations of a slide."""
    return f"annotation:{stain}"


def correction_part(what: str) -> str:
    """The part of the corrections of "vessels", "nuclei", "tissue_cd34"..."""
    return f"correction:{what}"


def qa_part(what: str) -> str:
    """The part of the visual QA of "vessels" or "nuclei"."""
    return f"qa:{what}"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of a journal.

    Parameters
    ----------
    n
        Its number, from 0; the gaps are lost entries.
    time, at
        When it was written (ISO, UTC), and the same without steps back of the clock.
    part, event
        The part of the work, and what was done.
    title
        What can be undone, in words; empty where nothing can.
    of
        The entry that an undo or redo concerns; -1 for others.
    offset, size
        Place of the line in the file, bytes.
    mark
        Checksum.
    """

    n: int
    time: str
    at: str
    part: str
    event: str
    title: str
    of: int
    offset: int
    size: int
    mark: str


@dataclass(slots=True, eq=False)
class JournalScan:
    """The entries of a journal file, and what is damaged.

    Parameters
    ----------
    path
        The file.
    entries
        Readable entries, oldest first.
    done, undone
        Numbers of the entries in force that can be undone, and of those that can be redone, in
        the order in which that happened.
    damage
        Sentences about damaged lines.
    end
        Bytes up to the end of the last whole line.
    next_n
        Number of the entry that should follow.
    torn
        Whether an unfinished line follows.
    """

    path: Path
    entries: list[JournalEntry] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    end: int = 0
    next_n: int = 0
    torn: bool = False
    _lines: int = 0
    _bad: list[tuple[int, int]] = field(default_factory=list)
    _stamp: tuple[int, int, int] = (0, -1, 0)

    @property
    def reader(self) -> str:
        """The name of the reader."""
        return reader_of(self.path.parent)

    @property
    def damaged(self) -> list[str]:
        """All damage, with that at the end of the file."""
        if self._stamp[1] >= 0 and not self._stamp[0]:  # a new one gets its first entry at once
            why = "is damaged: it is empty, and how many entries were lost is not known"
            return [f"{self._whose} {why}"]
        lines = [self._lost(self._bad, self._lost_at_end)] if self._bad else []
        if self.torn:
            lines.append(self._lost([(self._lines + 1, 1)], 1, "was not written to its end"))
        return [*self.damage, *lines]

    @property
    def _lost_at_end(self) -> int:
        return sum(count for _, count in self._bad)

    @property
    def free_n(self) -> int:
        """The number of the next entry to write."""
        return self.next_n + self._lost_at_end

    def entry(self, n: int) -> JournalEntry | None:
        """The entry of a number; None if it was lost."""
        place = bisect_left(self.entries, n, key=lambda one: one.n)
        found = self.entries[place] if place < len(self.entries) else None
        return found if found is not None and found.n == n else None

    def of_part(self, part: str) -> list[JournalEntry]:
        """All entries of a part, oldest first."""
        return [one for one in self.entries if one.part == part]

    def active(self, part: str) -> list[JournalEntry]:
        """The entries of a part that are in force, oldest first."""
        done = set(self.done)
        return [
            one
            for one in self.entries
            if one.part == part and one.of < 0 and (not one.title or one.n in done)
        ]

    def events(self, entries: Iterable[JournalEntry]) -> Iterator[dict[str, Any]]:
        """What the entries say, each with the number "n" and the "time"."""
        chosen = list(entries)
        if not chosen:
            return
        with self.path.open("rb", buffering=1 << 16) as file:
            for one in chosen:
                file.seek(one.offset)
                event: dict[str, Any] = orjson.loads(file.read(one.size))
                yield event

    def digest(self, n: int | None = None) -> str:
        """Digest of the entries up to the number *n*, or of all."""
        running = hashlib.blake2b(digest_size=16)
        for one in self.entries:
            if n is not None and one.n > n:
                break
            running.update(one.mark.encode())
        return running.hexdigest()

    def extend(self, file: BinaryIO) -> None:
        """Read the lines that follow `end`."""
        file.seek(self.end)
        self.torn = False
        for line in file:
            if not line.endswith(b"\n"):
                self.torn = True
                break
            self._lines += 1
            self._take(line, self.end)
            self.end += len(line)

    def added(self, line: bytes, stamp: tuple[int, int, int]) -> None:
        """Take over a line that was just written at the `end` of the file."""
        self._lines += 1
        self._take(line, self.end, written=True)
        self.end, self._stamp = self.end + len(line), stamp

    def _take(self, line: bytes, offset: int, *, written: bool = False) -> None:
        if not line.strip():
            return
        if line.endswith(b"\r\n"):  # as editors and git on Windows end lines; no entry holds it
            line = line[:-2] + b"\n"
        found = _HEAD.match(line)
        intact = found is not None and (
            written or _checksum(line, found.end()) == found["sum"].decode()
        )
        if found is None or not intact or int(found["n"]) < self.next_n:
            self._bad.append((self._lines, max(1, line.count(b'{"sum":"'))))
            return
        n, last = int(found["n"]), self.entries[-1].at if self.entries else ""
        if self._bad or n > self.next_n:
            self.damage.append(self._lost(self._bad, n - self.next_n))
            self._bad = []
        time = found["time"].decode()
        part, event, title = (orjson.loads(found[key] or b'""') for key in _WORDS)
        of = -1 if found["of"] is None else int(found["of"])
        mark = found["sum"].decode()
        size = len(line) - 1
        self.entries.append(
            JournalEntry(n, time, max(time, last), part, event, title, of, offset, size, mark)
        )
        self.next_n = n + 1
        self._fold(self.entries[-1])

    def _fold(self, entry: JournalEntry) -> None:
        if entry.event in ("undo", "redo"):
            source, target = self.done, self.undone
            if entry.event == "redo":
                source, target = target, source
            if entry.of in source:
                source.remove(entry.of)
            if entry.of not in target:
                target.append(entry.of)
        elif entry.title:
            self.done.append(entry.n)
            self.undone.clear()

    def _lost(self, bad: list[tuple[int, int]], lost: int, why: str = "cannot be read") -> str:
        lines = [line for line, _ in bad]
        if not lines:
            where = f"is damaged before line {self._lines}"
        elif len(lines) == 1:
            where = f"is damaged: line {lines[0]} {why}"
        else:
            where = f"is damaged: lines {lines[0]} to {lines[-1]} cannot be read"
        what = f"{lost} {'entry was' if lost == 1 else 'entries were'} lost"
        return f"{self._whose} {where}; {what}, and what comes before and after is used"

    @property
    def _whose(self) -> str:
        return f"the journal of reader {self.reader} ({FOLDER}/{self.path.parent.name}/{FILE})"


_WORDS: Final = ("part", "event", "title")


def _checksum(line: bytes, start: int = 0) -> str:
    """Checksum of a line from a place on, without the line break."""
    end = len(line) - line.endswith(b"\n")
    return hashlib.blake2b(memoryview(line)[start:end], digest_size=8).hexdigest()


def journal_line(
    n: int, time: str, part: str, event: Mapping[str, Any], of: int | None = None
) -> bytes:
    """One line of a journal, with its line break; *event* holds at least "event"."""
    rest = {key: value for key, value in event.items() if key not in _FIXED}
    record = {"n": n, "time": time, "part": part, "event": str(event.get("event", ""))}
    if event.get("title"):
        record["title"] = str(event["title"])
    if of is not None:
        record["of"] = of
    body = orjson.dumps({**record, **rest}, default=_plain)[1:]
    return b'{"sum":"%s",%s\n' % (_checksum(body).encode(), body)


_FIXED: Final = {"sum", "n", "time", "part", "event", "title", "of"}


def _plain(value: Any) -> Any:
    """Values that are no JSON: numbers of numpy, mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written to a journal")


# --- reading --------------------------------------------------------------------------------------
def journal_path(root: Path, reader: str) -> Path:
    """The journal of a reader; it need not exist.  Raises `InputError` for an invalid name."""
    return _readers(root) / coded_name(check_reader_name(reader)) / FILE


def readers_of(root: Path) -> list[str]:
    """The readers with a journal in a case, by name."""
    return sorted(reader_of(path.parent) for path in _files(root))


def journals_of(root: Path, part: str = "") -> dict[str, JournalScan]:
    """The journals of a case by reader; only those with an entry of *part*, where it is given."""
    scans = {reader_of(path.parent): _scan(path) for path in _files(root)}
    kept = {
        reader: scan
        for reader, scan in scans.items()
        if not part or any(entry.part == part for entry in scan.entries)
    }
    return dict(sorted(kept.items()))


def journal_of(root: Path, reader: str) -> JournalScan:
    """The journal of a reader, for reading only; without entries where there is none."""
    return _scan(journal_path(root, reader))


def journal_damage(*, forget: bool = False) -> list[str]:
    """Sentences about the damage of all journals that were read since the last *forget*."""
    found = list(_DAMAGE)
    if forget:
        _DAMAGE.clear()
    return found


def _files(root: Path) -> list[Path]:
    found = _readers(root).glob(f"*/{FILE}")
    return [path for path in found if coded_name(reader_of(path.parent)) == path.parent.name]


def _readers(root: Path) -> Path:
    """The folder of all readers; what an earlier version wrote is taken over first."""
    folder = root / FOLDER
    if not folder.exists() and earlier_files(root):
        return take_over(root, FOLDER, FILE, journal_line)
    return folder


_SCANS: dict[Path, JournalScan] = {}
_SCANNING = threading.RLock()


def _scan(path: Path) -> JournalScan:
    """The entries of a file; only what was added since the last call is read."""
    path = path.absolute()
    try:
        about = path.stat()
    except FileNotFoundError:
        return JournalScan(path)
    except OSError as error:
        raise InputError(f"the journal {path} cannot be read: {error}") from error
    stamp = _stamp(about)
    with _SCANNING:
        scan = _SCANS.get(path)
        if scan is None or scan._stamp != stamp:
            if scan is None or path not in ReaderJournal._open or about.st_size < scan.end:
                scan = JournalScan(path)  # only its writer knows that it has just grown
            try:
                with path.open("rb", buffering=1 << 20) as file:
                    scan.extend(file)
            except OSError as error:
                raise InputError(f"the journal {path} cannot be read: {error}") from error
            _check_format(scan)
            scan._stamp = stamp
            _SCANS[path] = scan
        if not ((scan.torn or not about.st_size) and _being_written(path)):
            _DAMAGE.update(dict.fromkeys(scan.damaged))
        return scan


def _stamp(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_size, about.st_mtime_ns, about.st_ino


def _check_format(scan: JournalScan) -> None:
    first = scan.entries[0] if scan.entries else None
    if first is not None and first.event == "journal":
        made = next(scan.events([first])).get("format", FORMAT)
        if made > FORMAT:
            raise InputError(
                f"the journal of reader {scan.reader} was written by a newer version (format "
                f"{made}, known is {FORMAT}); install that version"
            )


def _being_written(path: Path) -> bool:
    """Whether a journal is open for writing, so that its last line may be on its way."""
    if path in ReaderJournal._open:
        return True
    lock = FileLock(_lock_path(path), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _lock_path(path: Path) -> str:
    return f"{path}.lock"


# --- writing --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class JournalChange:
    """What happened in a journal: "append", "undo" or "redo" of an entry.

    ``event`` is the whole event of that entry, with its part and title.
    """

    kind: str
    n: int
    part: str
    title: str
    event: Mapping[str, Any]


class ReaderJournal(Closing):
    """The journal of one reader, open for writing; see `JournalPart`.

    Everything in one process that works for a reader shares one object, which is closed with its
    last user.  It may be used by several threads.

    Notes
    -----
    ``changed`` is emitted with a `JournalChange` after each entry, on the thread that made it.
    ``refused`` holds what could not be written, until `retry` or `save_elsewhere` succeeds.

    Raises
    ------
    CaseLocked
        If another program holds the journal.
    InputError
        If the name of the reader is not valid, or the folder cannot be written.
    """

    changed = Signal(object)
    _open: ClassVar[dict[Path, ReaderJournal]] = {}

    def __init__(self, path: Path) -> None:
        self.path, self.reader = path, reader_of(path.parent)
        self.refused: list[tuple[str, dict[str, Any]]] = []
        self._users = 0
        self._parts: set[str] = set()
        self._writing = threading.RLock()
        fresh = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(_lock_path(path), thread_local=False)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CaseLocked(
                f"the journal of reader {self.reader} is open in another program; close it there, "
                "or give another reader"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 - held until close()
            scan = _scan(path)
            if scan.torn:  # it was never confirmed
                _DAMAGE.update(dict.fromkeys(scan.damaged))
                self._file.truncate(scan.end)
            elif not fresh and not scan.end:
                _DAMAGE.update(dict.fromkeys(scan.damaged))
            if not scan.end:
                self._write({"event": "journal", "format": FORMAT, "reader": self.reader}, "")
                _flush_folders(path)
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from error
        except BaseException:
            self._lock.release()
            raise

    def _unwritable(self, error: OSError) -> InputError:
        why = error.strerror or str(error)
        return InputError(f"the journal of reader {self.reader} cannot be written: {why}")

    @classmethod
    def open(cls, root: Path, reader: str) -> ReaderJournal:
        """The journal of a reader of the case in *root*; call `close` when it is not needed."""
        path = journal_path(root, reader).absolute()
        if not path.is_relative_to(root.absolute()):
            raise InputError(
                f"the case in {root} cannot be written, or is open in an earlier version of this "
                "program; close it there, or copy the case to a folder that can be written"
            )
        with _SCANNING:
            journal = cls._open.get(path)
            if journal is None:
                journal = cls._open[path] = cls(path)
            journal._users += 1
        return journal

    def close(self) -> None:
        """End one use; the last one releases the lock."""
        with _SCANNING, self._writing:
            self._users -= 1
            if self._users == 0:
                self._open.pop(self.path, None)
                self._file.close()
                self._lock.release()

    @property
    def scan(self) -> JournalScan:
        """All entries."""
        return _scan(self.path)

    def append(self, part: str, event: Mapping[str, Any]) -> int:
        """Write one event and return its number; it is on the disk then.

        *event* holds "event", and a "title" if it can be undone.

        Raises
        ------
        InputError
            If it cannot be written; it is kept in ``refused`` then.
        """
        return self._append(part, dict(event), "append")

    def _append(self, part: str, event: dict[str, Any], kind: str, of: int | None = None) -> int:
        with self._writing:
            try:
                n = self._write(event, part, of)
            except InputError:
                if kind == "append":
                    self.refused.append((part, event))
                raise
        if kind == "append":
            self.changed.emit(JournalChange(kind, n, part, str(event.get("title", "")), event))
        return n

    def _write(self, event: Mapping[str, Any], part: str, of: int | None = None) -> int:
        if self._file.closed:
            raise InputError(f"the journal of reader {self.reader} is closed; open the case again")
        scan = self.scan
        n = scan.free_n
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = journal_line(n, now, part, event, of)
        rest = memoryview(line)
        size = self._file.seek(0, os.SEEK_END)
        try:
            while rest:  # an unbuffered file may take it in parts
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(size)
            raise InputError(
                f"nothing was changed: the journal of reader {self.reader} cannot be written "
                f"({error.strerror or error}); free some space and try again, or save it elsewhere"
            ) from error
        with _SCANNING:
            if scan.end == size:
                scan.added(line, _stamp(os.fstat(self._file.fileno())))
        return n

    # --- undo -----------------------------------------------------------------------------------
    def undo_title(self, part: str = "") -> str:
        """What `undo_last` would undo, in words; empty if nothing."""
        entry = self._last(self.scan.done, part)
        return "" if entry is None else entry.title

    def redo_title(self, part: str = "") -> str:
        """What `redo_last` would redo, in words; empty if nothing."""
        entry = self._last(self.scan.undone, part)
        return "" if entry is None else entry.title

    def undo_last(self, part: str = "") -> JournalChange | None:
        """Undo what was done last, in any part or in *part* alone; None if there is nothing."""
        return self._move("undo", part)

    def redo_last(self, part: str = "") -> JournalChange | None:
        """Redo what was undone last, in any part or in *part* alone; None if there is nothing."""
        return self._move("redo", part)

    def _move(self, kind: str, part: str) -> JournalChange | None:
        with self._writing:
            scan = self.scan
            entry = self._last(scan.done if kind == "undo" else scan.undone, part)
            if entry is None:
                return None
            (event,) = scan.events([entry])
            self._append(entry.part, {"event": kind}, kind, entry.n)
        change = JournalChange(kind, entry.n, entry.part, entry.title, event)
        self.changed.emit(change)
        return change

    def _last(self, numbers: list[int], part: str) -> JournalEntry | None:
        scan = self.scan
        found = (scan.entry(n) for n in reversed(numbers))
        return next((one for one in found if one is not None and part in ("", one.part)), None)

    # --- after a refusal ------------------------------------------------------------------------
    def retry(self) -> int:
        """Write what was refused, in order; the number of entries.

        Raises `InputError` with the first that is refused again; it and the others are kept.
        """
        with self._writing:
            waiting, self.refused = self.refused, []
            for place, (part, event) in enumerate(waiting):
                try:
                    self._append(part, event, "append")
                except InputError:
                    self.refused += waiting[place + 1 :]
                    raise
        return len(waiting)

    def save_elsewhere(self, path: Path) -> int:
        """Write a copy of the journal with what was refused; the number of refused entries.

        The copy can take the place of the journal.
        """
        with self._writing:
            scan = self.scan
            n, now = scan.free_n, datetime.now(UTC).isoformat()
            lines = [
                journal_line(n + place, now, part, event)
                for place, (part, event) in enumerate(self.refused)
            ]
            try:
                with self.path.open("rb") as source, path.open("wb") as file:
                    while block := source.read(1 << 20):
                        file.write(block)
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
            self.refused = []
        return len(lines)


class JournalPart(Closing):
    """One part of a reader's journal, open for writing by one view of a process.

    Parameters
    ----------
    root
        The case.
    reader
        Name of the reader.
    part
        `annotation_part`, `correction_part`, `qa_part`, or `REVIEW`.

    Raises
    ------
    CaseLocked
        If the part is open elsewhere.
    InputError
        As for `ReaderJournal`.
    """

    def __init__(self, root: Path, reader: str, part: str) -> None:
        self.part = part
        self.journal = ReaderJournal.open(root, reader)
        self._closed = part in self.journal._parts
        if self._closed:
            self.journal.close()
            raise CaseLocked(
                f"the journal of reader {self.journal.reader} is open in another window for the "
                "same work; close it there, or give another reader"
            )
        self.journal._parts.add(part)
        self._following: list[Callable[[JournalChange], Any]] = []

    @property
    def reader(self) -> str:
        """The name of the reader."""
        return self.journal.reader

    @property
    def scan(self) -> JournalScan:
        """All entries of the journal."""
        return self.journal.scan

    def append(self, event: Mapping[str, Any]) -> int:
        """Write one event of this part; see `ReaderJournal.append`."""
        if self._closed:
            raise InputError(f"the journal of reader {self.reader} is closed; open the case again")
        return self.journal.append(self.part, event)

    def events(self) -> list[dict[str, Any]]:
        """All events of this part, oldest first, with undo and redo."""
        scan = self.scan
        return list(scan.events(scan.of_part(self.part)))

    def active(self) -> list[dict[str, Any]]:
        """The events of this part that are in force, oldest first."""
        scan = self.scan
        return list(scan.events(scan.active(self.part)))

    def follow(self, callback: Callable[[JournalChange], Any]) -> None:
        """Call *callback* for each change of this part, on the thread that made it."""

        def mine(change: JournalChange) -> None:
            if change.part == self.part:
                callback(change)

        self._following.append(mine)
        self.journal.changed.connect(mine)

    def close(self) -> None:
        """Release the part; safe to call twice."""
        if not self._closed:
            self._closed = True
            for mine in self._following:
                self.journal.changed.disconnect(mine, missing_ok=True)
            self.journal._parts.discard(self.part)
            self.journal.close()


def _flush_folders(path: Path) -> None:
    """Make the name of a new file survive a crash; not possible on Windows."""
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
