"""Write ``outputs.json``: columns of every table, with unit and meaning, from cases that were run.

    python docs/outputs.py demo/cohort

A test compares the file with a fresh run of a sample case (`tests/workflow/test_sample_case.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUTPUTS = Path(__file__).resolve().parent / "outputs.json"


def columns_of(table: Any) -> list[dict[str, str]]:
    """Name, unit and meaning of each column of a table or tile grid."""
    return [
        {"name": name, "unit": table.unit(name), "about": table.about.get(name, "")}
        for name in table
    ]


def described_tables(cases: Sequence[Any]) -> dict[str, list[dict[str, str]]]:
    """Of each table that the cases hold: its columns; the first case that has it counts."""
    from napari_mosaik.core.artifact import defined_artifacts
    from napari_mosaik.core.table import Table

    found: dict[str, list[dict[str, str]]] = {}
    for case in cases:
        for artifact in defined_artifacts():
            if artifact.name not in found and case.store.origin(artifact) is not None:
                value = case.store.read(artifact)
                if isinstance(value, Table):
                    found[artifact.name] = columns_of(value)
    return found


def main() -> None:
    from napari_mosaik.io import Case, find_cases

    cases = [Case(path) for path in find_cases([Path(argument) for argument in sys.argv[1:]])]
    found = dict(sorted(described_tables(cases).items()))
    OUTPUTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(found)} tables, {sum(map(len, found.values()))} columns")


if __name__ == "__main__":
    main()
