"""What becomes of each step of a case when something goes wrong in the middle of it.

python benchmarks/faults.py CASE [--faults clock interrupt kill disk slide memory]
       [--steps STEP ...] [--tries 2] [--seed 0] [--memory-gib 3] [--json]
python benchmarks/faults.py CASE --whole 10 [--anywhere] [--seed 0] [--json]

CASE is a finished case, such as the one of `real_size.py --quick --keep DIR`; the faults happen to
a copy of it.  Every step that is done there is computed by `run CASE --step STEP` in a process of
its own, first undisturbed, and then

clock      in this process: the longest silence, and how far the time left is off after a tenth, a
           quarter and half of its processor time
interrupt  with Ctrl-C at random moments: until the line about it, and until the process has ended
kill       with kill -9 at random moments, going on each time: processor seconds that are lost
disk       on a file system that is full after so many bytes that it happens at each of four stages
slide      with one of its slides removed, and cut to a third, while it runs
memory     with so much address space

and after each fault the same command without it must give the results of the undisturbed run, byte
for byte; only the record of time and duration may differ.  A fault must end in one line and exit
code 2 (interrupt: 130), or the step must end well.  Exit code 1 where anything else happens.
`disk` mounts a small file system and needs the rights to do so.

With --whole a run of all steps, from nothing, is killed so many times (kill -9), each time a random
moment after a step that is drawn, and goes on; with --anywhere at random moments of the processor
time of the undisturbed run, so that long steps are hit as often as they are long.  In the end every
result must be that of the undisturbed run, and no step or block that was finished at a kill may
have been computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from napari_mosaik.core import progress
from napari_mosaik.core.artifact import Progress, Source
from napari_mosaik.io import Case
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import STEPS, step_named

PROGRAM = [sys.executable, "-m", "napari_mosaik"]
ERROR = "napari-mosaik: "
ACKNOWLEDGED_S, STOPPED_S, SILENT_S, OFF, LOST_S = 0.1, 1.0, 1.0, 0.3, 10.0
"""Bars: of an interrupt, of the progress (s), of the time left, of a kill (processor seconds)."""
SHORT_S = 3.0
"""Steps that take less processor time need no time left, s."""
START_S = 1.5
"""Processor seconds of a command before it computes; each of two starts pays them."""
MIDST_S = 1.5
"""Processor seconds after a step within which a whole run is killed."""
STAGES = (0.0, 0.2, 0.6, 0.95)
"""Parts of the room that a step needs, at which the disk is full."""


@dataclass
class Ended:
    """How a command ended: exit code, clock and processor seconds, lines with their moments."""

    code: int
    wall_s: float
    processor_s: float
    lines: list[tuple[float, str]] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """The lines that tell an error; a traceback counts as many."""
        return [text for _, text in self.lines if _is_error(text)]

    @property
    def is_refused(self) -> bool:
        """Whether it ended with one line and exit code 2."""
        return self.code == 2 and len(self.errors) == 1


def _is_error(line: str) -> bool:
    told = line.startswith(ERROR) and not line.startswith(f"{ERROR}warning")
    return told or "Traceback" in line


def run_step(
    root: Path,
    step: str = "",
    at: Callable[[subprocess.Popen[str]], object] | None = None,
    before: Callable[[], object] | None = None,
) -> Ended:
    """Run a step, all if empty; *at* gets the process once it runs, *before* is called in it."""
    group = Path("/proc/self/autogroup")  # Linux shares the cores out among sessions
    share = group.read_text().split()[-1] if group.exists() else ""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background ignores Ctrl-C
        with suppress(OSError):
            group.write_text(share)  # that of this session; a new one begins without
        if before is not None:
            before()

    process = subprocess.Popen(
        [*PROGRAM, "run", str(root), *(["--step", step] if step else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )
    began, lines = time.monotonic(), list[tuple[float, str]]()

    def read() -> None:
        assert process.stderr is not None
        lines.extend((time.monotonic(), line.rstrip()) for line in process.stderr)

    reader = threading.Thread(target=read)
    reader.start()
    if at is not None:
        at(process)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    return Ended(process.returncode, wall, used.ru_utime + used.ru_stime, lines)


def after(seconds: float, act: Callable[[subprocess.Popen[str]], object]) -> Any:
    """Do something to a process after some seconds, if it still runs."""

    def wait(process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.02)
        act(process)

    return wait


def in_the_midst(
    has_come: Callable[[], bool], seconds: float, act: Callable[[subprocess.Popen[str]], object]
) -> Any:
    """Do something to a process so many of its processor seconds after something has come."""
    per_second = os.sysconf("SC_CLK_TCK")

    def wait(process: subprocess.Popen[str]) -> None:
        due: float | None = None
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            after_name = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            spent = sum(map(int, after_name[11:13])) / per_second
            if due is None and has_come():
                due = spent + seconds
            if due is not None and spent >= due:
                act(process)
                return
            time.sleep(0.02)

    return wait


def _kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL; `Popen.kill` would take the end of one that has ended from `run_step`."""
    os.kill(process.pid, signal.SIGKILL)


