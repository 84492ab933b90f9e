"""How long a step goes on computing after Cancel, for every step of a case and the nuclei network.

python benchmarks/cancel.py [--case FOLDER | --size quick] [--slide FILE] [--steps NAME ...]
                            [--tries 5] [--busy N] [--json]

Each step of a sample case that is up to date runs again (*--force*) on a thread, and is cancelled
at moments spread over the time that it takes; what is measured is the time from the
request until nothing computes any more.  *--slide* is a slide on which the nuclei network runs.
*--busy N* keeps N other processes busy meanwhile.

Bar: <= 1 s for every try.  Exit code 1 when it is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from napari_mosaik.core.errors import Cancelled
from napari_mosaik.core.progress import cancellable, run_to_end
from napari_mosaik.io import Case
from napari_mosaik.phantom import sample
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run, run_until
from napari_mosaik.workflow.segment_picture import segment_picture
from napari_mosaik.workflow.steps import STEPS

LIMIT_S = 1.0


def timed(work, cancel_after_s=None):
    """Seconds until *work* (a generator) ends, or from its cancellation until it has stopped."""
    asked, error = threading.Event(), []

    def drive():
        try:
            with cancellable(asked.is_set):
                run_to_end(work(), lambda _: asked.is_set() and stop())
        except Cancelled:
            return
        except Exception as problem:  # noqa: BLE001 - reported by the caller
            error.append(problem)

    def stop():
        raise Cancelled("asked")

    thread, began = threading.Thread(target=drive), time.monotonic()
    thread.start()
    thread.join(cancel_after_s)
    if thread.is_alive():
        began = time.monotonic()
        asked.set()
    elif cancel_after_s is not None:
        began = time.monotonic()  # the step was faster this time: nothing was left to stop
    thread.join()
    if error:
        raise error[0]
    return time.monotonic() - began


def measured(work, tries, rng):
    """Times of a computation: the whole, and from the request to its end, at several moments."""
    whole = timed(work)
    moments = [(number + rng.random()) / tries for number in range(tries)]
    waits = [timed(work, whole * moment) for moment in moments]
    return {
        "whole_s": round(whole, 3),
        "median_s": round(statistics.median(waits), 3),
        "max_s": round(max(waits), 3),
        "at": round(moments[waits.index(max(waits))], 2),
    }


def made_case(folder, size):
    """A sample case that is up to date."""
    (root, *_) = run_to_end(sample(folder, size, 0, ["A2"]))
    case = Case(root)
    run_to_end(run_until(case, read_recipe(case.root)))
    return root


def of_slide(slide, tries, rng):
    """The nuclei network on a slide."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.tif"
        return measured(lambda: segment_picture("nuclei", slide, out), tries, rng)


def of_case(root, names, tries, rng):
    """Every step of a case that is done, or those of the given names."""
    case = Case(root)
    recipe = read_recipe(case.root)
    states = case_status(case, recipe).states
    for step in STEPS:
        if (names and step.name not in names) or states[step.name].word != "done":
            continue
        again = partial(run, case, step, recipe[step.name], recipe=recipe, force=True)
        yield step.name, measured(again, tries, rng)


def results(options):
    """Name and times of everything that is measured."""
    rng = random.Random(0)
    if options.slide:
        yield "nuclei network", of_slide(options.slide, options.tries, rng)
    if options.case:
        yield from of_case(options.case, options.steps, options.tries, rng)
    elif not options.slide or options.steps:
        with tempfile.TemporaryDirectory() as folder:
            root = made_case(Path(folder), options.size)
            yield from of_case(root, options.steps, options.tries, rng)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", type=Path)
    parser.add_argument("--size", default="quick")
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--steps", nargs="*")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    busy = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(busy) for _ in range(options.busy)]
    found, late = {}, []
    try:
        for name, one in results(options):
            found[name] = one
            if one["max_s"] > LIMIT_S:
                late.append(name)
            if not options.json:
                values = "  ".join(f"{key} {value}" for key, value in one.items())
                print(f"{name:22} {values}{'  LATE' if name in late else ''}", flush=True)
    finally:
        for other in others:
            other.kill()
    if options.json:
        print(json.dumps({"limit_s": LIMIT_S, "steps": found, "late": late}, indent=1))
    return bool(late)


if __name__ == "__main__":
    raise SystemExit(main())
