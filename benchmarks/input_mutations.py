"""Damage what users bring and what the program stores: each ends in a result or in one line.

python benchmarks/input_mutations.py [--count 5000] [--seed 0] [--first 0] [--only WORD] [--json]
                                     [--cohort DIR] [--keep DIR]

Inputs of all kinds (case.toml, recipe.toml, GeoJSON, landmark tables, matrices, DICOM, NIfTI,
sidecars, Inveon, slides, journals, stored results, models) are damaged in seeded ways: bytes, text,
numbers, words, structure, encoding.  The commands that read them run in a process of their own.

An outcome is a valid result (exit code 0; standard error holds nothing but the program's warnings
and progress), a clear error (exit code 2 and one line), or a failure: another exit code, a
traceback, a warning of Python, more than 10 s of computing, more than 2 GiB, or, where the damaged
file is a stored result or a model, another result than that of the undamaged one.  (A damaged
number that a user typed is another valid number.)  `--cohort` names a finished cohort (of
``napari-mosaik demo --size tiny``); without it one is made.  Exit code 1 if there was a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _mutants import mutate

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 10.0
WAIT_S = 90.0
LIMIT_BYTES = 2 << 30
CASE = "B11"
Commands = Sequence[Sequence[str]]


# --- ways of damage ------------------------------------------------------------------------------
NUMBERS = ("nan", "inf", "-1", "0", "1e308", "1e-308", "999999999999", "-0.0", "0.1", "true", "''",
           "null", '"a"', "[]", "{}", "1,5", "0x10", "٣", "½")  # fmt: skip
WORDS = (
    "",
    " ",
    "\u0000",
    "None",
    "he",
    "../x",
    "/etc/passwd",
    "ß" * 300,
    "李",
    "a\nb",
    "🙂",
    "%s",
)
ENCODINGS = ("utf-16", "utf-8-sig", "utf-16-be", "latin-1", "cp1252", "cp932", "utf-32")


def damaged_text(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A slip of a hand or of another program in a text file."""
    text = data.decode("utf-8", "replace")
    kind = rng.choice(("number", "word", "line lost", "line doubled", "lines swapped", "encoding"))
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    if kind == "number":
        places = list(re.finditer(r"-?\d+(\.\d+)?", text))
        return kind, _replaced(rng, text, places, NUMBERS)
    if kind == "word":
        places = list(re.finditer(r"[A-Za-z_]+", text))
        return kind, _replaced(rng, text, places, WORDS)
    if kind == "encoding":
        return kind, text.encode(rng.choice(ENCODINGS), "replace")
    if kind == "line lost":
        del lines[at]
    elif kind == "line doubled":
        lines.insert(at, lines[at])
    else:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    return kind, "".join(lines).encode("utf-8", "replace")


def _replaced(
    rng: random.Random, text: str, places: list[re.Match[str]], values: Sequence[str]
) -> bytes:
    if not places:
        return b""
    place = rng.choice(places)
    new = text[: place.start()] + rng.choice(values) + text[place.end() :]
    return new.encode("utf-8", "replace")