class Trials:
    """One step of the copy of a case, and what is wrong with it."""

    def __init__(self, root: Path, step: Step[Any], pristine: Path, tries: int, seed: int) -> None:
        self.root, self.step, self.pristine, self.tries = root, step, pristine, tries
        self.chance = random.Random(f"{seed} {step.name}")
        self.wrong: list[str] = []
        self.found: dict[str, Any] = {}
        self.digests: dict[str, str] = {}

    @cached_property
    def calm(self) -> Ended:
        """The undisturbed run, and what it stored."""
        self.reset()
        calm = run_step(self.root, self.step.name)
        if calm.code:
            raise SystemExit(f"{self.step.name} undisturbed: {calm.lines[-1:]}")
        self.digests = self.content()
        self.found |= {"wall_s": round(calm.wall_s, 1), "processor_s": round(calm.processor_s, 1)}
        return calm

    def reset(self) -> None:
        """As if the step had never run."""
        forget(self.root, [self.step])

    def content(self) -> dict[str, str]:
        """Digests of all that the step has stored, but its record of time and duration."""
        return content(self.root, [self.step])

    def expect(self, is_right: bool, what: str) -> None:
        """Note what is wrong."""
        if not is_right:
            self.wrong.append(what)

    def go_on(self, after_what: str) -> Ended:
        """The same command without the fault: it ends well, with the same results."""
        ended = run_step(self.root, self.step.name)
        self.expect(ended.code == 0, f"after {after_what}: code {ended.code} {ended.errors}")
        self.expect(self.content() == self.digests, f"after {after_what}: other results")
        left = [str(one.relative_to(self.root)) for one in self.root.glob("scratch/*")]
        left += [one.name for one in self.root.glob("artifacts/.staging*")]
        self.expect(not left, f"after {after_what}: left {left}")
        return ended

    # --- faults -----------------------------------------------------------------------------------
    def clock(self) -> None:
        """Silence and time left, of an undisturbed run in a process of its own."""
        self.reset()
        trace = [sys.executable, __file__, str(self.root), "--trace", self.step.name]
        told = subprocess.run(trace, check=True, stdout=subprocess.PIPE, text=True)
        self.found |= (found := json.loads(told.stdout.splitlines()[-1]))
        silent = min(found["silent_s"], found["silent_processor_s"])
        self.expect(silent <= SILENT_S, f"silent for {silent:.1f} s ({found['silent_at']})")
        off = found.get("off_at_a_tenth")
        self.expect(off is None or abs(off) <= OFF, f"time left off by {off} after a tenth")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.reset()
        waits = {"acknowledged_s": [], "stopped_s": []}
        for _ in range(2 * self.tries):
            if len(waits["stopped_s"]) == self.tries:
                break
            sent: list[float] = []

            def stop(process: subprocess.Popen[str], sent: list[float] = sent) -> None:
                sent.append(time.monotonic())
                os.kill(process.pid, signal.SIGINT)

            moment = self.chance.uniform(0.1, 0.9) * self.calm.wall_s
            began = time.monotonic()
            ended = run_step(self.root, self.step.name, after(moment, stop))
            if not sent or ended.code == 0:
                self.reset()  # it had ended: the other tries need something to do
                continue
            self.expect(ended.code == 130, f"Ctrl-C at {moment:.1f} s: code {ended.code}")
            self.expect(len(ended.errors) == 1, f"Ctrl-C at {moment:.1f} s: {ended.errors}")
            told = [at - sent[0] for at, text in ended.lines if text.startswith(ERROR)]
            waits["acknowledged_s"] += told[:1]
            waits["stopped_s"].append(began + ended.wall_s - sent[0])
            late = waits["stopped_s"][-1] > STOPPED_S or (told and told[0] > ACKNOWLEDGED_S)
            self.expect(not late, f"Ctrl-C at {moment:.1f} s: {told[:1]}, {waits['stopped_s'][-1]}")
        self.found |= {key: round(max(waits[key], default=0.0), 3) for key in waits}
        self.found["interrupts"] = len(waits["stopped_s"])
        self.go_on("Ctrl-C")

    def kill(self) -> None:
        """SIGKILL."""
        self.reset()
        spent, kills = 0.0, 0
        for _ in range(2 * self.tries):
            if kills == self.tries:
                break
            moment = self.chance.uniform(0.3, 1.0) * self.calm.wall_s
            ended = run_step(self.root, self.step.name, after(moment, _kill))
            spent += ended.processor_s - START_S
            if ended.code == 0:  # it had ended: the other tries need something to do
                spent -= self.calm.processor_s - START_S
                self.reset()
            kills += ended.code == -signal.SIGKILL
        spent += self.go_on(f"{kills} kills").processor_s
        lost = spent - self.calm.processor_s
        self.found |= {"kills": kills, "lost_s": round(max(0.0, lost) / max(1, kills), 1)}
        # Without blocks a step begins again: it may take no longer than a block.
        self.expect(self.found["lost_s"] <= LOST_S, f"a kill costs {self.found['lost_s']} s")

    def memory(self, gib: float = 3.0) -> None:
        """Little address space: the step ends well, or with one line."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)

        self.reset()
        ended = run_step(self.root, self.step.name, before=limit)
        if ended.code:
            self.expect(ended.is_refused, f"{gib:g} GiB: code {ended.code} {ended.lines[-3:]}")
        self.found[f"memory_{gib:g}_gib"] = ended.errors[0] if ended.errors else "works"
        self.go_on(f"{gib:g} GiB of memory")

    def slide(self) -> None:
        """A slide that goes away, or becomes shorter, while it is read."""
        for entry in (*self.step.reads, *self.step.may_read):
            if not isinstance(entry, Source) or entry.kind != "slide":
                continue
            file = self.root / "slides" / f"{entry.key}.tif"
            whole = self.pristine / "slides" / file.name
            for name, act in (("removed", file.unlink), ("cut", lambda: _cut(file))):  # noqa: B023
                self.reset()
                moment = self.chance.uniform(0.4, 0.9) * self.calm.wall_s
                hit = after(moment, lambda _, act=act: act())
                ended = run_step(self.root, self.step.name, hit)
                if ended.code:
                    words = f"{entry.key} {name}: code {ended.code} {ended.lines[-3:]}"
                    self.expect(ended.is_refused, words)
                self.found[f"{entry.key} {name}"] = (ended.errors or ["works"])[0]
                shutil.copy2(whole, file)
                self.go_on(f"{entry.key} {name}")

    def disk(self) -> None:
        """A full disk, at several stages of what the step writes."""
        with tempfile.TemporaryDirectory() as place, _file_system(Path(place)) as small:
            moved, own = small / "case", self.root
            shutil.copytree(own, moved, symlinks=True, ignore=shutil.ignore_patterns("slides"))
            (moved / "slides").symlink_to(own / "slides")
            self.root = moved
            try:
                self.reset()
                free = most = shutil.disk_usage(small).free
                ended = threading.Event()

                def watch() -> None:
                    nonlocal most
                    while not ended.wait(0.02):
                        most = min(most, shutil.disk_usage(small).free)

                watcher = threading.Thread(target=watch)
                watcher.start()
                calm = run_step(moved, self.step.name)
                ended.set()
                watcher.join()
                self.expect(calm.code == 0, f"on another file system: {calm.errors}")
                self.expect(self.content() == self.digests, "on another file system: other results")
                for stage in STAGES:
                    self._full(small, int(stage * (free - most)))
            finally:
                self.root = own

    def _full(self, small: Path, room: int) -> None:
        self.reset()
        filler, what = small / "filler", f"a disk with {room} bytes"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(small).free - room))
        ended = run_step(self.root, self.step.name)
        filler.unlink()
        if ended.code:
            self.expect(ended.is_refused, f"{what}: code {ended.code} {ended.lines[-3:]}")
            self.expect("full" in "".join(ended.errors), f"{what}: {ended.errors}")
        told = self.found.setdefault("full_disk", [])
        told.append((ended.errors or ["works"])[0].replace(str(self.root), "CASE"))
        self.go_on(what)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 3)


@contextmanager
def _file_system(place: Path, mib: int = 256) -> Iterator[Path]:
    """A file system of its own in a folder."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "faults", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def forget(root: Path, steps: Sequence[Step[Any]]) -> None:
    """As if the steps had never run."""
    for artifact in (one for step in steps for one in step.writes):
        shutil.rmtree(root / "artifacts" / artifact.name, ignore_errors=True)
    for place in (*root.glob("scratch/*"), *root.glob("earlier/*")):
        shutil.rmtree(place, ignore_errors=True)


