"""How the house stands: size, names, imports, docstrings and words of the package, counted.

    python benchmarks/house.py [--json] [--list KEY] [--root DIR]

The counts of files that a newcomer touches come from the tests in ``tests/howto``, which add a toy
step, slide format, PET format, tool and layer colour, and take them away again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from _house import House

BARS = {
    "lines": 53_000,
    "new_step_files": 5,
    "new_step_widgets": 0,
    "new_slide_format_files": 1,
    "new_pet_format_files": 1,
    "new_tool_files": 1,
    "layer_colour_files": 1,
    "import_circles": 0,
    "homonyms": 0,
    "single_importers": 50,
    "no_shape": 0,
    "no_unit": 0,
    "old_words": 0,
}
LISTS = (
    "import_circles",
    "homonyms",
    "single_importers",
    "no_shape",
    "no_unit",
    "compiled_functions",
    "old_words",
)
TOYS = tuple(key for key in BARS if key.startswith("new_") or key == "layer_colour_files")


def touched_files(root: Path) -> dict[str, int | None]:
    """What the tests in ``tests/howto`` counted; None for a test that did not pass.

    They need a display: the one there is, or a virtual one (``.ci/with-display``).  Why a test did
    not count is one line on standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "howto.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/howto", f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1"]  # the only one with properties of a test
        display = root / ".ci" / "with-display"
        if display.is_file() and shutil.which("sh"):
            command = ["sh", str(display), *command]
        subprocess.run(command, cwd=root, check=False, stdout=subprocess.DEVNULL)
        counted: dict[str, int | None] = dict.fromkeys(TOYS)
        if not report.is_file():
            print("not counted: the tests in tests/howto could not be run", file=sys.stderr)
            return counted
        for case in ElementTree.parse(report).iter("testcase"):
            why = next((part for key in _OUTCOMES for part in case.iter(key)), None)
            if why is not None:
                reason = str(why.get("message")).splitlines()[0]
                print(f"not counted: {case.get('name')}: {reason}", file=sys.stderr)
                continue
            for entry in case.iter("property"):
                counted[str(entry.get("name"))] = int(str(entry.get("value")))
    return counted


_OUTCOMES = ("failure", "error", "skipped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--list", choices=(*LISTS, "texts"), help="print the entries behind one count, or all texts"
    )
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    options = parser.parse_args()
    house = House(options.root.resolve())
    if options.list == "texts":
        print("\n".join(f"{where}: {text}" for where, text in house.texts()))
        return
    if options.list:
        print("\n".join(getattr(house, options.list)()))
        return
    figures: dict[str, int | None] = {"lines": house.lines()}
    figures |= touched_files(house.root)
    figures |= {key: len(getattr(house, key)()) for key in LISTS}
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        bar = f"  (bar {BARS[key]:,})" if key in BARS else ""
        print(f"{key:24} {'not counted' if value is None else f'{value:,}'}{bar}")


if __name__ == "__main__":
    main()
