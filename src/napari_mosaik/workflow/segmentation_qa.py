"""The QA record of a case: which segmentation a reader has checked, and how good it is.

    case/qa/vessels/READER.jsonl     one line per judgement, on the disk before the next object

A check belongs to one result (its origin).  When the result changes, the check stays on record as
one of an earlier result and a new one begins.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self, get_args

import numpy as np

from napari_mosaik.annotate import Journal, read_journal
from napari_mosaik.annotate.check import (
    CheckSample,
    CheckSummary,
    Judgement,
    Verdict,
    draw_sample,
    summarise,
)
from napari_mosaik.core.catalogue import OBJECTS, TILES
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.case import Case
from napari_mosaik.io.corrections import objects_now

__all__ = ["CHECKED", "Check", "check_records", "records_csv"]

CHECKED = tuple(OBJECTS)
"""What can be checked object by object: with the corrections by hand once they were applied."""
N_OBJECTS, N_FIELDS = 60, 8


class Check:
    """One reader's check of one segmentation; continues where it was left.

    Parameters
    ----------
    case
        The case.
    what
        "vessels" or "nuclei".
    reader
        Name of the reader.
    n_objects, n_fields, seed
        Size and seed of a sample that is drawn anew; an unfinished check keeps its own.

    Raises
    ------
    InputError
        There is no such result, it has no objects, or the reader's name cannot be used.
    """

    def __init__(
        self,
        case: Case,
        what: str,
        reader: str,
        *,
        n_objects: int = N_OBJECTS,
        n_fields: int = N_FIELDS,
        seed: int = 0,
    ) -> None:
        if what not in CHECKED:
            raise InputError(f"'{what}' cannot be checked; use one of: {', '.join(CHECKED)}")
        if not re.fullmatch(r"[\w.-]{1,40}", reader) or reader.startswith("."):
            raise InputError(f"'{reader}' is no reader's name: use letters, digits, '-' and '_'")
        origin = case.store.origin(objects_now(case.store, what)[0])
        if origin is None:
            raise InputError(
                f"case {case.name} has no {what} yet; run: napari-mosaik run {case.root}"
            )
        self.case, self.what, self.reader = case, what, reader
        self._journal = Journal(_folder(case, what) / f"{reader}.jsonl")
        try:
            self._open(origin.digest(), n_objects, n_fields, seed)
        except BaseException:
            self._journal.close()
            raise

    def _open(self, result: str, n_objects: int, n_fields: int, seed: int) -> None:
        checks = _checks(self._journal.events())
        if not checks or checks[-1]["result"] != result:
            table = self.case.store.read(objects_now(self.case.store, self.what)[1])
            if len(table) == 0:
                raise InputError(
                    f"case {self.case.name} has no {self.what} to be checked: none were found"
                )
            fields = np.zeros(0, np.int64)
            if self.case.store.origin(TILES) is not None:
                fields = np.flatnonzero(self.case.store.read(TILES).inner)
            sample = draw_sample(np.arange(1, len(table) + 1), fields, n_objects, n_fields, seed)
            self._journal.append(
                {"check": self.what, "result": result, "seed": seed, "n": len(table),
                 **asdict(sample)}
            )  # fmt: skip
        self._checks = _checks(self._journal.events())

    @property
    def sample(self) -> CheckSample:
        """What is looked at."""
        return _sample(self._checks[-1])

    @property
    def summary(self) -> CheckSummary:
        """What was found so far."""
        return summarise(self.sample, self._checks[-1]["events"])

    def next_object(self) -> int | None:
        """Label of the first object that nobody has judged; None when all are done."""
        return self._next("object", self.sample.objects)

    def next_field(self) -> int | None:
        """Row of the first tile that nobody has searched; None when all are done."""
        return self._next("field", self.sample.fields)

    def _next(self, key: str, wanted: tuple[int, ...]) -> int | None:
        done = {event.get(key) for event in self._checks[-1]["events"]}
        return next((item for item in wanted if item not in done), None)

    def judge(self, label: int, judgement: Judgement) -> None:
        """Say whether an object of the sample is right; a later word replaces an earlier one."""
        if judgement not in get_args(Judgement) or label not in self.sample.objects:
            raise InputError(f"object {label} of this sample cannot be judged '{judgement}'")
        self._add({"object": int(label), "judgement": judgement})

    def count_missed(self, field: int, found: int, missed: int) -> None:
        """Say how many objects a tile of the sample has, and how many more were missed there."""
        if field not in self.sample.fields or min(found, missed) < 0:
            raise InputError(f"{missed} missed beside {found} found is no count for tile {field}")
        self._add({"field": int(field), "found": int(found), "missed": int(missed)})

    def conclude(self, verdict: Verdict, comment: str = "") -> None:
        """Give the verdict on the whole segmentation."""
        if verdict not in get_args(Verdict):
            raise InputError(
                f"'{verdict}' is no verdict; use one of: {', '.join(get_args(Verdict))}"
            )
        self._add({"verdict": verdict, "comment": comment})

    def _add(self, event: dict[str, Any]) -> None:
        self._journal.append(event)
        self._checks[-1]["events"].append(event)

    def close(self) -> None:
        """Release the reader's journal."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


State = Literal["current", "earlier result"]


def check_records(case: Case) -> list[dict[str, Any]]:
    """All checks of a case, one row each: what, reader, time, rates with intervals, verdict.

    ``state`` says whether the check belongs to the result as it is now.
    """
    rows = []
    for what in CHECKED:
        origin = case.store.origin(objects_now(case.store, what)[0])
        now = None if origin is None else origin.digest()
        for path in sorted(_folder(case, what).glob("*.jsonl")):
            for check in _checks(read_journal(path)):
                state: State = "current" if check["result"] == now else "earlier result"
                rows.append({"what": what, "reader": path.stem, "state": state, **_row(check)})
    return rows


def _row(check: dict[str, Any]) -> dict[str, Any]:
    summary = summarise(_sample(check), check["events"])
    row: dict[str, Any] = {
        "time": check["events"][-1].get("time", check["time"])
        if check["events"]
        else check["time"],
        "objects": check["n"],
        "sample": len(check["objects"]),
    }
    for name in ("right", "wrong", "unsure", "fields", "found", "missed"):
        row[name] = getattr(summary, name)
    for name, rate in (("false", summary.false_rate), ("missed", summary.miss_rate)):
        for part in ("estimate", "low", "high"):
            row[f"{name}_rate_{part}"] = None if rate is None else getattr(rate, part)
    row["finished"] = summary.to_judge == 0 and summary.to_search == 0
    return {**row, "verdict": summary.verdict, "comment": summary.comment}


def records_csv(rows: list[dict[str, Any]]) -> str:
    """The rows of `check_records` as CSV with a header; empty cells where a rate is not known."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _folder(case: Case, what: str) -> Any:
    return case.root / "qa" / what


def _sample(check: Mapping[str, Any]) -> CheckSample:
    return CheckSample(tuple(check["objects"]), tuple(check["fields"]))


def _checks(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The checks of a journal, each with its own events."""
    checks: list[dict[str, Any]] = []
    for event in events:
        if "check" in event:
            checks.append({**event, "events": []})
        elif checks:
            checks[-1]["events"].append(event)
    return checks