def content(root: Path, steps: Sequence[Step[Any]]) -> dict[str, str]:
    """Digests of all that steps have stored, but the record of time and duration."""
    found = {}
    for artifact in (one for step in steps for one in step.writes):
        folder = root / "artifacts" / artifact.name
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "record.json":
                digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
                found[str(path.relative_to(folder.parent))] = digest
    return found


def finished(root: Path) -> dict[str, int]:
    """When (ns) each stored result and each finished block in scratch was written, by its path."""
    results = root.glob("artifacts/*/record.json")
    blocks = (one for one in root.glob("scratch/**/*.npz") if zipfile.is_zipfile(one))
    return {str(one.relative_to(root)): one.stat().st_mtime_ns for one in (*results, *blocks)}


def whole(
    root: Path, steps: Sequence[Step[Any]], kills: int, seed: int, anywhere: bool = False
) -> dict[str, Any]:
    """Kill a run of all steps at random moments; what was lost, and what is wrong."""
    forget(root, steps)
    calm = run_step(root)
    if calm.code:
        raise SystemExit(f"undisturbed: {calm.lines[-1:]}")
    expected, start = content(root, steps), run_step(root).processor_s
    forget(root, steps)
    chance, wrong = random.Random(f"{seed} whole"), list[str]()
    spent, done, at = 0.0, 0, list[str]()
    records = [root / "artifacts" / step.writes[0].name / "record.json" for step in steps]

    def n_stored() -> int:
        return sum(record.exists() for record in records)

    due = _moments(len(steps), kills, calm.processor_s if anywhere else None, start, chance)
    known: dict[str, int] = {}
    for number, moment in due:
        reached = partial(lambda least: n_stored() >= least, number)
        ended = run_step(root, "", in_the_midst(reached, moment, _kill))
        spent, done = spent + ended.processor_s, done + (ended.code == -signal.SIGKILL)
        known = _still_known(known, found := finished(root), f"at kill {done}", wrong) | found
        blocks = sum(name.startswith("scratch") for name in found)
        at.append(f"{n_stored()} steps and {blocks} blocks of the next done")
    last = run_step(root)
    spent += last.processor_s
    if last.code:
        wrong.append(f"at last: code {last.code} {last.errors}")
    _still_known(known, finished(root), "at last", wrong)
    if content(root, steps) != expected:
        wrong.append("other results")
    if left := [one.name for one in (*root.glob("scratch/*"), *root.glob("artifacts/.staging*"))]:
        wrong.append(f"left {left}")
    lost = (spent - calm.processor_s - done * start) / max(1, done)
    if lost > LOST_S or done < kills:
        wrong.append(f"{done} kills, each cost {lost:.1f} s")
    return {
        "processor_s": round(calm.processor_s, 1),
        "kills": done,
        "lost_s": round(lost, 1),
        "files": len(expected),
        "killed_with": at,
        "wrong": wrong,
    }


