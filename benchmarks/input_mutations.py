"""Damage what users bring and what the program stores: each ends in a result or in one line.

python benchmarks/input_mutations.py [--count 5000] [--seed 0] [--first 0] [--only WORD] [--json]
                                     [--cohort DIR] [--keep DIR]

Inputs of all kinds (case.toml, recipe.toml, GeoJSON, corrections, packages, landmark tables,
matrices, DICOM, NIfTI, sidecars, Inveon, slides, journals, stored results, models; plans, time
courses, kernels, organs and dose maps of the dose what-if; scans of the living patient with their
masks and tables, invivo.csv, the stored twin) are damaged in seeded ways: bytes, text, numbers,
words, structure, encoding.  The commands that read them run in a process of their own.

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
import math
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
WAIT_S = 600.0
CPU_S = 60
"""Seconds by the clock, and of computing, after which a command is ended."""
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
    is_text = path.suffix in (
        ".toml",
        ".json",
        ".jsonl",
        ".geojson",
        ".csv",
        ".tsv",
        ".txt",
        ".hdr",
    )
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
    card = next((path for path in cards if '"mosaik"' not in path.read_text("utf-8")), cards[0])
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


def _packages(place: Path, rng: random.Random) -> Commands:
    case = str(place / CASE)
    return [
        ["annotate", "merge", case, str(place / "he.zip"), "--reader", "B", "--json"],
        ["models", "import", case, str(place / "model.zip"), "--json"],
    ]


def _of_shapes(place: Path, rng: random.Random) -> Commands:
    out = str(place / "out.geojson")
    return [
        ["status", str(place), "--json"],
        ["annotate", "export", str(place), out, "--reader", "A", "--json"],
    ]


def _corrections(place: Path, rng: random.Random) -> Commands:
    return [["correct", str(place), str(place / "missed.geojson"), "--what", "tissue_he",
             "--reader", "A", "--json"]]  # fmt: skip


def _in_vivo(place: Path, rng: random.Random) -> Commands:
    which = rng.choice((["--sphere", "-7,48.75,120.5,7"], ["--mask", str(place / "seg.dcm"),
                        "--label", "1"], ["--mask", str(place / "rt.dcm")],
                       ["--mask", str(place / "mask.nii")]))  # fmt: skip
    series = rng.choice(("day3", "pet.nii"))
    more = ["--fwhm-mm", "4.6", "--same-patient", "--store", "--replace", "--json"]
    case, path = str(place / "patient"), str(place / series)
    return [["invivo", "measure", case, path, "--region", "tumour", *which, *more]]


def _of_invivo(place: Path, rng: random.Random) -> Commands:
    twin = ["twin", rng.choice(("status", "update", "predict")), str(place), "--json"]
    return [["invivo", "show", str(place), "--json"], twin]


def _activity_table(place: Path, rng: random.Random) -> Commands:
    return [["invivo", "import", str(place / CASE), str(place / "tac.tsv"), "--region", "tumour",
             "--relative-error", "0.05", "--decay-reference", "injection", "--json"]]  # fmt: skip


def _of_twin(place: Path, rng: random.Random) -> Commands:
    return [["twin", which, str(place), "--json"] for which in ("status", "curve")]


def _of_plan(place: Path, rng: random.Random) -> Commands:
    return [["status", str(place), "--json"], ["dose", str(place), "--plan", "one", "--json"]]


def _organs(place: Path, rng: random.Random) -> Commands:
    which = rng.choice((("--organs", "organs.csv"), ("--dose-map", "dose.nii")))
    case = str(place / CASE)
    return [["dose", case, "--plan", "one", which[0], str(place / which[1]), "--json"]]


def _dose_tables(place: Path, rng: random.Random) -> Commands:
    curve, kernel, case = (str(place / name) for name in ("curve.csv", "kernel.csv", CASE))
    return rng.choice(
        (
            [["dose", "--curve", curve, "--nuclide", "Lu-177", "--json"]],
            [["dose", case, "--plan", "one", "--shape", curve, "--json"]],
            [["dose", case, "--plan", "one", "--kernel", kernel, "--json"]],
        )
    )


_IN_VIVO = {
    "Units": "Bq/mL", "TracerRadionuclide": "Zr89", "InjectedRadioactivity": 37.0,
    "InjectedRadioactivityUnits": "MBq", "TimeZero": "10:30:00", "ScanDate": "2024-03-04",
    "InjectionStart": 0, "ScanStart": 261000, "FrameTimesStart": [261000], "FrameDuration": [1200],
    "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 261000, "BodyWeight": 80,
    "BodyHeight": 1.8, "PatientSex": "M",
}  # fmt: skip


def _kernel_rows() -> str:
    """A kernel of three shells in water, as tables of Monte Carlo programs hold it."""
    from napari_mosaik.dosimetry import KERNEL_COLUMNS

    rows, inner = [",".join(KERNEL_COLUMNS)], 0.0
    for radius, energy in ((0.01, 0.06), (0.02, 0.03), (0.04, 0.01)):
        mass = 4 / 3 * math.pi * (radius**3 - inner**3)
        rows.append(f"{radius},{energy},0.001,{mass},{energy / mass}")
        inner = radius
    return "\n".join(rows) + "\n"


def _planned(folder: Path, case: Path) -> Path:
    """A copy of the case with a plan and its doses, and a twin that has taken in two scans."""
    planned = folder / "planned" / CASE
    shutil.copytree(case, planned)
    plan = ["--nuclide", "Lu-177", "--activity-mbq", "3000", "--courses", "0,56", "--plan", "one"]
    for command in (
        ["dose", str(planned), *plan, "--set", "dose.draws=100"],
        ["twin", "update", str(planned)],
        ["twin", "update", str(planned)],
        ["twin", "decide", str(planned), "--plan", "one", "--by", "A"],
    ):
        end = ended(command, folder)
        if end.code:
            raise SystemExit(f"{' '.join(command)}: {end.errors}")
    return planned


def _newer_inputs(folder: Path, planned: Path) -> Path:
    """Scans of the patient, masks, tables and packages beside a case that can use them."""
    from tests import pet_series
    from tests.io.test_pet_volume import MASK, STORED, boxes

    from napari_mosaik.io import create_case
    from napari_mosaik.io.case_file import CaseFile

    made = folder / "newer"
    shutil.copytree(planned, made / CASE, ignore=shutil.ignore_patterns("truth", "invivo"))
    injected = {"nuclide": "Zr-89"}
    create_case(made / "patient", CaseFile(name="A2", patient="patient 1", injection=injected))
    pet_series.pet_series(made / "day3", STORED)
    pet_series.segmentation(made / "seg.dcm", MASK)
    pet_series.contours(made / "rt.dcm", {4: boxes()})
    pet_series.nifti_volume(made / "mask.nii", MASK)
    pet_series.nifti_volume(made / "pet.nii", STORED * pet_series.SLOPE)
    (made / "pet.json").write_text(json.dumps(_IN_VIVO, indent=1))
    hours = ["0.5", "4", "24", "72", "120", "168"]
    rows = "".join(f"{h}\t{5 + n}.25\n" for n, h in enumerate(hours))
    (made / "tac.tsv").write_text("time_h\tmean\n" + rows)
    (made / "tac.json").write_text(json.dumps({"mean": {"Units": "SUVbw"}}, indent=1))
    rows = "".join(f"{h},{0.01 * (n + 1)}\n" for n, h in enumerate(hours))
    (made / "curve.csv").write_text("time_h,activity_mbq_ml\n" + rows)
    names = ("liver,0.3,30", "kidney,0.5,23", "marrow,0.02,2")
    (made / "organs.csv").write_text("organ,mgy_per_mbq,limit_gy\n" + "\n".join(names) + "\n")
    (made / "kernel.csv").write_text(_kernel_rows())
    case, model = str(made / CASE), sorted((made / CASE / "models").iterdir())[0].name
    for command in (
        ["dose", case, "--plan", "one", "--activity-map", str(made / "dose.nii")],
        ["annotate", "import", case, str(folder / "inputs" / "shapes.geojson"), "--reader", "A"],
        ["annotate", "package", case, str(made / "he.zip"), "--reader", "A"],
        ["models", "export", case, model, str(made / "model.zip")],
    ):
        end = ended(command, folder)
        if end.code:
            raise SystemExit(f"{' '.join(command)}: {end.errors}")
    return made


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
    planned = _planned(folder, case)
    newer = _newer_inputs(folder, planned)
    shutil.copy(inputs / "shapes.geojson", planned / "missed.geojson")
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
        "journals of readers": Kind(newer / CASE, ("readers/**/*", "annotations/*"), _of_shapes),
        "corrections": Kind(planned, ("missed.geojson",), _corrections),
        "packages": Kind(newer, ("he.zip", "model.zip"), _packages),
        "plans": Kind(planned, ("plans/*.toml",), _of_plan),
        "dose tables": Kind(newer, ("curve.csv", "kernel.csv"), _dose_tables),
        "organs and dose maps": Kind(newer, ("organs.csv", "dose.nii"), _organs),
        "invivo.csv": Kind(planned, ("invivo.csv",), _of_invivo),
        "scans in vivo": Kind(
            newer, ("day3/*", "pet.nii", "pet.json", "seg.dcm", "rt.dcm", "mask.nii"), _in_vivo
        ),
        "tables in vivo": Kind(newer, ("tac.tsv", "tac.json"), _activity_table),
        "twin": Kind(planned, ("twin/**/*",), _of_twin, stored=True),
        "doses": Kind(planned, ("artifacts/dose*/*",), _of_plan, stored=True),
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
        seconds = max(seconds, CPU_S)
    texts = (path.read_text("utf-8", "replace") for path in (out, err))
    return Ended(code, *texts, seconds, usage.ru_maxrss * 1024)


def _child(arguments: Sequence[str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
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
