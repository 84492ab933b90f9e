"""A record on disk of everything a reader does, written before it appears on the screen.

One file per reader, one JSON object per line.  Every line is flushed and synchronised to the disk
before `Journal.append` returns; a line that was torn by a crash was never confirmed and is
ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from napari_mosaik.core import CaseLocked, CorruptArtifact, InputError
from napari_mosaik.core.readers import reader_of

__all__ = ["Journal", "read_journal"]


class Journal:
    """An append-only file of events, locked by one process at a time.

    Parameters
    ----------
    path
        File; created with its folder if absent.  A torn last line is removed on opening.

    Raises
    ------
    CaseLocked
        If another process holds the journal.
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last_written: datetime | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{self.path}.lock", thread_local=False)  # closed by any thread
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CaseLocked(
                f"the journal of reader {reader_of(self.path)} is open in another program "
                f"({self.path.name}); close it there, or give another reader"
            ) from None
        except OSError as error:
            raise InputError(f"the journal {self.path} cannot be written: {error}") from error
        try:
            self._file = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> FileIO:
        try:
            file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - held until close()
            _mend_tail(file)
        except OSError as error:
            raise InputError(f"the journal {self.path} cannot be written: {error}") from error
        return file

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event with the time; it is on the disk when this method returns.

        Raises
        ------
        InputError
            If the disk is full or the journal was closed; nothing is recorded then.
        """
        if self._file.closed:
            raise InputError(f"the journal {self.path.name} is closed; open the case again")
        now = datetime.now(UTC)
        line = json.dumps({"time": now.isoformat(timespec="milliseconds"), **event})
        size = self._file.seek(0, os.SEEK_END)
        try:
            _write_whole(self._file, line.encode() + b"\n")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(size)
            raise InputError(
                f"nothing was changed: the journal {self.path.name} cannot be written ({error}); "
                "free some space and try again"
            ) from error
        self.last_written = now

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        return read_journal(self.path)

    def close(self) -> None:
        """Close the file and release the lock; safe to call twice."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_journal(path: str | Path, *, salvage: bool = False) -> list[dict[str, Any]]:
    """All events of a journal, oldest first; none if the file is absent.

    Parameters
    ----------
    path
        The journal.
    salvage
        Return the events before a damaged line instead of raising.

    Raises
    ------
    CorruptArtifact
        If a line other than the last cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        event = _parse(line)
        if event is not None:
            events.append(event)
        elif line.strip() and number < len(lines):
            if salvage:
                break
            raise CorruptArtifact(
                f"line {number} of the journal {path.name} is damaged; the {len(events)} events "
                "before it can be restored by reading it with salvage=True"
            )
    return events


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of one line; None if the line is not a complete JSON object."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _mend_tail(file: FileIO) -> None:
    """Remove a torn last line; complete one that lacks only its line break."""
    end = file.seek(0, os.SEEK_END)
    start = _start_of_last_line(file, end)
    file.seek(start)
    tail = file.read(end - start) or b""
    if not tail:
        return
    if _parse(tail) is None:
        file.truncate(start)
    else:
        _write_whole(file, b"\n")


def _write_whole(file: FileIO, data: bytes) -> None:
    """Write all bytes; an unbuffered file may take them in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _start_of_last_line(file: FileIO, end: int, chunk: int = 65536) -> int:
    """Position after the last line break; 0 if there is none."""
    stop = end
    while stop > 0:
        begin = max(0, stop - chunk)
        file.seek(begin)
        position = (file.read(stop - begin) or b"").rfind(b"\n")
        if position >= 0:
            return begin + position + 1
        stop = begin
    return 0
