"""Models in words and maps: what they were trained on, and what a comparison of two says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mosaik.core import TileGrid, Transform, palette
from napari_mosaik.core.palette import one_colour
from napari_mosaik.view.formatting import count, number, percent
from napari_mosaik.view.layers import classes_layer
from napari_mosaik.view.maps import difference_layer, uptake_layers
from napari_mosaik.view.plots import training_figure
from napari_mosaik.view.spec import LayerSpec, placement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_mosaik.workflow.model_comparison import ModelComparison

__all__ = [
    "card_lines",
    "comparison_layers",
    "comparison_line",
    "comparison_lines",
    "loss_figure",
    "model_title",
]


def loss_figure(losses: Sequence[tuple[float, float | None]]) -> Figure:
    """Loss of a training per epoch, and that of its validation where there is one."""
    curves = {"training": [[one for one, _ in losses]]}
    if any(one is not None for _, one in losses):
        curves["validation"] = [[float("nan") if one is None else one for _, one in losses]]
    return training_figure(curves)


def comparison_layers(
    comparison: ModelComparison, grid: TileGrid | None, transform: Transform | None
) -> list[LayerSpec]:
    """What two models say side by side, and where they differ; empty without tiles."""
    old, new = comparison.maps[0], comparison.maps[1]
    if grid is None:
        return []
    if comparison.unit:
        maps = [grid.paint(values, comparison.unit) for values in (old, new)]
        return [*uptake_layers(maps[0], maps[1]), difference_layer(maps[0], maps[1])]
    changed = comparison.maps[2]
    differing = LayerSpec(
        "changed",
        "labels",
        changed.array(),
        placement(changed.lattice, transform),
        {"colormap": one_colour(palette.EXCLUDED)},
    )
    names = ("old", "new")
    classes = [
        replace(classes_layer(one, transform), name=name)
        for one, name in zip((old, new), names, strict=True)
    ]
    return [*classes, differing]


def model_title(record: Mapping[str, Any]) -> str:
    """Method and first letters of the hash of a model (`KnownModel.record`)."""
    names = {"fast": "fast classifier", "densenet": "DenseNet", "mosaik": "uptake network"}
    return f"{names.get(record['method'], record['method'] or 'model')} {record['model'][:8]}"


def card_lines(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What the card of a model says, from its record: origin, data, split, scores, calibration."""
    lines = [model_title(record)]
    if record["damage"]:
        return (*lines, f"⚠ {record['damage']}")
    lines.append(f"trained on {', '.join(record['trained_on']) or 'unknown cases'}")
    if record["parent"]:
        replay = record["replay"] or {}
        new = count(replay.get("new_tiles", 0), "new tile")
        known = replay.get("tiles", 0)
        lines.append(f"fine-tuned from {record['parent'][:8]}: {new} and {known} known")
    if record["classes"]:
        lines.append(f"classes: {', '.join(record['classes'])}")
    if record["readers"]:
        lines.append(f"readers: {', '.join(record['readers'])}")
    lines += _journal_lines(record["journal"] or {})
    lines += _split_lines(record["split"])
    lines += _score_lines(record)
    for name, features in (record["card"].get("training", {}).get("features") or {}).items():
        first = ", ".join(f"{feature} {percent(share)}" for feature, share in features.items())
        lines.append(f"{name} is separated by {first}")
    return tuple(lines)


def _journal_lines(journal: Mapping[str, Any]) -> list[str]:
    return [
        f"journal of {reader}, case {case}: entries {first} to {last}"
        for case, readers in journal.items()
        for reader, (first, last) in readers.items()
    ]


def _split_lines(split: Any) -> list[str]:
    if isinstance(split, str):
        return [f"split by {split}"]
    if not split:
        return []
    if "block_um" in split:
        size, guard = number(split["block_um"], "µm"), number(split["guard_um"], "µm")
        return [f"assessed on held-out blocks of {size} with a guard of {guard}"]
    return [f"{count(len(split.get('held_out', ())), 'block')} held out"]


def _score_lines(record: Mapping[str, Any]) -> list[str]:
    metrics, lines = record["metrics"] or {}, []
    for name, scores in metrics.get("classes", {}).items():
        lines.append(f"{name}: Dice {number(scores['dice'])} on held-out annotations")
    calibration = record["calibration"] or {}
    if calibration.get("error") is not None:
        lines.append(f"calibration error {number(calibration['error'])} (0: perfectly calibrated)")
    comparison = record["card"].get("comparison") or record["card"].get("training", {}).get(
        "comparison"
    )
    if comparison:
        lines.append(f"against its parent: {comparison_line(comparison)}")
    return lines


def comparison_line(score: Mapping[str, Any]) -> str:
    """Scores of two models and their difference with its interval, as one line."""
    unit = str(score.get("unit", ""))
    line = (
        f"{score['score']}: {number(score['old'])} → {number(score['new'], unit)}, difference "
        f"{_signed(score['difference'])}"
    )
    if score["low"] is None:
        return f"{line}, no interval ({count(score['n_blocks'], 'block')} only); {score['on']}"
    return (
        f"{line} (95 % interval {_signed(score['low'])} to {_signed(score['high'])}); {score['on']}"
    )


def comparison_lines(record: Mapping[str, Any], *, blind: bool = False) -> tuple[str, ...]:
    """What a comparison of two models says, line by line; *blind* ones tell no error of the SUV."""
    lines = []
    score = record["score"]
    if blind and record["kind"] == "predictor":
        lines.append("The errors are hidden until the review queue is finished.")
    elif score is None:
        lines.append(f"No fair score: {record['why']}.")
    else:
        lines.append(comparison_line(score))
        lines.append(_verdict(score))
    if record.get("changed") is not None:
        lines.append(f"classes differ in {percent(record['changed'])} of the tissue compared")
    for name, (old, new) in (record.get("areas_mm2") or {}).items():
        lines.append(f"{name}: {number(old)} → {number(new, 'mm²')}")
    return tuple(lines)


def _verdict(score: Mapping[str, Any]) -> str:
    low, high = score["low"], score["high"]
    if low is None or low <= 0 <= high:
        return "The difference may be random."
    better = (high < 0) == bool(score.get("lower_is_better"))
    return "The new model is better." if better else "The new model is worse."


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{'+' if value >= 0 else '−'}{number(abs(value))}"
