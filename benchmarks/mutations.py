"""Open and read damaged slides: each must end in pixels or in one clear line, never worse.

python benchmarks/mutations.py [--count 2000] [--seed 0] [--first 0] [--only WORD] [--json]
                               [--keep DIR]

Small slides of many formats, made here (and real ones of ../shared/data/wsi), are damaged in
seeded ways: cut off, bits flipped, header numbers made extreme, directories looped, tags edited and
so on.  Each is opened and read in a worker process: its facts by the command `slide`, the whole of
it at a coarse pixel size, regions at level 0, its digest; every third leaves damaged tiles out.
An outcome is a valid read, a clear error (one line), or a failure: a crash, another exception, more
than 10 s, or more than 2 GiB of memory.  Prints a table by damage and by format; exit code 1 if
there was any failure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from _mutants_seeds import Seed, add_scanner_seeds, make_seeds, picture
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data" / "wsi"
LIMIT_S = 10.0
"""Most seconds for one file: on the clock, or of computing where other programs keep it waiting."""
WAIT_S = 60.0
LIMIT_BYTES = 2 << 30
GUARD_BYTES = 6 << 30
"""Address space of a worker: keeps the machine alive; the limit is on resident memory."""
WORKERS = 2


# --- in the worker -------------------------------------------------------------------------------
def work() -> None:
    """Read file names from standard input, one a line, and answer each with one line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (GUARD_BYTES, GUARD_BYTES))
    warm_up()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began, computed = time.monotonic(), time.process_time()
        outcome, text = judge(Path(job["path"]), job["number"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = min(time.monotonic() - began, time.process_time() - computed)
        answer = {"outcome": outcome, "text": text, "peak": peak, "seconds": seconds}
        print(json.dumps(answer), flush=True)


def warm_up() -> None:
    """Read a sound slide once: the time of imports and compiling is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.tif"
        Image.fromarray(picture()).save(path, compression="tiff_adobe_deflate")
        outcome, text = judge(path, 0)
        if outcome != "read":
            raise SystemExit(text)


def judge(path: Path, number: int) -> tuple[str, str]:
    """Open and read one file: ("read" | "error" | "fail", what was said)."""
    from napari_mosaik.core import MosaikError

    try:
        exit_code, said = _facts(path)
        if exit_code:
            lines = [line for line in said.splitlines() if line.startswith("napari-mosaik: ")]
            if exit_code != 2 or len(lines) != 1:
                return "fail", f"the command ended with {exit_code}: {said[-300:]}"
        _read(path, number)
    except MosaikError as error:
        text = str(error)
        return ("error", text) if "\n" not in text else ("fail", f"more than one line: {text}")
    except Exception as error:  # noqa: BLE001 - any other exception is what is looked for
        where = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where[-4:]))
        return "fail", f"{type(error).__name__}: {error} ({places})"
    return ("error", said.strip()) if exit_code else ("read", "")


def _facts(path: Path) -> tuple[int, str]:
    """Exit code and words of ``napari-mosaik slide FILE --json``."""
    from napari_mosaik.cli import main

    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            main(["slide", str(path), "--spacing", "0.5", "--json"])
        except SystemExit as end:
            return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()


def _read(path: Path, number: int) -> None:
    """The whole slide at a coarse pixel size, some regions of level 0, and its digest."""
    from napari_mosaik.io import open_slide

    rng = random.Random(number)
    with open_slide(path, 0.5, damaged="skip" if number % 3 == 0 else "stop") as slide:
        rows, columns = slide.lattice.shape
        slide.digest()
        slide.thumbnail(max(rows, columns) * 0.5 / 64)
        for _ in range(4):
            corner = (rng.random() * rows * 0.5, rng.random() * columns * 0.5)
            slide.read(corner, (100.0, 100.0), 0.5)
        if number % 3 == 0 and rows * columns < 1 << 26:
            list(slide.find_damage())
            slide.valid_mask(slide.working_lattice(8.0))


# --- outside -------------------------------------------------------------------------------------
class Worker:
    """One worker process; started again after a failure."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to one job; what the worker cannot say itself is said for it."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        answer = self._line(process, WAIT_S)
        if answer is None:
            code = process.poll()
            self.stop()
            if code is None:
                return {"outcome": "fail", "text": f"not ended after {WAIT_S:g} s"}
            return {"outcome": "fail", "text": f"the process ended with {code}"}
        if answer["seconds"] > LIMIT_S:
            answer |= {"outcome": "fail", "text": f"{answer['seconds']:.1f} s"}
        if answer["peak"] > LIMIT_BYTES:
            self.stop()
            answer |= {"outcome": "fail", "text": f"{answer['peak'] / 2**30:.1f} GiB of memory"}
        elif answer["peak"] > LIMIT_BYTES // 2:
            self.stop()  # so that the next file's memory is its own
        return answer

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        if self._line(self._process, 120.0) is None:
            raise SystemExit("the worker process does not start")
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[str], seconds: float) -> dict[str, Any] | None:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else ""
        if ready and not line:
            process.wait(5)
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found


def seeds(folder: Path) -> dict[str, Seed]:
    """Undamaged slides of all formats that can be made or found here."""
    sys.path.insert(0, str(ROOT / "tests" / "io"))
    import slide_formats

    found = make_seeds(folder / "plain", REAL if REAL.is_dir() else None)
    return found | add_scanner_seeds(folder / "scanners", slide_formats)


def run(
    first: int, count: int, seed: int, only: str, folder: Path, keep: Path | None
) -> Iterator[dict[str, Any]]:
    """Make, open and judge damaged files number *first* to *first + count*."""
    sources = seeds(folder)
    names = sorted(name for name in sources if only.lower() in name.lower())
    everyone = [Worker() for _ in range(WORKERS)]
    workers: SimpleQueue[Worker] = SimpleQueue()
    for worker in everyone:
        workers.put(worker)

    def one(number: int) -> dict[str, Any]:
        name = names[number % len(names)]
        place = folder / f"{number:06d}"
        place.mkdir()
        kind, path = sources[name].damaged(place, seed * 1_000_003 + number)
        worker = workers.get()
        try:
            answer = worker.ask({"path": str(path), "number": number})
        finally:
            workers.put(worker)
        if answer["outcome"] == "fail" and keep is not None:
            shutil.copytree(place, keep / place.name, dirs_exist_ok=True)
        shutil.rmtree(place)
        return {"number": number, "format": name, "damage": kind, **answer}

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(one, range(first, first + count))
    finally:
        for worker in everyone:
            worker.stop()


def table(found: list[dict[str, Any]], by: str) -> str:
    """Counts of the outcomes, one row for each kind of damage or format."""
    counts: Counter[tuple[str, str]] = Counter((one[by], one["outcome"]) for one in found)
    rows = [f"| {by} | files | valid read | clear error | failure |", "|---|---|---|---|---|"]
    for name in sorted({one[by] for one in found}):
        each = [counts[name, outcome] for outcome in ("read", "error", "fail")]
        rows.append(f"| {name} | {sum(each)} | {' | '.join(map(str, each))} |")
    each = [
        sum(one["outcome"] == outcome for one in found) for outcome in ("read", "error", "fail")
    ]
    rows.append(f"| all | {sum(each)} | {' | '.join(map(str, each))} |")
    return "\n".join(rows)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only formats whose name holds this word")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="where files that failed are kept")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return work()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = list(
            run(given.first, given.count, given.seed, given.only, Path(folder), given.keep)
        )
    slowest = max((one.get("seconds", WAIT_S) for one in found), default=0.0)
    peak = max((one.get("peak", 0) for one in found), default=0)
    failed = [one for one in found if one["outcome"] == "fail"]
    if given.json:
        print(json.dumps({"files": found, "seconds": time.monotonic() - began}))
    else:
        print(f"{table(found, 'damage')}\n\n{table(found, 'format')}\n")
        print(f"slowest {slowest:.1f} s, peak memory {peak / 2**20:.0f} MiB, "
              f"all in {time.monotonic() - began:.0f} s")  # fmt: skip
        for one in failed:
            print(f"FAIL {one['number']} {one['format']}, {one['damage']}: {one['text']}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
