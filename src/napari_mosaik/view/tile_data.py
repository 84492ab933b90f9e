"""The results per tile of the open case, read once: for the cursor, the inspector and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core import Artifact, MosaikError, Raster, Table, TileGrid, Transform
from napari_mosaik.core.catalogue import (
    CLUSTER_NAMES,
    CLUSTERS,
    INPUT_SPREAD,
    KINETICS,
    METRICS,
    PARAMETERS,
    PREDICTION,
    PREDICTION_RECORD,
    SUV,
    TILE_KINETICS,
    TILES,
    UPTAKE,
    UPTAKE_CLUSTERS,
)
from napari_mosaik.features.catalogue import PARAMETERS as CATALOGUE
from napari_mosaik.io.case import Case
from napari_mosaik.kinetics import CURVE_NAMES, TILE_TIMES_H, curve_columns
from napari_mosaik.view.case_results import transform_to_reference
from napari_mosaik.view.formatting import (
    TileReading,
    baseline_title,
    by_error,
    count,
    number,
    percent,
    tile_line,
    title_of,
    uptake_name,
)
from napari_mosaik.workflow.drawn_inputs import SPREAD_SOURCES
from napari_mosaik.workflow.models import KnownModel

if TYPE_CHECKING:
    from napari_mosaik.predictor import NearestTiles

__all__ = [
    "NEAREST_COLUMNS",
    "SPREAD_WORDS",
    "TableRow",
    "TileData",
    "badge_of",
    "error_row",
    "metric_rows",
    "nearest_rows",
    "prediction_gaps",
    "read_tile_data",
    "reference_rows",
    "spread_lines",
    "summary_of",
    "tiles_by_error",
]


_OF_OBJECTS = [name for name, known in CATALOGUE.items() if known.group != "tissue"]
"""Tile parameters that are not the share of a tissue class."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the inspector's table, as text."""

    parameter: str
    value: str
    unit: str
    rank: str
    about: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TileData:
    """The results per tile of a case; None for results that were not computed, or are hidden.

    ``record`` is that of the prediction, ``card`` that of the model which made it; ``scanner_um``
    is the resolution of the PET on the section (full width at half maximum), None before the PET
    is registered; ``pet`` is the measured SUV on its voxels, and ``pet_to_section`` its
    registration.
    """

    grid: TileGrid | None = None
    parameters: Table | None = None
    uptake: Table | None = None
    prediction: Table | None = None
    input_spread: Table | None = None
    clusters: Table | None = None
    uptake_clusters: Table | None = None
    kinetics: Table | None = None
    tile_kinetics: Table | None = None
    metrics: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    scanner_um: float | None = None
    pet: Raster | None = None
    pet_to_section: Transform | None = None
    blind: bool = False

    def without_measured(self) -> TileData:
        """The same without the measured uptake and all that was computed from it."""
        return replace(self, uptake=None, uptake_clusters=None, metrics=None, pet=None, blind=True)

    def without_classes(self) -> TileData:
        """The same without the shares of the tissue classes."""
        table = self.parameters
        if table is None:
            return self
        gone = [name for name in table if name.endswith("_fraction") and name not in _OF_OBJECTS]
        columns = {name: table[name] for name in table if name not in gone}
        return replace(self, parameters=Table(columns, table.units, table.about, table.frame))

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return 0 if self.grid is None else len(self.grid)

    @property
    def unit(self) -> str:
        """Unit of the uptake."""
        for table in (self.uptake, self.prediction):
            if table is not None:
                return table.unit("suv")
        return "1"

    @property
    def stride_um(self) -> float:
        """Distance between neighbouring tiles, µm."""
        return 1.0 if self.grid is None else self.grid.stride_um

    def measured(self) -> NDArray[np.float64] | None:
        """Measured uptake, (n_tiles,) SUV; NaN where it is missing."""
        return None if self.uptake is None else np.asarray(self.uptake["suv"], float)

    def predicted(self) -> NDArray[np.float64] | None:
        """Predicted uptake, (n_tiles,) SUV; NaN where it is missing."""
        return None if self.prediction is None else np.asarray(self.prediction["suv"], float)

    @property
    def target(self) -> tuple[float, float] | None:
        """The SUV that the predictor scales to 0 and to 1; None without a prediction."""
        found = (self.record or {}).get("target")
        return None if found is None else (float(found["low"]), float(found["high"]))

    def interval(self, kind: str = "") -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Ends of the 90 % interval of each tile, (n_tiles,) SUV each; None without intervals.

        *kind* is "" for a tile of a new slide, "block_" for a whole block.
        """
        names = (f"suv_norm_{kind}low", f"suv_norm_{kind}high")
        if self.prediction is None or self.target is None:
            return None
        if any(name not in self.prediction for name in names):
            return None
        low, high = self.target
        first, last = (
            np.asarray(self.prediction[name], float) * (high - low) + low for name in names
        )
        return (first, last) if np.isfinite(first).any() else None

    def source(self) -> NDArray[np.float64] | None:
        """What the network places in each tile before the scanner's blur, (n_tiles,) SUV.

        None where the predictor has no such source.
        """
        if self.prediction is None or "source" not in self.prediction or self.target is None:
            return None
        values = np.asarray(self.prediction["source"], float)
        if self.prediction.unit("source") == self.unit:
            return values
        low, high = self.target
        return values * (high - low) + low

    def input_sd(self) -> NDArray[np.float64] | None:
        """SD of the prediction by the errors of its inputs, (n_tiles,) SUV; None where not drawn.

        NaN where a tile is not predicted.
        """
        if self.input_spread is None:
            return None
        values = np.asarray(self.input_spread["suv_input_sd"], float)
        return values if np.isfinite(values).any() else None

    def out_of_range(self) -> NDArray[np.bool_]:
        """(n_tiles,) flag (dimensionless): inputs beyond those of the training tiles."""
        if self.prediction is None or "out_of_range" not in self.prediction:
            return np.zeros(self.n_tiles, bool)
        return np.asarray(self.prediction["out_of_range"], bool)

    def tile_at(self, point_um: tuple[float, float]) -> int:
        """The tile whose centre is nearest to a position on the reference section, or -1."""
        if self.grid is None or not len(self.grid):
            return -1
        cell = np.rint(self.grid.lattice.to_index([point_um])[0]).astype(int)
        if (cell < 0).any() or (cell >= self.grid.lattice.shape).any():
            return -1
        return int(self.grid.index_map()[cell[0], cell[1]])

    def neighbour(self, tile: int, rows: int, columns: int) -> int:
        """Index of the next tile in a direction, skipping gaps; the tile itself at the edge."""
        if self.grid is None or not 0 <= tile < len(self.grid):
            return 0 if self.n_tiles else -1
        index = self.grid.index_map()
        row, column = (int(i) for i in self.grid.cells[tile])
        while True:
            row, column = row + rows, column + columns
            if not (0 <= row < index.shape[0] and 0 <= column < index.shape[1]):
                return tile
            if index[row, column] >= 0:
                return int(index[row, column])

    def line(self, tile: int) -> str:
        """The results of a tile as one line of text."""
        return tile_line(
            TileReading(
                tile,
                neoplastic=_at(self.parameters, "neoplastic_fraction", tile),
                vessels_per_mm2=_at(self.parameters, "vessel_density_per_mm2", tile),
                measured=_at(self.uptake, "suv", tile),
                predicted=_at(self.prediction, "suv", tile),
                cluster=self.cluster(tile),
            )
        )

    def cluster(self, tile: int) -> str:
        """Cluster label of the measured uptake as text; empty when unknown."""
        code = _at(self.uptake_clusters, "suv.label", tile)
        return "" if code is None else CLUSTER_NAMES.get(int(code), "")

    def rows(self, tile: int) -> list[TableRow]:
        """The inspector's table: uptake first, then every parameter with its rank in the case."""
        rows = []
        name = uptake_name(self.unit)
        for words, table in (("measured", self.uptake), ("predicted", self.prediction)):
            if table is not None:
                rows.append(self._row(table, "suv", tile, f"{words} {name}"))
        voxel = self.voxel(tile)
        if voxel is not None:
            about = "The voxel of the PET at the centre of the tile; the tile is a mean by area"
            unit = "" if self.unit == "1" else self.unit
            rows.append(TableRow("PET voxel", number(voxel[1]), unit, "", about))
        rows += self._around(tile)
        label = self.cluster(tile)
        if label:
            rows.append(TableRow("cluster of measured uptake", label, "", ""))
        if self.tile_kinetics is not None:
            title = "retained antibody, delivery-limited"
            rows.append(self._row(self.tile_kinetics, "retained", tile, title))
        for column in self.parameters or ():
            assert self.parameters is not None
            rows.append(self._row(self.parameters, column, tile, ""))
        return rows

    def _around(self, tile: int) -> list[TableRow]:
        """Interval and source of a tile, its place among the training tiles, its neighbours."""
        rows, unit = [], "" if self.unit == "1" else self.unit
        for kind, words in (("", "tile of a new slide"), ("block_", "whole block")):
            ends = self.interval(kind)
            if ends is not None:
                low, high = (float(values[tile]) for values in ends)
                known = np.isfinite(low + high)
                text = f"{number(low)} to {number(high)}" if known else "not predicted"
                rows.append(TableRow(f"90 % interval, {words}", text, unit, ""))
        source = self.source()
        if source is not None:
            value = number(source[tile], missing="not predicted")
            rows.append(TableRow("source before the scanner's blur", value, unit, ""))
        rows += self._input_row(tile)
        rows += self._member_rows(tile)
        if self.out_of_range()[tile]:
            rows.append(TableRow("beyond the training tiles", "yes", "", ""))
        measured, predicted, near = self.measured(), self.predicted(), self.neighbours(tile)
        for words, values in (("measured", measured), ("predicted", predicted)):
            found = np.zeros(0) if values is None else values[near][np.isfinite(values[near])]
            if found.size:
                title = f"{words}, mean of {count(found.size, 'neighbour')}"
                rows.append(TableRow(title, number(found.mean()), unit, ""))
        return rows

    def _member_rows(self, tile: int) -> list[TableRow]:
        """What each network and each companion model predicts, with its weight in the mean."""
        if self.prediction is None or self.target is None:
            return []
        companions: Mapping[str, float] = (self.card or {}).get("companion_weights", {})
        members = [name for name in self.prediction if name.startswith("member_")]
        share = (1 - sum(companions.values())) / max(1, len(members))
        columns = {
            name: (f"network {place} of {len(members)}", share)
            for place, name in enumerate(members, 1)
        }
        columns |= {
            f"baseline_{name}": (baseline_title(name), weight)
            for name, weight in companions.items()
        }
        (low, high), unit = self.target, "" if self.unit == "1" else self.unit
        rows = []
        for name, (words, weight) in columns.items():
            value = _at(self.prediction, name, tile)
            suv = None if value is None else value * (high - low) + low
            text = number(suv, missing="not predicted")
            about = f"Its share of the prediction is {percent(weight)}"
            rows.append(TableRow(f"predicted by {words}", text, unit, "", about))
        return rows

    def _input_row(self, tile: int) -> list[TableRow]:
        """The spread of a tile from its inputs, and what contributes most."""
        spread, table = self.input_sd(), self.input_spread
        if spread is None or table is None:
            return []
        unit = "" if self.unit == "1" else self.unit
        text = number(spread[tile], missing="not predicted")
        shares = {
            words: _at(table, f"share_{name}", tile) for name, words in SPREAD_SOURCES.items()
        }
        about = "; ".join(
            f"{words} {percent(share)}"
            for words, share in shares.items()
            if share is not None and np.isfinite(share)
        )
        return [TableRow("SD by the errors of the inputs", text, unit, _rank(spread, tile), about)]

    def neighbours(self, tile: int) -> NDArray[np.int64]:
        """(n,) indices of the up to eight tiles around a tile."""
        if self.grid is None:
            return np.zeros(0, np.int64)
        around = self.grid.windows(3)[tile].ravel()
        found: NDArray[np.int64] = around[(around >= 0) & (around != tile)]
        return found

    def voxel(self, tile: int) -> tuple[NDArray[np.float64], float] | None:
        """The PET voxel at the centre of a tile: corners (4, 2) on the section, µm, and its SUV.

        None where there is no PET at that place, or it is hidden.
        """
        if self.pet is None or self.pet_to_section is None or self.grid is None:
            return None
        lattice, there = self.pet.lattice, self.pet_to_section.inverse()
        index = lattice.to_index(there.apply(self.grid.centres_um[tile][None]))[0]
        cell = np.floor(index + 0.5).astype(int)
        if (cell < 0).any() or (cell >= lattice.shape).any():
            return None
        corners = cell + np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]])
        value = float(np.asarray(self.pet.values)[cell[0], cell[1]])
        return self.pet_to_section.apply(lattice.to_um(corners)), value

    def curves(
        self, tile: int
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]] | None:
        """Times, (t,) h, and concentrations of the antibody, (t,) µM, of a tile or the patient.

        Those of the patient where the tile has none; None where no kinetics were computed.
        """
        table = self.tile_kinetics
        if table is not None and 0 <= tile < len(table) and curve_columns("free")[0] in table:
            found = {
                name: np.array([float(table[column][tile]) for column in curve_columns(name)])
                for name in CURVE_NAMES
            }
            return np.array(TILE_TIMES_H), found
        if self.kinetics is None:
            return None
        patient = {name: np.asarray(self.kinetics[f"{name}_um"], float) for name in CURVE_NAMES}
        return np.asarray(self.kinetics["time_h"], float), patient

    def _row(self, table: Table, column: str, tile: int, title: str) -> TableRow:
        values = np.asarray(table[column], float)
        unit = table.unit(column)
        label = _at(self.clusters, f"{column}.label", tile)
        title_text = title or title_of(column)
        if label is not None and int(label) not in (0, 5):
            title_text += f" ({CLUSTER_NAMES[int(label)]})"
        value = number(values[tile])
        rank = _rank(values, tile)
        return TableRow(
            title_text, value, "" if unit == "1" else unit, rank, table.about.get(column, "")
        )


