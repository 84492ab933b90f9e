"""Write ``outputs.json``: columns of every table, with unit and meaning, from cases that were run.

    python docs/outputs.py demo/cohort

Tests compare the file with a fresh run of a sample case (`tests/workflow/test_sample_case.py`,
`tests/workflow/test_dose_step.py`).  One case has a plan of one nuclide and one of two: columns of
the dose bear the names of plans and nuclides, which are PLAN and NUCLIDE here.
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


def columns_of_plans(table: Any) -> list[dict[str, str]]:
    """Those of a table of plans, with PLAN and NUCLIDE for their names; each of them once."""
    from napari_mosaik.dosimetry import NUCLIDES

    found: dict[str, dict[str, str]] = {}
    for column in columns_of(table):
        column["name"] = "PLAN." + column["name"].partition(".")[2]
        for nuclide in NUCLIDES:
            column = {key: text.replace(nuclide, "NUCLIDE") for key, text in column.items()}
        found.setdefault(column["name"], column)
    return list(found.values())


def described_tables(cases: Sequence[Any]) -> dict[str, list[dict[str, str]]]:
    """Of each table that the cases hold: its columns; the first case that has it counts."""
    from napari_mosaik.core.artifact import defined_artifacts
    from napari_mosaik.core.catalogue import DOSE
    from napari_mosaik.core.table import Table

    found: dict[str, list[dict[str, str]]] = {}
    for case in cases:
        for artifact in defined_artifacts():
            if artifact.name not in found and case.store.origin(artifact) is not None:
                value = case.store.read(artifact)
                if isinstance(value, Table):
                    columns = columns_of_plans if artifact is DOSE else columns_of
                    found[artifact.name] = columns(value)
    return found


def main() -> None:
    from napari_mosaik.io import Case, find_cases

    cases = [Case(path) for path in find_cases([Path(argument) for argument in sys.argv[1:]])]
    found = dict(sorted(described_tables(cases).items()))
    OUTPUTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{len(found)} tables, {sum(map(len, found.values()))} columns")


if __name__ == "__main__":
    main()
