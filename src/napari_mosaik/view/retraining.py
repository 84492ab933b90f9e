"""What a retraining has changed, in lines."""

from __future__ import annotations

from napari_mosaik.view.formatting import number, percent
from napari_mosaik.workflow.annotations import RetrainingEffect

__all__ = ["retraining_lines"]


def retraining_lines(effect: RetrainingEffect) -> tuple[str, ...]:
    """Tissue classes, their areas and the prediction error before and after, with units."""
    before, after = effect.before, effect.after
    lines = []
    if effect.changed_fraction is not None:
        lines.append(f"tissue classes: changed in {percent(effect.changed_fraction)} of the tissue")
    elif effect.compared:
        lines.append("The size of the tissue class map changed.")
    for name, area in (after.areas_mm2 or {}).items():
        old = (before.areas_mm2 or {}).get(name)
        change = number(area, "mm²") if old is None else f"{number(old)} → {number(area, 'mm²')}"
        lines.append(f"{name}: {change}")
    if before.mae is not None and after.mae is not None:
        lines.append(
            f"mean absolute error: {number(before.mae_suv)} → {number(after.mae_suv, after.unit)} "
            f"({number(before.mae)} → {number(after.mae)} normalised)"
        )
    return tuple(lines) or ("Nothing to compare yet.",)