def damaged_document(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """A value of a JSON document is another one, of another kind, or missing."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return damaged_text(rng, data)
    parent, key = rng.choice(places)
    if rng.random() < 0.3:
        del parent[key]
        return "entry lost", json.dumps(document).encode()
    parent[key] = rng.choice(
        (None, True, [], {}, "", "x", -1, 0, 1e308, float("nan"), [[]], 10**30, [None, {}])
    )
    return "entry changed", json.dumps(document).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        places.append((value, key))
        if isinstance(item, dict | list):
            _collect(item, places)


def damaged(rng: random.Random, path: Path) -> str:
    """Damage a file in place; returns the kind of damage."""
    data = path.read_bytes()
    is_text = path.suffix in (".toml", ".json", ".jsonl", ".geojson", ".csv", ".txt", ".hdr")
    draw = rng.random()
    if draw < 0.03:
        path.write_bytes(b"")
        return "empty"
    if draw < 0.05:
        path.unlink()
        return "missing"
    kind, new = "", b""
    if is_text and draw < 0.5 and data.lstrip()[:1] in b"{[" and path.suffix != ".jsonl":
        with contextlib.suppress(ValueError):
            kind, new = damaged_document(rng, data)
    elif is_text and draw < 0.85:
        kind, new = damaged_text(rng, data)
    if not kind:
        kind, new = mutate(data or b"\0", rng.randrange(1 << 30))
    path.write_bytes(new)
    return kind


# --- what is damaged, and who reads it -----------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """A kind of input: its undamaged folder, patterns of its files, and the commands."""

    source: Path
    files: tuple[str, ...]
    commands: Callable[[Path, random.Random], Commands]
    stored: bool = False
    """Whether the program wrote it, so that a result must be that of the undamaged file."""

    def found(self, place: Path) -> list[Path]:
        """The files that may be damaged, in a copy of the folder."""
        files = {path for pattern in self.files for path in place.glob(pattern)}
        return sorted(path for path in files if path.is_file())


def _suv(name: str, *more: str) -> Callable[[Path, random.Random], Commands]:
    return lambda place, rng: [["suv", str(place / name), "--json", "--kind", "bw", *more]]


def _of_case(place: Path, rng: random.Random) -> Commands:
    return [
        ["status", str(place), "--json"],
        ["run", str(place), "--step", rng.choice(("suv", "tiles", "maps", "kinetics"))],
    ]


def _of_results(place: Path, rng: random.Random) -> Commands:
    more = rng.choice(
        (
            ["review-queue", str(place), "--json"],
            ["corrections", str(place), "--json"],
            ["predict", str(place), "--json"],
            ["report", str(place), "--out", str(place / "r.html")],
            ["run", str(place), "--step", "maps", "--force"],
        )
    )
    return [["status", str(place), "--json"], more]


def _of_models(place: Path, rng: random.Random) -> Commands:
    cards = sorted(place.glob("models/*/card.json"))
    card = next((path for path in cards if '"classes"' in path.read_text("utf-8")), cards[0])
    segment = ["segment", "classes", str(place / "slides" / "he.tif"), "--model", str(card.parent),
               "--out", str(place / "o.tif"), "--region", "0,0,200,200", "--json"]  # fmt: skip
    return [["status", str(place), "--json"], rng.choice((segment, ["predict", str(place)]))]


def _landmarks(place: Path, rng: random.Random) -> Commands:
    return [["set-alignment", str(place / CASE), "he", "--landmarks", str(place / "landmarks.csv"),
             "--landmarks-cd34", str(place / "cd34.csv"), "--json"]]  # fmt: skip


def _matrix(place: Path, rng: random.Random) -> Commands:
    return [["set-alignment", str(place / CASE), "he", "--matrix", str(place / "matrix.txt")]]


def _shapes(place: Path, rng: random.Random) -> Commands:
    return [["annotate", "import", str(place / CASE), str(place / "shapes.geojson"), "--reader",
             "A", "--add", "--json"]]  # fmt: skip


def _slide(place: Path, rng: random.Random) -> Commands:
    return [["slide", str(place / "he.tif"), "--json"]]


def kinds(folder: Path, cohort: Path) -> dict[str, Kind]:
    """Every kind of input, made in *folder* from a finished cohort."""
    sys.path.insert(0, str(ROOT))
    from tests.io import test_pet as dicom
    from tests.io import test_pet_other as pet

    case, inputs = cohort / CASE, folder / "inputs"
    inputs.mkdir()
    shutil.copytree(case, inputs / CASE, ignore=shutil.ignore_patterns("artifacts", "truth"))
    shutil.copy(next(cohort.glob("*/annotations/he.geojson")), inputs / "shapes.geojson")
    dicom.dataset().save_as(inputs / "pet.dcm", enforce_file_format=True)
    shutil.copy(case / "slides" / "he.tif", inputs / "he.tif")
    rows = "".join(f"{n},{50 + 70 * n % 300},{40 + 90 * n % 250}\n" for n in range(6))
    (inputs / "landmarks.csv").write_text("index,X,Y\n" + rows)
    (inputs / "cd34.csv").write_text("index,X,Y\n" + rows)
    (inputs / "matrix.txt").write_text("1 0.01 5\n-0.01 1 3\n0 0 1\n")
    for name in ("a.nii", "b.nii.gz"):
        pet.nifti(inputs / name, axes=(-1, -1, 1))
        (inputs / f"{name[0]}.json").write_text(json.dumps(pet.SIDECAR, indent=1))
    pet.inveon(inputs)
    inveon = sorted(path.name for path in inputs.glob("*.img*"))
    return {
        "case.toml": Kind(case, ("case.toml",), _of_case),
        "recipe.toml": Kind(case, ("recipe.toml",), _of_case),
        "GeoJSON": Kind(inputs, ("shapes.geojson",), _shapes),
        "landmarks": Kind(inputs, ("landmarks.csv",), _landmarks),
        "matrix": Kind(inputs, ("matrix.txt",), _matrix),
        "DICOM": Kind(inputs, ("pet.dcm",), _suv("pet.dcm")),
        "NIfTI": Kind(inputs, ("a.nii",), _suv("a.nii")),
        "NIfTI gz": Kind(inputs, ("b.nii.gz",), _suv("b.nii.gz")),
        "sidecar": Kind(inputs, ("a.json",), _suv("a.nii")),
        "Inveon": Kind(
            inputs, tuple(inveon), _suv(inveon[0], "--frame-index", "0", "--weight-kg", "0.025")
        ),
        "slide": Kind(inputs, ("he.tif",), _slide),
        "case files": Kind(case, ("journal/*", "slides/*", "pet/*"), _of_case),
        "results": Kind(case, ("artifacts/**/*",), _of_results, stored=True),
        "models": Kind(case, ("models/*/*",), _of_models, stored=True),
    }


# --- running the commands ------------------------------------------------------------------------
@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str
    seconds: float
    peak: int


def ended(arguments: Sequence[str], folder: Path) -> Ended:
    """Run a command in a fork of this process, which has imported all and started no thread."""
    out, err = folder / "out.txt", folder / "err.txt"
    pid = os.fork()
    if pid == 0:
        _child(arguments, out, err)
    began = time.monotonic()
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > WAIT_S:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    seconds = min(usage.ru_utime + usage.ru_stime, time.monotonic() - began)
    if code == -signal.SIGKILL:
        seconds = WAIT_S
    texts = (path.read_text("utf-8", "replace") for path in (out, err))
    return Ended(code, *texts, seconds, usage.ru_maxrss * 1024)


def _child(arguments: Sequence[str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    code = 1
    try:
        from napari_mosaik.cli import main

        main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - a traceback is what is looked for
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fault(end: Ended) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    lines = [line for line in end.errors.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("napari-mosaik: ")]
    warned = [line for line in own if line.startswith("napari-mosaik: warning: ")]
    if end.seconds > LIMIT_S:
        return f"{end.seconds:.0f} s"
    if end.peak > LIMIT_BYTES:
        return f"{end.peak / 2**30:.1f} GiB"
    if end.code not in (0, 2):
        return f"exit code {end.code}: {' / '.join(lines[-3:])}"
    if "Warning" in end.errors or "Traceback" in end.errors:
        return f"Python speaks: {' / '.join(lines[-3:])}"
    if len(own) - len(warned) != (1 if end.code else 0):
        return f"{len(own) - len(warned)} lines at exit code {end.code}: {' / '.join(lines)[-200:]}"
    return ""


def _check_undamaged(kind: Kind, folder: Path) -> None:
    """Every command works on the undamaged input, or what follows shows nothing."""
    for seed in range(5):
        place = folder / "copy"
        shutil.copytree(kind.source, place)
        for command in kind.commands(place, random.Random(seed)):
            end = ended(command, folder)
            if end.code or fault(end):
                raise SystemExit(f"undamaged: {' '.join(command)}: {end.errors}")
        shutil.rmtree(place)


def judged(kind: Kind, seed: int, folder: Path, known: dict[str, str]) -> dict[str, Any]:
    """Damage one file of a copy of the undamaged folder, and run the commands that read it."""
    rng = random.Random(seed)
    place = folder / "copy"
    shutil.copytree(kind.source, place)
    path = rng.choice(kind.found(place))
    commands = kind.commands(place, rng)
    for command in commands if kind.stored else ():
        key = " ".join(command)
        if key not in known:
            known[key] = ended(command, folder).output
            shutil.rmtree(place)
            shutil.copytree(kind.source, place)
    before = path.read_bytes()
    answer: dict[str, Any] = {"file": str(path.relative_to(place)), "damage": damaged(rng, path)}
    unchanged = path.is_file() and path.read_bytes() == before
    outcome, text, said = "read", "", ""
    for command in commands:
        end = ended(command, folder)
        answer["seconds"] = max(answer.get("seconds", 0.0), end.seconds)
        answer["peak"] = max(answer.get("peak", 0), end.peak)
        text = fault(end)
        said = said or end.errors.strip()[-300:]
        if not text and kind.stored and end.code == 0 and not unchanged:
            text = _difference(end.output, known[" ".join(command)], command[0])
        if text:
            return answer | {"outcome": "fail", "text": f"{command[0]}: {text}"}
        if end.code == 2:
            outcome = "error"
    return answer | {"outcome": outcome, "text": said}


def _difference(output: str, known: str, command: str) -> str:
    """Whether a result differs from that of the undamaged file without a word."""
    if output == known:
        return ""
    if command == "status":
        steps = next(iter(json.loads(output).values()))["steps"].values()
        return "" if any(step["state"] != "done" for step in steps) else "another status"
    if "damaged" in output or command == "run":
        return ""
    return f"another result: {output[:150]!r}"


def run(
    first: int, count: int, seed: int, only: str, cohort: Path, keep: Path | None
) -> Iterator[dict[str, Any]]:
    """Judge the damaged inputs number *first* to *first + count*."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything = kinds(folder, cohort)
        names = [name for name in everything if only.lower() in name.lower()]
        known: dict[str, str] = {}
        for which in names:
            _check_undamaged(everything[which], folder)
        for number in range(first, first + count):
            which = names[number % len(names)]
            answer = judged(everything[which], seed * 1_000_003 + number, folder, known)
            if answer["outcome"] == "fail" and keep is not None:
                shutil.copytree(folder / "copy", keep / f"{number:06d}", dirs_exist_ok=True)
            shutil.rmtree(folder / "copy")
            yield {"number": number, "kind": which, **answer}


def table(found: list[dict[str, Any]]) -> str:
    """Counts of the outcomes, one row for each kind of input."""
    counts = Counter((one["kind"], one["outcome"]) for one in found)
    rows = ["| input | damaged | valid result | clear error | failure |", "|---|---|---|---|---|"]
    for name in [*sorted({one["kind"] for one in found}), None]:
        each = [
            sum(n for (kind, what), n in counts.items() if what == outcome and name in (kind, None))
            for outcome in ("read", "error", "fail")
        ]
        rows.append(f"| {name or 'all'} | {sum(each)} | {' | '.join(map(str, each))} |")
    return "\n".join(rows)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only kinds whose name holds this word")
    parser.add_argument("--cohort", type=Path, help="a finished cohort of the tiny demo")
    parser.add_argument("--keep", type=Path, help="where inputs that failed are kept")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    import torch  # noqa: F401 - imported once, before the forks

    from napari_mosaik.view.report import content  # noqa: F401
    from napari_mosaik.workflow import run as _  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        cohort = given.cohort
        if cohort is None:
            cohort = Path(folder) / "demo" / "cohort"
            arguments = ["demo", "--size", "tiny", "--out", str(cohort.parent), "--headless"]
            if ended(arguments, Path(folder)).code:
                raise SystemExit("the tiny demo cannot be made")
        began, found = time.monotonic(), []
        for one in run(given.first, given.count, given.seed, given.only, cohort, given.keep):
            found.append(one)
            if one["outcome"] == "fail" and not given.json:
                print(f"FAIL {one['number']} {one['kind']}: {one['file']}, {one['damage']}: "
                      f"{one['text']}", flush=True)  # fmt: skip
    failed = sum(one["outcome"] == "fail" for one in found)
    if given.json:
        print(json.dumps({"inputs": found, "failed": failed}))
    else:
        slowest, peak = (max(one[key] for one in found) for key in ("seconds", "peak"))
        print(f"\n{table(found)}\n\nslowest {slowest:.1f} s, peak memory {peak / 2**20:.0f} MiB, "
              f"all in {time.monotonic() - began:.0f} s")  # fmt: skip
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