def _moments(
    steps: int, kills: int, whole_s: float | None, start_s: float, chance: random.Random
) -> list[tuple[int, float]]:
    """After how many stored steps, and how many processor seconds more, a run is killed."""
    if whole_s is None:
        drawn = sorted(chance.sample(range(steps), kills))
        return [(number, chance.uniform(0.0, MIDST_S)) for number in drawn]
    moments = sorted(chance.uniform(0.0, whole_s) for _ in range(kills))
    return [(0, start_s + other - one) for one, other in pairwise([0.0, *moments])]


def _still_known(
    before: dict[str, int], now: dict[str, int], when: str, wrong: list[str]
) -> dict[str, int]:
    """What was finished before and is still there; what was written again is wrong."""
    again = [name for name, moment in now.items() if before.get(name, moment) != moment]
    wrong.extend(f"{when}: {name} was computed again" for name in again)
    return {name: moment for name, moment in before.items() if name in now}


def trace(root: Path, name: str) -> dict[str, Any]:
    """Run a step in this process: its longest silence, and errors of the time left."""
    from napari_mosaik.workflow.run import run

    case, step = Case(root), step_named(name)
    recipe = read_recipe(case.root)
    points = [
        (time.monotonic(), time.process_time(), report)
        for report in run(case, step, recipe[name], recipe=recipe)
    ]
    silent = max(
        (other[0] - one[0], other[1] - one[1], one[2].text) for one, other in pairwise(points)
    )
    began, end = points[0][1], points[-1][1]
    found: dict[str, Any] = {
        "computes_s": round(end - began, 2),
        "silent_s": round(silent[0], 2),
        "silent_processor_s": round(silent[1], 2),
        "silent_at": silent[2],
        "shares": _shares(points),
    }
    if end - began >= SHORT_S:
        for words, share in (("a_tenth", 0.1), ("a_quarter", 0.25), ("half", 0.5)):
            due = began + share * (end - began)
            told = _time_left([(at, report) for _, at, report in points if at <= due], due)
            found[f"off_at_{words}"] = None if told is None else round(told / (end - due) - 1, 2)
    return found


