"""The verification and validation sheet: what was checked, what was found, what was not checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from napari_mosaik.core import InputError

__all__ = ["AREAS", "SheetRow", "Status", "validation_sheet"]

Status = Literal["pass", "fail", "not available"]

AREAS: Final = (
    "Code verification",
    "Solution verification",
    "Conservation",
    "Data",
    "Validation",
    "Sensitivity",
    "Identifiability",
    "Uncertainty",
    "Domain of use",
    "Provenance",
)
"""The ten areas of the sheet, in order."""
_WHAT: Final = {
    "Code verification": "closed forms, manufactured solutions, order of convergence",
    "Solution verification": "grid, time step and tolerance",
    "Conservation": "antibody, mass, tile and object counts",
    "Data": "registration error, scale, SUV by hand, units, dates",
    "Validation": "held-out blocks, slides and patients against baselines",
    "Sensitivity": "kinetic parameters; registration by one voxel",
    "Identifiability": "what the imaging times can tell of the parameters",
    "Uncertainty": "coverage and width of the intervals",
    "Domain of use": "tracer, tumour, scanner, stain, pixel size, patients",
    "Provenance": "versions, random state, digests, parameters, warnings",
}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One line of the sheet.

    Parameters
    ----------
    area
        One of `AREAS`.
    status
        "pass", "fail" or "not available"; the last is not a pass.
    value
        What was found, in words with units.
    evidence
        Where it comes from: the step, the file, the test.
    """

    area: str
    status: Status
    value: str = ""
    evidence: str = ""

    @property
    def about(self) -> str:
        """What the area covers."""
        return _WHAT[self.area]


def validation_sheet(rows: Iterable[SheetRow] = ()) -> tuple[SheetRow, ...]:
    """The whole sheet in order; areas for which nothing was computed say "not available".

    An area may have several rows.

    Raises
    ------
    InputError
        An unknown area, or a "pass" or "fail" without a value that was found.
    """
    given = tuple(rows)
    for row in given:
        if row.area not in AREAS:
            raise InputError(f"the sheet has no area '{row.area}'; there are: {', '.join(AREAS)}")
        if row.status != "not available" and not row.value:
            raise InputError(f"'{row.area}' claims '{row.status}' without a value that was found")
    sheet: list[SheetRow] = []
    for area in AREAS:
        found = [row for row in given if row.area == area]
        sheet += found or [SheetRow(area, "not available", "", "not computed in this run")]
    return tuple(sheet)
