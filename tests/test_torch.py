"""torch takes seconds to load: only the rooms of the networks load it when they are imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
ROOMS = (
    "napari_mosaik.predictor.",
    "napari_mosaik.segment.densenet.",
    "napari_mosaik.segment.stardist.",
    "napari_mosaik.learning.",
)
HEAVY = ("torch", "monai")


def loaded_statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a module is imported: not those in functions, or for types only."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from loaded_statements(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody", "handlers"):
                yield from loaded_statements(getattr(node, part, []))


def names_of(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph() -> dict[str, set[str]]:
    """Module to all names that it loads, the folders above them included."""
    graph = {}
    for path in (SOURCE / "napari_mosaik").rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names = {
            name
            for node in loaded_statements(ast.parse(path.read_text("utf-8")).body)
            for name in names_of(node)
        }
        above = {name.rsplit(".", n)[0] for name in names for n in range(1, name.count(".") + 1)}
        graph[name] = names | above | ({name.rsplit(".", 1)[0]} if "." in name else set())
    return graph


def test_outside_its_rooms_nothing_loads_torch():
    graph = import_graph()
    loads = {name for name, names in graph.items() if names & set(HEAVY)}
    assert "napari_mosaik.learning.engine" in loads
    while True:
        more = {name for name, names in graph.items() if names & loads} | loads
        if more == loads:
            break
        loads = more
    assert sorted(name for name in loads if not f"{name}.".startswith(ROOMS)) == []


def test_waiting_threads_leave_the_processor_to_others(monkeypatch):
    code = "import os, napari_mosaik; print(os.environ['OMP_WAIT_POLICY'])"

    def policy():
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert policy() == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert policy() == "ACTIVE"


@pytest.mark.skipif(sys.platform != "linux", reason="it is the GNU library that says so")
@pytest.mark.parametrize("way_in", ["napari_mosaik.cli", "napari_mosaik.plugin"])
def test_torch_and_scikit_learn_wait_passively_from_the_command_line_and_the_window(
    monkeypatch, way_in
):
    """The OpenMP libraries say themselves, when they are loaded, how their threads wait."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "VERBOSE")
    code = f"import {way_in}, torch, sklearn.ensemble"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = told.stderr.replace(" ", "")
    assert said.count("OPENMPDISPLAYENVIRONMENTBEGIN") > 0
    spins = re.findall(r"GOMP_SPINCOUNT='(\d+)'", said)
    assert spins == ["0"] * said.count("OPENMPDISPLAYENVIRONMENTBEGIN")


def test_errors_of_a_prediction_are_drawn_without_torch():
    """A dose plan draws them, and reads a prediction that was made before."""
    code = (
        "import sys; from napari_mosaik.predictor import draw_errors, interval_metrics, "
        "slide_mean_interval; print(sorted({'torch', 'sklearn'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
