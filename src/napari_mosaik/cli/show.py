"""What the command line shows: a progress bar with time left, tables, JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

import typer

from napari_mosaik.cli.interrupt import Ears
from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.journal import journal_damage
from napari_mosaik.core.progress import TimeLeft, run_to_end

__all__ = ["Bar", "drive", "figure", "print_json", "table"]

T = TypeVar("T")


class Bar:
    """A progress bar on the error stream; plain lines where that is not a terminal.

    A line is written once its work has taken a while or the next work begins: input that is refused
    at once leaves one line, the error.  Lines with the time left are also written while the work
    tells nothing.
    """

    DELAY_S = 2.0
    EVERY_S = 10.0
    """Without a terminal: seconds between lines with the share that is done and the time left."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True, emoji=False)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._last = self._pending = ""
        self._latest, self._left = Progress(0, 1, ""), TimeLeft()
        self._began = self._last_line = 0.0
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=1.0, left="")
        self._turn = threading.RLock()
        """Lines are written by the work and by the clock."""
        self._ears = Ears(self._bar.stop, self._tell)

    def __enter__(self) -> Bar:
        self._bar.start()
        self._ears.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._ears.close()
        if kind is None:
            self._write_pending()
        self._bar.stop()

    def _write_pending(self) -> None:
        if self._pending and not self._quiet:
            self._console.print(self._pending, highlight=False, markup=False)
        self._pending = ""

    def line(self, text: str) -> None:
        """Write a line of other work above the bar."""
        if not self._quiet:
            with self._turn:
                self._write_pending()
                self._console.print(text, highlight=False, markup=False)

    def show(self, what: str, progress: Progress) -> None:
        """Move the bar; *what* is also written as a line."""
        with self._turn:
            if what != self._last:
                self._write_pending()
                self._last = self._pending = what
                self._began = self._last_line = time.monotonic()
                self._left = TimeLeft()
                self._bar.reset(self._task, total=1.0)
            self._latest = progress
            self._left.reach(progress.fraction, progress.found, progress.text)
            self._tell()
            text = self._text()
            self._bar.update(
                self._task,
                completed=progress.fraction,
                description=f"  {text}"[:60],
                left=_in_words(self._left.seconds()),
            )

    def _text(self) -> str:
        return self._latest.text if self._latest.text != self._last else ""

    def _tell(self) -> None:
        """Write what is due."""
        with self._turn:
            now = time.monotonic()
            if now - self._began > self.DELAY_S:
                self._write_pending()
            is_due = now - self._last_line >= self.EVERY_S and self._latest.fraction < 1
            if self._last and is_due and not self._live and not self._quiet:
                self._last_line = now
                text, left = self._text(), _in_words(self._left.seconds())
                line = ", ".join(filter(None, (f"{self._latest.fraction:.0%}", left)))
                line = f"  {text}: {line}" if text else f"  {line}"
                self._console.print(line, highlight=False, markup=False)


def _in_words(seconds: float | None) -> str:
    """A time that is left in words; empty where it is unknown."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


def drive(work: Generator[Progress, None, T], what: str, bar: Bar) -> T:
    """Run a piece of work to its end, showing its progress; an interrupt closes it cleanly."""
    return run_to_end(work, lambda progress: bar.show(what, progress))


def print_json(value: Any) -> None:
    """Write one JSON document to the standard output; NaN becomes null.

    Letters that the console cannot show are escaped, so that no program reads a wrong one.  Damage
    of a reader's journal that was read for it is among its ``warnings``.
    """
    damage = journal_damage()
    if damage and isinstance(value, Mapping):
        value = {**value, "warnings": [*value.get("warnings", ()), *damage]}
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    ascii_only = encoding != "utf8"
    typer.echo(json.dumps(_plain(value), indent=1, ensure_ascii=ascii_only, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def figure(value: float | None, digits: int = 3) -> str:
    """A number with three significant digits; "not available" where there is none."""
    if value is None or value != value:
        return "not available"
    return f"{value:.{digits}g}"


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False
) -> None:
    """A plain table on the standard output; numbers to the right, *words* to the left.

    Brackets and colons in a cell are what they are: ``[injection]`` is a section of ``case.toml``.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(header):
        shown.add_column(name, justify="left" if words or number == 0 else "right")
    for row in rows:
        shown.add_row(*row)
    Console(file=sys.stdout, highlight=False, markup=False, emoji=False).print(shown)
