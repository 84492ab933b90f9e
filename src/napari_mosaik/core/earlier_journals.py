"""What earlier versions recorded of readers, taken over into one journal for each reader.

    journal/READER.jsonl  corrections/WHAT/READER.jsonl  qa/WHAT/READER.jsonl
        ─► readers/FOLDER/journal.jsonl, and the files themselves in readers/earlier version/

The new folder appears whole or not at all; the old files are removed only when their copies are in
it.  The corrections in force, and with them the origins of results, are the same as before.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from napari_mosaik.core.atomic import atomic_folder, flush_to_disk
from napari_mosaik.core.corrections import Correction, describe_correction
from napari_mosaik.core.errors import InputError
from napari_mosaik.core.readers import check_reader_name, coded_name, reader_of

__all__ = ["EARLIER", "RUNS", "earlier_files", "take_over"]

EARLIER: Final = "earlier version"
"""Folder of the original files; no reader's folder has a blank in its name."""
_PLACES: Final = ("journal/*.jsonl", "corrections/*/*.jsonl", "qa/*/*.jsonl")
RUNS: Final = "runs.jsonl"
"""The journal of runs, which lay beside those of the readers and stays there."""
Line = Callable[..., bytes]


def earlier_files(root: Path) -> list[Path]:
    """The journals of readers that an earlier version wrote in a case."""
    found = [path for place in _PLACES for path in root.glob(place)]
    return sorted(path for path in found if path.relative_to(root).as_posix() != f"journal/{RUNS}")


def take_over(root: Path, folder: str, file: str, line: Line) -> Path:
    """Take over the earlier journals of a case; the folder with the new ones.

    Where the case cannot be written, or the earlier version is running, it is a temporary folder
    for reading.

    Parameters
    ----------
    root
        The case.
    folder, file
        Names of the folder of all readers and of a journal in it.
    line
        `journal_line`.
    """
    target = root / folder
    try:
        with FileLock(root / f".{folder}.lock", timeout=10, thread_local=False):
            if target.exists():  # another process was faster
                return target
            files = earlier_files(root)
            with contextlib.ExitStack() as held:
                for path in files:
                    held.enter_context(FileLock(f"{path}.lock", timeout=0, thread_local=False))
                with atomic_folder(target) as scratch:
                    _fill(root, files, scratch, file, line)
            _remove(files)
            return target
    except (OSError, Timeout):
        return _copy(root, file, line)


_COPIES: dict[tuple[Any, ...], tempfile.TemporaryDirectory[str]] = {}
"""Temporary folders by the files that they were made of; the end of the process removes them."""


def _copy(root: Path, file: str, line: Line) -> Path:
    files = earlier_files(root)
    try:
        about = [(path, path.stat()) for path in files]
        key = root, *((path, found.st_size, found.st_mtime_ns) for path, found in about)
        if key not in _COPIES:
            folder = tempfile.TemporaryDirectory(prefix="napari-mosaik-readers-")
            _fill(root, files, Path(folder.name), file, line)
            _COPIES[key] = folder
    except OSError as error:
        raise InputError(f"the journals of {root} cannot be read: {error}") from error
    return Path(_COPIES[key].name)


def _fill(root: Path, files: list[Path], target: Path, name: str, line: Line) -> None:
    readers: dict[str, list[Path]] = {}
    for path in files:
        copy = target / EARLIER / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        with contextlib.suppress(InputError):
            reader = check_reader_name(reader_of(path.with_suffix("")))
            readers.setdefault(reader, []).append(path)
    for reader, paths in readers.items():
        place = target / coded_name(reader) / name
        place.parent.mkdir(parents=True)
        with place.open("wb") as journal:
            for part in _lines(root, reader, paths, line):
                journal.write(part)
            flush_to_disk(journal)


def _remove(files: list[Path]) -> None:
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink()
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
            path.parent.rmdir()  # unless it holds something else
            path.parent.parent.rmdir()


@dataclass(slots=True)
class _Step:
    """One line of an earlier journal: *event* is None where it is damaged, and *raw* is kept."""

    at: str
    place: tuple[str, int]
    part: str
    event: dict[str, Any] | None
    raw: bytes


def _lines(root: Path, reader: str, paths: list[Path], line: Line) -> Iterator[bytes]:
    """The lines of the new journal: all events in the order of their times."""
    steps = list(heapq.merge(*(_steps(root, path) for path in paths), key=lambda one: one.at))
    first = steps[0].at if steps else ""
    yield line(0, first, "", {"event": "journal", "format": 1, "reader": reader})
    done: dict[tuple[str, str], list[int]] = {}
    undone: dict[tuple[str, str], list[int]] = {}
    for n, step in enumerate(steps, 1):
        mine = (step.place[0], step.part)
        back, forth = done.setdefault(mine, []), undone.setdefault(mine, [])
        if step.event is None:
            yield step.raw + b"\n"
            continue
        event, of = step.event, None
        if event["event"] in ("undo", "redo"):
            source, target = (back, forth) if event["event"] == "undo" else (forth, back)
            of = n  # nothing, where the line with the edit is lost
            if source:
                of = source.pop()
                target.append(of)
        elif event.get("title"):
            back.append(n)
            forth.clear()
        yield line(n, step.event.pop("time", step.at) or step.at, step.part, event, of)


def _steps(root: Path, path: Path) -> Iterator[_Step]:
    kind, *names = path.relative_to(root).parts
    at, lines = "", path.read_bytes().split(b"\n")
    for number, raw in enumerate(lines, 1):
        event = _event(raw)
        if event is None and (not raw.strip() or number == len(lines)):
            continue  # empty, or torn: it was never confirmed
        if event is not None:
            at = max(at, str(event.get("time", "")))
        where = str(path), number
        if event is None:
            yield _Step(at, where, "", None, raw)
        elif kind == "journal":
            part = f"annotation:{event.pop('document', 'he')}"
            event.setdefault("event", "edit")
            if event["event"] == "edit":
                event["title"] = str(event.get("title") or "edit")
            yield _Step(at, where, part, event, raw)
        elif kind == "corrections":
            yield _Step(at, where, f"correction:{names[0]}", _correction(event), raw)
        else:
            yield _Step(at, where, f"qa:{names[0]}", _rating(event), raw)


def _event(raw: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(raw)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _correction(event: dict[str, Any]) -> dict[str, Any]:
    event.setdefault("event", "add")
    if event["event"] == "add":
        event["title"] = "correction"
        with contextlib.suppress(InputError):
            made = Correction.from_dict(event.get("correction") or {})
            event["title"] = describe_correction(made)
    return event


def _rating(event: dict[str, Any]) -> dict[str, Any]:
    known = {"object": "object", "field": "field", "overall_rating": "overall"}
    kind = next((word for key, word in known.items() if key in event), "sample")
    event["event"] = kind
    if kind != "sample":
        event["title"] = f"rating of {'the whole' if kind == 'overall' else kind}"
    return event
