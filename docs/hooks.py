"""Pages that MkDocs makes from the code when it builds: outputs, settings, commands, reference.

Nothing here is written by hand twice: steps, artifacts, settings and commands are asked for what
they are.  Columns of tables are in ``outputs.json``, which `outputs.py` writes from a case that was
run and which a test compares with a fresh run.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src" / "napari_mosaik"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "outputs.md": outputs_page(),
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        **reference_pages(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# --- outputs -----------------------------------------------------------------------------------
FILES = {
    "LabelImage": "`labels.ome.zarr`, `lattice.json`",
    "Raster": "`raster.ome.zarr`",
    "Table": "`table.parquet`",
    "TileGrid": "`table.parquet`",
    "dict": "`document.json`",
}


def outputs_page() -> str:
    """Every result of every step: file, meaning, columns with units."""
    from napari_mosaik.workflow.steps import STEPS

    columns = json.loads((DOCS / "outputs.json").read_text("utf-8"))
    parts = [
        "# Outputs\n",
        "A result is a folder `artifacts/NAME` in the case with the files below,"
        " `origin.json` (how"
        " it was computed) and `record.json` (version, time, settings). A missing number is NaN. "
        "The unit 1 stands for a pure number, a label or a text.\n",
    ]
    for step in STEPS:
        parts.append(f"## {step.title}\n\nStep `{step.name}`. {step.about}\n")
        rows: list[tuple[object, ...]] = [
            (f"`{artifact.name}`", FILES[artifact.kind.__name__], artifact.about)
            for artifact in step.writes
        ]
        parts.append(_table(("result", "files", "meaning"), rows))
        for artifact in step.writes:
            if artifact.name in columns:
                rows = _columns(columns[artifact.name])
                parts.append(f"Columns of `{artifact.name}`:\n")
                parts.append(_table(("column", "unit", "meaning"), rows))
    return "\n".join(parts)


def _columns(columns: list[dict[str, str]]) -> list[tuple[object, ...]]:
    """Rows of a table of columns; columns that repeat for each parameter or time share one row."""
    rows: dict[str, tuple[object, ...]] = {}
    for column in columns:
        name, point, ending = column["name"].partition(".")
        if name == "PLAN":
            name = column["name"]
        elif point:
            name = f"{name}.NN" if ending.isdigit() else f"PARAMETER.{ending}"
        elif name.startswith("baseline_"):
            name = "baseline_NAME"
        rows.setdefault(name, (f"`{name}`", _unit(column["unit"]), column["about"]))
    return list(rows.values())


def _unit(unit: str) -> str:
    """A unit as the window shows it: an optical density with its base."""
    from napari_mosaik.view.formatting import unit_words

    return unit if unit == "1" else unit_words(unit)


# --- settings ----------------------------------------------------------------------------------
LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def settings_page() -> str:
    """Every setting of every step and training: unit, default, limits, meaning."""
    from napari_mosaik.predictor import NetworkParams, TrainParams
    from napari_mosaik.segment import TissueClassParams
    from napari_mosaik.segment.densenet.network import DenseNetParams
    from napari_mosaik.workflow.dose import DoseParams
    from napari_mosaik.workflow.steps import STEPS
    from napari_mosaik.workflow.twin import TwinParams

    parts = [
        "# Settings\n",
        "Settings of a step are kept in the case's `recipe.toml` under the step's name and are"
        " changed there, in the window, or with `run CASE --set STEP.SETTING=VALUE`; those of a"
        " training with `--set SETTING=VALUE`. Several values are typed with commas"
        " (`--set branch_channels=8,16,16`), no value as nothing (`--set without=`).\n",
    ]
    for step in STEPS:
        parts.append(f"## {step.title}\n\n`[{step.name}]` in `recipe.toml`.\n")
        parts.append(settings_table(step.params))
    trainings = {
        "Fast tissue classifier (`retrain`)": TissueClassParams,
        "DenseNet tissue classifier (`retrain --method densenet`)": DenseNetParams,
        "Dose of a measured curve (`dose --curve`, `--set dose.NAME`)": DoseParams,
        "Updating twin (`twin CASE --set NAME`)": TwinParams,
        "Uptake network: training (`train`)": TrainParams,
        "Uptake network: architecture": NetworkParams,
    }
    for title, params in trainings.items():
        parts.append(f"## {title}\n")
        parts.append(settings_table(params))
    return "\n".join(parts)


def settings_table(params: Any, prefix: str = "") -> str:
    """The settings of a `Params` class; those of a nested one carry its name before a point."""
    rows = list(_settings(params, prefix))
    return _table(("setting", "unit", "default", "limits", "meaning"), rows) if rows else "None.\n"


def _settings(params: Any, prefix: str) -> Iterator[tuple[object, ...]]:
    for name, field in params.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _settings(field.annotation, f"{prefix}{name}.")
            continue
        extra: Mapping[str, Any] = field.json_schema_extra or {}
        default = field.get_default(call_default_factory=True)
        if isinstance(default, tuple):  # as it is typed
            default = ",".join(map(str, default)) or "none"
        yield (
            f"`{prefix}{name}`",
            _unit(extra.get("unit") or ""),
            f"`{default}`",
            _limits(field),
            field.description or "",
        )


def _limits(field: Any) -> str:
    if get_origin(field.annotation) is not None and all(
        isinstance(choice, str) for choice in get_args(field.annotation)
    ):
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    limits = [
        text.format(f"{getattr(limit, key):g}")
        for limit in field.metadata
        for key, text in LIMITS.items()
        if getattr(limit, key, None) is not None
    ]
    return ", ".join(limits)


# --- commands ----------------------------------------------------------------------------------
def commands_page() -> str:
    """The help of every command, as the command prints it."""
    import typer

    from napari_mosaik.cli.app import app

    parts = ["# Commands\n", "What `napari-mosaik COMMAND --help` prints.\n"]
    for path, command in _commands(typer.main.get_command(app), ()):
        title = " ".join(("napari-mosaik", *path))
        context = command.make_context(title, [], resilient_parsing=True)
        parts.append(
            f"## {' '.join(path) or 'napari-mosaik'}\n\n```text\n{command.get_help(context)}\n```\n"
        )
    return "\n".join(parts)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


# --- reference ---------------------------------------------------------------------------------
FOLDERS = (
    "core", "io", "tissue", "register", "uptake", "segment", "features", "spatial", "kinetics",
    "dosimetry", "twin", "learning", "predictor", "annotate", "phantom", "workflow", "view",
)  # fmt: skip


def reference_pages() -> dict[str, str]:
    """One page for each folder below the window, with every public function and class."""
    return {f"reference/{folder}.md": _reference(folder) for folder in FOLDERS}


def _reference(folder: str) -> str:
    parts = [f"# {folder}\n"]
    for path in sorted((SOURCE / folder).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        public = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        if public and not path.name.startswith("_"):
            module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
            parts.append(f"::: {module}\n")
    return "\n".join(parts)
