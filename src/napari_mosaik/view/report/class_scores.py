"""How well the tissue classifier did on what did not teach it, as a table of the report."""

from __future__ import annotations

from typing import Any

from napari_mosaik.view.formatting import number
from napari_mosaik.view.report.html import ReportTable

__all__ = ["class_scores_table"]

_SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "one against rest",
}


def class_scores_table(record: dict[str, Any] | None) -> ReportTable | None:
    """Scores per class from the record of the tissue classes; None where nothing was held out.

    A score is empty where its class is absent from the held-out shapes and from what was found.
    """
    held_out = (record or {}).get("held_out")
    if not held_out:
        return None
    rows = [
        (name, *(scores.get(key) for key in _SCORES))
        for name, scores in held_out["classes"].items()
    ]
    note = (
        f"Measured on drawn places that did not teach; {number(held_out['overall'])} of their "
        "pixels are right. 'One against rest' is the accuracy as the MOSAIK paper prints it: it "
        "counts the pixels of all other classes as right and so flatters small classes. Drawn "
        "places are clear ones; borders between tissues are harder."
    )
    return ReportTable("Tissue classifier", ("class", *_SCORES.values()), tuple(rows), note)