NEAREST_COLUMNS: Final = ("Case", "Tile", "Distance", "Measured", "Predicted")
"""Columns of the training tiles most like a tile."""


def nearest_rows(found: NearestTiles, tile: int) -> list[tuple[str, ...]]:
    """The training tiles most like a tile, one row each, as text in `NEAREST_COLUMNS`."""
    return [
        (
            one["case"],
            str(one["tile"]),
            number(one["distance"]),
            number(one["measured"]),
            number(one["predicted"], missing="–"),
        )
        for one in found.of(tile)
    ]


def badge_of(tile_data: TileData) -> str:
    """Whether case and patient are independent of the training."""
    metrics = tile_data.metrics
    if tile_data.blind:
        return "The measured uptake and the errors are hidden until the review queue is finished."
    if metrics is None:
        return "No results yet: run the pages 'Predictor' and 'Review and report'."
    if metrics.get("seen_in_training"):
        return "⚠ Training case: these errors do not apply to new cases"
    if metrics.get("development"):
        return (
            "⚠ Development case: the measured uptake has ranked the review or was shown before a "
            "correction; these errors are optimistic"
        )
    if metrics.get("shared_patient"):
        return "⚠ Another case of this patient was used for training"
    return "Held-out case; patient not in the training set"


def metric_rows(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """Method, MAE, R² and MAE minus the network's of network and baselines, as text."""
    if not metrics:
        return []
    rows = [("MOSAIK network", metrics["suv_norm"])]
    rows += [(baseline_title(k), errors) for k, errors in by_error(metrics["baselines"]) if errors]
    return [
        (
            name,
            *(number(errors.get(key)) for key in ("mae", "r2")),
            _difference(errors.get("mae_minus_network")),
        )
        for name, errors in rows
    ]


def reference_rows(metrics: Mapping[str, Any]) -> list[int]:
    """Places in `metric_rows` of what knows the PET of the case: a reference, no predictor."""
    known = [errors for _, errors in by_error(metrics.get("baselines", {})) if errors]
    return [place for place, errors in enumerate(known, 1) if errors.get("uses_test_pet")]


def _difference(found: Mapping[str, Any] | None) -> str:
    """A difference of normalised SUV and its interval, with three decimals."""
    if not found or found.get("estimate") is None:
        return ""
    values = [found[key] for key in ("estimate", "low", "high")]
    words = ["?" if v is None else f"{v:+.3f}".replace("-", "−") for v in values]
    if values[1] is None and values[2] is None:
        return f"{words[0]} (no interval)"
    return f"{words[0]} ({words[1]} to {words[2]})"


def summary_of(tile_data: TileData) -> str:
    """Errors in the unit of the image, and the number of tiles."""
    if tile_data.metrics is None:
        return ""
    suv, n = tile_data.metrics["suv_bsa"], tile_data.metrics["n_tiles"]
    text = f"{n} tiles · SUV: MAE {number(suv['mae'], tile_data.unit)}, R² {number(suv['r2'])}"
    text += " (optimistic)" if tile_data.metrics.get("development") else ""
    classes = tile_data.metrics.get("classes") or {}
    accuracy = classes.get("balanced_accuracy")
    if accuracy is not None:
        text += f" · hot and cold spots: balanced accuracy {percent(accuracy)}"
        text += f", ECE {number(classes.get('ece'), missing='not available')}"
    agreement = tile_data.metrics.get("agreement") or {}
    if "ssim" in agreement:
        r, size, ssim = (agreement.get(key) for key in ("pearson", "ess_pearson", "ssim"))
        known = [number(value, missing="not available") for value in (ssim, r, size)]
        text += f"\nSSIM {known[0]} · Pearson {known[1]}, effective sample size {known[2]}"
    return "\n".join([text, *_interval_lines(tile_data.metrics), *spread_lines(tile_data.metrics)])


def _interval_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What the intervals hold on this case and do not promise, and the tiles without a value."""
    found, lines = metrics.get("intervals") or {}, []
    for kind, words in (("tile", "a tile of a new slide"), ("block", "a whole block")):
        one = found.get(kind)
        if one:
            lines.append(
                f"90 % interval for {words}: holds {percent(one.get('coverage'))} of the tiles, "
                f"width {number(one.get('width'))} (normalised SUV)"
            )
    lines += [f"⚠ {note}" for note in found.get("notes") or ()]
    return lines + [f"{name[:1].upper()}{name[1:]}: {n}" for name, n in prediction_gaps(metrics)]


def spread_lines(metrics: Mapping[str, Any]) -> list[str]:
    """How far prediction and measurement are known by their inputs; normalised SUV."""
    lines = []
    for key, words in (("input_spread", "prediction"), ("measured_spread", "measured SUV")):
        found = metrics.get(key) or {}
        if "shares" in found:
            parts = ", ".join(
                f"{SPREAD_WORDS[key].get(name, name)} {percent(share)}"
                for name, share in sorted(found["shares"].items(), key=lambda one: -one[1])
                if share >= 0.005
            )
            lines.append(
                f"Errors of the inputs change the {words} of a tile by an SD of "
                f"{number(found['sd_median'])} (normalised SUV; median): {parts}"
            )
    return lines


SPREAD_WORDS: Final = {
    "input_spread": {**SPREAD_SOURCES, "rest": "several together"},
    "measured_spread": {"registration": "registration of the PET", "rest": "several together"},
}
"""Words of the sources of the spread of the prediction and of the measured SUV."""


def prediction_gaps(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How many tiles lie beyond the training range or were not predicted, and why, as text.

    Nothing of what the comparison does not state.
    """
    lines = []
    beyond = metrics.get("n_out_of_range")
    if beyond is not None:
        lines.append(("tiles beyond the training range", str(int(beyond))))
    reasons = metrics.get("not_predicted") or {}
    missing = metrics.get("n_not_predicted")
    if missing is not None:
        why = ", ".join(f"{reason}: {n}" for reason, n in reasons.items())
        lines.append(
            ("tiles without prediction", f"{int(missing)} ({why})" if why else str(missing))
        )
    return lines


def tiles_by_error(tile_data: TileData, most: int) -> list[int]:
    """Indices of at most so many tiles with the largest differences, the largest first."""
    measured, predicted = tile_data.measured(), tile_data.predicted()
    if measured is None or predicted is None:
        return []
    error = np.abs(predicted - measured)
    order = np.argsort(-np.nan_to_num(error, nan=-1.0), kind="stable")[:most]
    return [int(tile) for tile in order if np.isfinite(error[tile])]


def error_row(tile_data: TileData, tile: int) -> tuple[str, ...]:
    """Tile, measured, predicted, and predicted minus measured uptake as text."""
    measured = _at(tile_data.uptake, "suv", tile)
    predicted = _at(tile_data.prediction, "suv", tile)
    difference = None if measured is None or predicted is None else predicted - measured
    lacks = "not predicted"
    return (
        str(tile),
        number(measured),
        number(predicted, missing=lacks),
        number(difference, missing="–"),
    )


def _at(table: Table | None, column: str, tile: int) -> float | None:
    if table is None or column not in tuple(table) or not 0 <= tile < len(table):
        return None
    return float(table[column][tile])


def _rank(values: NDArray[np.float64], tile: int) -> str:
    """Rank among the tiles of the case, highest first."""
    if not np.isfinite(values[tile]):
        return ""
    finite = values[np.isfinite(values)]
    return f"{int((finite > values[tile]).sum()) + 1} of {finite.size}"


def read_tile_data(case: Case) -> TileData:
    """Read all results per tile of a case; damaged ones count as absent."""
    grid = _read(case, TILES)
    n = -1 if grid is None else len(grid)
    tables = {
        "parameters": PARAMETERS,
        "uptake": UPTAKE,
        "prediction": PREDICTION,
        "input_spread": INPUT_SPREAD,
        "clusters": CLUSTERS,
        "uptake_clusters": UPTAKE_CLUSTERS,
        "tile_kinetics": TILE_KINETICS,
    }
    read = {name: _read(case, artifact) for name, artifact in tables.items()}
    matching: dict[str, Any] = {
        k: t if t is not None and len(t) == n else None for k, t in read.items()
    }
    record = _read(case, PREDICTION_RECORD)
    name = (record or {}).get("model")
    model = KnownModel.read(case.root / "models" / name) if name else None
    return TileData(
        grid,
        kinetics=_read(case, KINETICS),
        metrics=_read(case, METRICS),
        record=record,
        card=None if model is None else model.card,
        scanner_um=_scanner_um(case),
        pet=_read(case, SUV),
        pet_to_section=transform_to_reference(case, "pet"),
        **matching,
    )


def _scanner_um(case: Case) -> float | None:
    from napari_mosaik.workflow.cohort import scanner_width_um

    try:
        return None if case.file.pet is None else scanner_width_um([case])[0]
    except MosaikError:  # not registered
        return None


def _read(case: Case, artifact: Artifact[Any]) -> Any:
    try:
        return None if case.store.origin(artifact) is None else case.store.read(artifact)
    except MosaikError:
        return None
