"""Slides at full size: reading, one streaming pass, memory and growth, beside OpenSlide and limits.

python benchmarks/slides.py [--quick] [--skip PART ...] [--looks NAME ...] [--json]

Slides are made (up to 80,000 x 80,000 pixels, one at a time in a temporary folder: at most 2 GB),
measured and removed.  Parts: regions, pass, naive, growth, equal, real, stalls.  Exit code
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _slides_equal import compare_labels
from _slides_make import Look, make_slide
from _slides_naive import n_tiles, naive_tile_s
from _slides_pass import Pass, run_pass
from _slides_read import compare_regions, decode_all_s

HERE = Path(__file__).resolve().parent
REAL = HERE.parents[1] / "shared" / "data" / "wsi" / "CMU-1-Small-Region.svs"
PARTS = ("regions", "pass", "naive", "growth", "equal", "real", "stalls")
LOOKS = (Look(256, True), Look(256, False), Look(512, True), Look(512, False))
MAIN = LOOKS[0]
"""The slide of the parts that use one kind only: the one that is hardest to read."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Edges in pixels and numbers of repetitions."""

    main: int
    growth: tuple[int, ...]
    regions: int
    turns: int
    passes: int
    stalls: tuple[str, ...]


FULL = Sizes(40_000, (10_000, 20_000, 40_000, 80_000), 24, 9, 3, ())
QUICK = Sizes(8_000, (4_000, 8_000), 8, 3, 1, ("--edge", "8000", "--seconds", "5", "--runs", "1"))
STALL_BARS = {
    "stall_p99_ms": "<= 100",
    "stall_max_ms": "<= 250",
    "stall_ratio_p99": ">= 1.5",
    "stall_ratio_max": ">= 1.5",
    "first_frame_s": "<= 1.5",
    "first_frame_flat_s": "<= 1.5",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; *bar* as text, *met* None where there is no bar."""

    name: str
    on: str
    value: float
    bar: str
    met: bool | None
    details: str


@dataclass(slots=True)
class Bench:
    """What has been measured so far, and where."""

    folder: Path
    sizes: Sizes
    threads: int
    naive_tiles: int
    looks: set[str]
    raw: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def told(self, row: Row) -> None:
        """Add a line and show it at once."""
        self.rows.append(row)
        print(_line(row), file=sys.stderr, flush=True)

    def slide(self, edge: int, look: Look = MAIN) -> Path:
        """A made slide; the caller removes it."""
        return make_slide(self.folder / f"{look.name}-{edge}.tif", edge, look)

    def passed(self, slide: Path, *, judged: bool = False) -> Pass:
        """One pass after a warm one; its results are removed."""
        warm = self.folder / "warm.tif"
        if not warm.exists():
            make_slide(warm, 3000, MAIN)
        case = self.folder / "case"
        try:
            return run_pass(slide, case, warm, judged=judged)
        finally:
            shutil.rmtree(case, ignore_errors=True)


def measure_regions(bench: Bench, slide: Path, name: str) -> None:
    found = compare_regions(slide, bench.sizes.regions, bench.threads, bench.sizes.turns)
    bench.raw[f"regions {name}"] = asdict(found)
    details = (
        f"{found.ours_mpx_s:.0f} and {found.openslide_mpx_s:.0f} Mpx/s, largest difference "
        f"{found.largest_difference}, OpenSlide's cache {found.cache_mib} MiB"
    )
    met = found.ratio >= 3 and found.largest_difference == 0
    bench.told(Row("region_ratio", name, found.ratio, ">= 3", met, details))


def measure_pass(bench: Bench, slide: Path, name: str) -> None:
    """Decoding everything, the pass, and the pass with all rules of the program, in turns."""
    turns = []
    for _ in range(bench.sizes.passes):
        limit = decode_all_s(slide, bench.threads)
        turns.append((limit, bench.passed(slide), bench.passed(slide, judged=True)))
    limit = statistics.median(limit for limit, _, _ in turns)
    bench.raw[f"pass {name}"] = [
        {"decode_all_s": d, **asdict(one), "judged": asdict(more)} for d, one, more in turns
    ]
    for column, row, bar in ((1, "pass_ratio", "<= 2"), (2, "pass_ratio_judged", "")):
        seconds = statistics.median(turn[column].seconds for turn in turns)
        used = statistics.median(turn[column].cpu_s for turn in turns)
        ratio = statistics.median(turn[column].seconds / turn[0] for turn in turns)
        details = f"pass {seconds:.1f} s ({used:.1f} s of processors), decoding {limit:.1f} s, "
        details += f"{turns[0][column].vessels} vessels"
        bench.told(Row(row, name, ratio, bar, ratio <= 2 if bar else None, details))


def measure_naive(bench: Bench, slide: Path, edge: int) -> None:
    each = naive_tile_s(slide, edge, bench.naive_tiles, bench.threads)
    whole, ours = each * n_tiles(edge), bench.passed(slide).seconds
    bench.raw["naive"] = {"tile_s": each, "tiles": n_tiles(edge), "pass_s": ours}
    details = f"{each:.2f} s for each of {n_tiles(edge)} tiles on {bench.threads} processes"
    ratio = whole / ours
    bench.told(Row("naive_ratio", f"{MAIN.name}, {edge}²", ratio, ">= 20", ratio >= 20, details))


def measure_growth(bench: Bench) -> None:
    """Time and memory of the pass from small to large."""
    found: dict[int, Pass] = {}
    for edge in bench.sizes.growth:
        slide = bench.slide(edge)
        found[edge] = bench.passed(slide)
        slide.unlink()
    bench.raw["growth"] = {edge: asdict(one) for edge, one in found.items()}
    edges = bench.sizes.growth
    exponent = _slope([2 * math.log(e) for e in edges], [math.log(found[e].seconds) for e in edges])
    details = ", ".join(f"{edge}²: {found[edge].seconds:.1f} s" for edge in edges)
    bench.told(Row("growth_exponent", MAIN.name, exponent, "<= 1.05", exponent <= 1.05, details))
    small, large = found[edges[len(edges) // 2 - 1]], found[edges[-1]]
    where = f"{edges[-1]}² / {edges[len(edges) // 2 - 1]}²"
    ratio = large.peak_mib / small.peak_mib
    details = f"{large.peak_mib:.0f} / {small.peak_mib:.0f} MiB; without pages of files "
    details += f"{large.peak_own_mib:.0f} / {small.peak_own_mib:.0f} MiB"
    bench.told(Row("memory_ratio", where, ratio, "<= 1.2", ratio <= 1.2, details))
    met = large.peak_mib <= 2048
    bench.told(Row("memory_mib", f"{edges[-1]}²", large.peak_mib, "<= 2048", met, ""))


def _slope(x: list[float], y: list[float]) -> float:
    return statistics.linear_regression(x, y).slope


def measure_equality(bench: Bench) -> None:
    edge = 4000
    slide = bench.slide(edge)
    found = compare_labels(slide, bench.folder / "equal")
    slide.unlink()
    bench.raw["equality"] = asdict(found)
    details = f"{found.vessels} vessels, blocks of {', '.join(map(str, found.blocks_px))} pixels"
    bench.told(
        Row("different_pixels", f"{MAIN.name}, {edge}²", found.different, "0",
            found.different == 0, details)
    )  # fmt: skip


def measure_stalls(bench: Bench) -> None:
    """The window's script in a process of its own, which finds or makes a display."""
    command = [sys.executable, str(HERE / "stalls.py"), "--json", *bench.sizes.stalls]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise SystemExit("the part 'stalls' ended without a result; leave it out: --skip stalls")
    bench.raw["stalls"] = found = json.loads(done.stdout)
    plain = f"plain napari: {found['plain_p99_ms']:.0f} and {found['plain_max_ms']:.0f} ms"
    for name, met in found["met"].items():
        bar = STALL_BARS[name]
        bench.told(Row(name, "window, pass running", found[name], bar, met, plain))


def _line(row: Row) -> str:
    mark = {True: "met", False: "MISSED", None: ""}[row.met]
    return f"{row.name:18s} {row.on:26s} {row.value:9.3g}  {row.bar:8s} {mark:7s} {row.details}"


def measure_looks(bench: Bench, parts: set[str]) -> None:
    """What is measured on slides of every kind; each is there only as long as it is needed."""
    edge = bench.sizes.main
    for look in LOOKS:
        if look.name not in bench.looks:
            continue
        slide, name = bench.slide(edge, look), f"{look.name}, {edge}²"
        if "regions" in parts:
            measure_regions(bench, slide, name)
        if "pass" in parts:
            measure_pass(bench, slide, name)
        if "naive" in parts and look == MAIN:
            measure_naive(bench, slide, edge)
        slide.unlink()


def measure_real(bench: Bench) -> None:
    """A real slide beside the project, where there is one."""
    if REAL.is_file():
        measure_regions(bench, REAL, REAL.name)
        measure_pass(bench, REAL, REAL.name)


def run(bench: Bench, parts: set[str]) -> None:
    """All parts."""
    if parts & {"regions", "pass", "naive"}:
        measure_looks(bench, parts)
    others: dict[str, Callable[[Bench], None]] = {
        "growth": measure_growth,
        "equal": measure_equality,
        "real": measure_real,
        "stalls": measure_stalls,
    }
    for part, work in others.items():
        if part in parts:
            work(bench)


def main() -> int:
    """Run the parts and print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small slides, no bar counts")
    parser.add_argument("--skip", nargs="*", choices=PARTS, default=[])
    names = [look.name for look in LOOKS]
    parser.add_argument("--looks", nargs="+", choices=names, default=names, help="kinds of slides")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--naive-tiles", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where slides are made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tiles = options.naive_tiles or (8 if options.quick else 200)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        sizes = QUICK if options.quick else FULL
        bench = Bench(Path(scratch), sizes, options.threads, tiles, set(options.looks))
        run(bench, set(PARTS) - set(options.skip))
    if options.json:
        table = [asdict(row) for row in bench.rows]
        print(json.dumps({"threads": bench.threads, "table": table, "raw": bench.raw}, indent=1))
    else:
        print("\n".join(_line(row) for row in bench.rows))
    return int(not options.quick and any(row.met is False for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