def _time_left(reports: list[tuple[float, Progress]], now_s: float) -> float | None:
    """What is told at a moment after these reports, on the clock of the processor."""
    clock = [reports[0][0]]
    with patch.object(progress.time, "monotonic", lambda: clock[0]):
        left = progress.TimeLeft()
        for clock[0], report in reports:
            left.reach(report.fraction, report.found, report.text)
        clock[0] = now_s
        return left.seconds()


def _shares(points: list[tuple[float, float, Progress]]) -> dict[str, list[float]]:
    """Of each text: the share at which it is first told, and that of the processor time."""
    began, end = points[0][1], points[-1][1]
    found: dict[str, list[float]] = {}
    for _, at, report in points:
        share = (at - began) / max(end - began, 1e-9)
        found.setdefault(report.text, [round(report.fraction, 3), round(share, 3)])
    return found


def tried(trials: Trials, given: argparse.Namespace) -> dict[str, Any]:
    """What the faults that were asked for did to a step."""
    for fault in given.faults:
        if fault != "clock":
            _ = trials.calm
        extra = (given.memory_gib,) if fault == "memory" else ()
        getattr(trials, fault)(*extra)
    return {**trials.found, "wrong": trials.wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", type=Path)
    faults = ("clock", "interrupt", "kill", "disk", "slide", "memory")
    parser.add_argument("--faults", nargs="+", choices=faults, default=faults)
    parser.add_argument("--steps", nargs="+", metavar="STEP")
    parser.add_argument("--whole", type=int, default=0, metavar="KILLS")
    parser.add_argument("--anywhere", action="store_true")
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-gib", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trace", metavar="STEP", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trace:
        print(json.dumps(trace(given.case, given.trace)))
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / given.case.name
        shutil.copytree(given.case, root, symlinks=True)
        states = case_status(Case(root)).states
        if given.whole:
            done = [step for step in STEPS if states[step.name].word == "done"]
            told = whole(root, done, given.whole, given.seed, given.anywhere)
            print(json.dumps(told, indent=1, ensure_ascii=False))
            return int(bool(told["wrong"]))
        for step in STEPS:
            if (given.steps and step.name not in given.steps) or states[step.name].word != "done":
                continue
            found[step.name] = tried(Trials(root, step, given.case, given.tries, given.seed), given)
            if not given.json:
                print(step.name, json.dumps(found[step.name], ensure_ascii=False), flush=True)
    if given.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    with suppress(BrokenPipeError):
        bad = [name for name, one in found.items() if one["wrong"]]
        print(f"{len(found)} steps, {len(bad)} with something wrong: {', '.join(bad)}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
