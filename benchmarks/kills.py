"""Kill the program at random moments, go on, and compare the results with an undisturbed run.

python benchmarks/kills.py [--kills 20] [--seed 0] [--size tiny] [--out DIR]

The main job on the sample cohort (tissue classifier, all steps of every case, training of the
network, prediction) is run as a chain of commands.  Each command is killed (SIGKILL to its process
group) at random moments and given again until it ends by itself.  At the end every artifact,
recipe and model must equal, byte by byte, those of an undisturbed run; only the record of time and
duration may differ.  Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TEST_CASE = "B11"


def chain(cohort: Path) -> list[list[str]]:
    """The commands of the main job."""
    cases = sorted(str(path.parent) for path in cohort.glob("*/case.toml"))
    training = [case for case in cases if not case.endswith(TEST_CASE)]
    into = [word for case in cases for word in ("--into", case)]
    return [
        *(["run", case, "--until", "stain"] for case in training),
        ["retrain", *training, *into],
        ["run", *cases],
        ["train", str(cohort), "--test", TEST_CASE],
        ["run", str(cohort / TEST_CASE)],
    ]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """One command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "napari_mosaik", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(command: list[str]) -> float:
    """Run a command to its end; seconds."""
    began = time.monotonic()
    process = start(command)
    _, told = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {told.decode()}")
    return time.monotonic() - began


def kill(command: list[str], after_s: float) -> bool:
    """Start a command and kill it after some seconds; False when it had ended before."""
    process = start(command)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    process.communicate()
    return False


def content(cohort: Path) -> dict[str, str]:
    """Digest of every file that must be equal."""
    return {str(path.relative_to(cohort)): _digest(path) for path in _files(cohort)}


def _files(cohort: Path) -> Iterator[Path]:
    for case in sorted(path.parent for path in cohort.glob("*/case.toml")):
        yield case / "recipe.toml"
        for part in ("artifacts", "models"):
            for path in sorted((case / part).rglob("*")):
                if path.is_file() and path.name != "record.json":
                    yield path


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == "card.json":
        import json

        card = json.loads(data)
        card.pop("times", None)
        data = json.dumps(card, sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def main() -> int:
    """Undisturbed run, disturbed run, comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = options.out or Path(scratch)
        calm, rough = place / "calm" / "cohort", place / "rough" / "cohort"
        finish(["sample", str(calm), "--size", options.size])
        shutil.copytree(calm, rough)
        seconds = [finish(command) for command in chain(calm)]
        kills = disturb(rough, seconds, options.kills, random.Random(options.seed))
        one, other = content(calm), content(rough)
    different = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    print(f"{kills} kills, {len(one)} files compared, {len(different)} different")
    for key in different[:20]:
        print(f"  different: {key}")
    return int(bool(different) or kills < options.kills)


def disturb(cohort: Path, seconds: list[float], kills: int, chance: random.Random) -> int:
    """Run the chain with kills spread over it by how long each command takes."""
    commands = chain(cohort)
    total = sum(seconds)
    moments = sorted(chance.uniform(0, total) for _ in range(kills))
    done, begun = 0, 0.0
    for command, length in zip(commands, seconds, strict=True):
        own = [moment - begun for moment in moments if begun <= moment < begun + length]
        for moment in own:
            wait = max(0.5, min(moment, length * 0.8))
            while not kill(command, wait):
                wait *= 0.6
                if wait < 0.3:
                    break
            else:
                done += 1
                print(f"  killed after {wait:5.1f} s: {' '.join(command)[:70]}", flush=True)
        finish(command)
        begun += length
    return done


if __name__ == "__main__":
    sys.exit(main())
