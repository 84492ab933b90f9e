"""The inputs of a prediction, drawn within the limits of what was measured.

What is moved, and how (every number below is a setting, or stated by an earlier step):

    source        what a draw moves
    registration  H&E and CAIX, each by a shift common to the section: its own error where landmarks
                  or the image content state one, else one PET voxel; objects, class map and
                  cluster labels move with their section
    thresholds    outlines of vessels and nuclei move outwards or inwards: sizes, areas, perimeters
                  and which objects reach the minimum area follow from the stored objects
    calibration   CAIX density of all cells (grades follow from the stored densities), and
                  haematoxylin of all nuclei, by a common factor
    kinetics      the parameters of the antibody curves within their priors

Parameters of a draw are the stored ones plus the difference of the recomputed ones, so a draw
without a move is the prediction itself.  Cluster labels move and are not tested again: a common
factor leaves local Moran's I as it is.  Texture of nuclei, the tissue mask and the tiles stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    CAIX_CELLS,
    CORRECTED_NUCLEUS_OBJECTS,
    CORRECTED_VESSEL_OBJECTS,
    KINETICS,
    NUCLEUS_OBJECTS,
    PARAMETERS,
    REFERENCE,
    TILE_KINETICS,
    TILES,
    TISSUE,
    VESSEL_OBJECTS,
)
from napari_mosaik.core.frame import FloatArray
from napari_mosaik.core.params import Params, setting
from napari_mosaik.core.table import Table
from napari_mosaik.kinetics import TILE_TIMES_H, tile_curves_um
from napari_mosaik.kinetics.sensitivity import prior_factors
from napari_mosaik.register import registration_error, transform_of
from napari_mosaik.segment import CaixParams
from napari_mosaik.workflow.predictor_inputs import tile_inputs
from napari_mosaik.workflow.step_context import StepContext

if TYPE_CHECKING:
    from napari_mosaik.predictor import TileInputs

__all__ = ["SPREAD_SOURCES", "DrawnInputs", "InputSpreadParams"]

SPREAD_SOURCES: Final = {
    "registration": "registration of H&E and CAIX",
    "thresholds": "thresholds of vessels and nuclei",
    "calibration": "stain calibration",
    "kinetics": "kinetic priors",
}
"""The sources of the spread, and their words."""
_Z95: Final = 1.959964


class InputSpreadParams(Params):
    """Settings of the spread from the inputs; SDs of normal errors, common to a section."""

    draws: int = setting(
        0,
        "Draws of the inputs, 24 for example; each predicts the case again. 0: off.",
        ge=0,
        le=2000,
    )
    networks: int = setting(
        2,
        "Number of networks of the ensemble that predict each draw; the time grows with it.",
        ge=1,
        le=50,
        advanced=True,
    )
    registration: Literal["own", "voxel"] = setting(
        "own",
        "Error of the registration: as estimated from landmarks or image content (one voxel "
        "without an estimate), or always one voxel to each side.",
        choices={"own": "as the registration states", "voxel": "one voxel to each side"},
    )
    voxel_um: float = setting(
        400.0,
        "Edge of a PET voxel: the section lies anywhere within it to each side.",
        label="One voxel",
        unit="µm",
        ge=0,
        le=5000,
    )
    vessel_border_um: float = setting(
        0.5,
        "SD of the position of the vessel outlines, from the DAB threshold.",
        label="Vessel outline",
        unit="µm",
        ge=0,
        le=10,
    )
    nucleus_border_um: float = setting(
        0.25,
        "SD of the position of the nuclear outlines, from the haematoxylin threshold.",
        label="Nuclear outline",
        unit="µm",
        ge=0,
        le=5,
    )
    caix_factor: float = setting(
        0.1, "Relative SD of the CAIX density of the batch.", label="CAIX density", ge=0, le=1
    )
    haematoxylin_factor: float = setting(
        0.1, "Relative SD of the haematoxylin density.", label="Haematoxylin", ge=0, le=1
    )
    kinetic_share: float = setting(
        1.0,
        "Fraction of the width of the kinetic priors that is drawn: 1 all of it, 0 none.",
        label="Fraction of the kinetic priors",
        ge=0,
        le=1,
    )
    seed: int = setting(0, "Random seed of the draws.", ge=0, advanced=True)


class DrawnInputs:
    """The inputs of the network for each draw of what was measured.

    ``names`` are source and name of each number that is drawn, ``tiles`` the inputs as measured,
    ``registration`` the error of each section.
    """

    def __init__(
        self, context: StepContext, params: InputSpreadParams, card: Mapping[str, Any]
    ) -> None:
        from napari_mosaik.features import area_in_tiles
        from napari_mosaik.predictor import TrainParams

        self._read, self._has, self._params = context.read, context.has, params
        self._absent = tuple(card.get("absent", ()))
        settings = TrainParams.parse(card["settings"], "model card")
        first, second, third = card["proxies"]
        self.tiles: TileInputs = tile_inputs(
            context.read,
            context.case_name,
            context.patient,
            (first, second, third),
            settings,
            self._absent,
            card["features"],
        )
        self._grid, self._table = context.read(TILES), context.read(PARAMETERS)
        mask = context.read(TISSUE[REFERENCE])
        self._tissue_um2 = area_in_tiles(self._grid, mask.values, mask.lattice)
        self._record, self._per_tile = context.record, settings.curves != "patient"
        self.registration: dict[str, dict[str, Any]] = {}
        self.names: list[tuple[str, str]] = []
        self._numbers: dict[str, float] = {}
        self._columns: list[Callable[[], dict[str, FloatArray]]] = []
        self._vessel_map = 1.0
        self._add_sections()
        self._add_objects()
        self._add_kinetics()
        self._nominal = self._computed(dict.fromkeys((name for _, name in self.names), 0.0))
        self._nominal_curves = self._curves(self._table)
        self._nominal_shares = self._class_shares((0.0, 0.0))[1]

    @property
    def sources(self) -> list[str]:
        """Source of each number that is drawn."""
        return [source for source, _ in self.names]

    # --- what is drawn --------------------------------------------------------------------------
    def _add_sections(self) -> None:
        params = self._params
        for slide in ("he", "caix"):
            if slide in self._absent or not self._has(ALIGNMENT[slide]):
                continue
            document = self._read(ALIGNMENT[slide])
            self.registration[slide] = registration_error(
                document, params.voxel_um, params.registration
            )
            self.names += [("registration", f"{slide}_row"), ("registration", f"{slide}_column")]

    def _add_objects(self) -> None:
        if self._has(CORRECTED_VESSEL_OBJECTS):
            self._vessels = self._read(CORRECTED_VESSEL_OBJECTS)
            self._vessel_min_um2 = self._smallest(VESSEL_OBJECTS)
            self.names.append(("thresholds", "vessel"))
            self._columns.append(self._vascular)
        if "he" in self.registration and self._has(CORRECTED_NUCLEUS_OBJECTS):
            self._nuclei = self._read(CORRECTED_NUCLEUS_OBJECTS)
            to_reference = transform_of(self._read(ALIGNMENT["he"]))
            self._nuclei_um = to_reference.apply(self._nuclei.points_um())
            self._nucleus_min_um2 = self._smallest(NUCLEUS_OBJECTS)
            self.names += [("thresholds", "nucleus"), ("calibration", "haematoxylin")]
            self._columns.append(self._nuclear)
        if "caix" in self.registration and self._has(CAIX_CELLS):
            record = self._record(CAIX_CELLS).get("params", {})
            fields = {n: v for n, v in record.items() if n in CaixParams.model_fields}
            self._cutoffs = CaixParams.parse(fields, "settings of the CAIX score")
            cells = self._read(CAIX_CELLS)
            if self._record(PARAMETERS).get("params", {}).get("tumour_cells_only", True):
                cells = cells.rows(np.asarray(cells["tumour"], bool))
            self._cells_um = transform_of(self._read(ALIGNMENT["caix"])).apply(cells.points_um())
            self._membrane_od10 = np.asarray(cells["membrane_od10"], float)
            self.names.append(("calibration", "caix"))
            self._columns.append(self._caix)

    def _smallest(self, artifact: Any) -> float:
        """Minimum area of the objects of a step, µm²; 0 where it is not known."""
        if not self._has(artifact):
            return 0.0
        return float(self._record(artifact).get("params", {}).get("min_area_um2", 0.0))

    def _add_kinetics(self) -> None:
        from napari_mosaik.workflow.steps.kinetics import CurveParams, DeliveredCurveParams

        self._kinetic: Params | None = None
        source = TILE_KINETICS if self._per_tile else KINETICS
        if "caix" in self._absent or not self._has(source) or not self._params.kinetic_share:
            return
        stored = self._record(source).get("params", {})
        kind = DeliveredCurveParams if self._per_tile else CurveParams
        settings = kind.parse({n: v for n, v in stored.items() if n in kind.model_fields}, "record")
        self._kinetic = settings
        for name, factor in prior_factors(settings).items():
            self._numbers[name] = math.log(factor) / _Z95 * self._params.kinetic_share
            self.names.append(("kinetics", name))

    # --- the parameters of a draw ---------------------------------------------------------------
    def _computed(self, draw: Mapping[str, float]) -> dict[str, FloatArray]:
        """Tile parameters, (n,) each in its unit, from the stored objects of a draw."""
        self._draw = draw
        found: dict[str, FloatArray] = {}
        for group in self._columns:
            found |= group()
        return found

    def _shift_um(self, slide: str) -> tuple[float, float]:
        """Shift of a section, µm (row, column)."""
        if slide not in self.registration:
            return 0.0, 0.0
        sd = float(self.registration[slide]["sd_um"])
        return sd * self._draw[f"{slide}_row"], sd * self._draw[f"{slide}_column"]

    def _vascular(self) -> dict[str, FloatArray]:
        from napari_mosaik.features import moved_outlines, sum_in_tiles, vascular_parameters

        border_um = self._params.vessel_border_um * self._draw["vessel"]
        before = np.asarray(self._vessels["area_um2"], float)
        moved, _ = moved_outlines(self._vessels, border_um, self._vessel_min_um2)
        area = (
            sum_in_tiles(self._grid, table.points_um(), table["area_um2"])
            for table in (self._vessels, moved)
        )
        nominal, drawn = area
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(nominal > 0, drawn / nominal, 1.0)
        self._vessel_map = float(np.sum(moved["area_um2"])) / max(float(before.sum()), 1e-9)
        stored = np.asarray(self._table["vessel_area_fraction"], float)
        distance = np.asarray(self._table["vessel_distance_um"], float)
        table = vascular_parameters(
            self._grid,
            moved,
            tissue_area_um2=self._tissue_um2,
            vessel_area_um2=np.nan_to_num(stored) * self._tissue_um2 * ratio,
            distance_um=np.maximum(distance - border_um, 0.0),
        )
        return {name: np.asarray(table[name], float) for name in table}

    def _nuclear(self) -> dict[str, FloatArray]:
        from napari_mosaik.features import moved_outlines, nuclear_parameters

        border_um = self._params.nucleus_border_um * self._draw["nucleus"]
        moved, rows = moved_outlines(self._nuclei, border_um, self._nucleus_min_um2)
        factor = math.exp(self._params.haematoxylin_factor * self._draw["haematoxylin"])
        moved = moved.with_columns(
            {"haematoxylin_od": np.asarray(moved["haematoxylin_od"], float) * factor}
        )
        points = self._nuclei_um[rows] + np.array(self._shift_um("he"))
        table = nuclear_parameters(
            self._grid, moved, tissue_area_um2=self._tissue_um2, points_um=points
        )
        return {name: np.asarray(table[name], float) for name in table}

    def _caix(self) -> dict[str, FloatArray]:
        from napari_mosaik.features import caix_parameters

        factor = math.exp(self._params.caix_factor * self._draw["caix"])
        table = caix_parameters(
            self._grid,
            self._cells_um + np.array(self._shift_um("caix")),
            self._membrane_od10 * factor,
            cutoffs_od10=self._cutoffs.cutoffs,
        )
        return {name: np.asarray(table[name], float) for name in table}

    def _class_shares(
        self, shift_um: tuple[float, float]
    ) -> tuple[list[NDArray[np.uint8]], dict[str, FloatArray]]:
        """The maps with the tissue classes moved, and the fractions of the classes in each tile."""
        from napari_mosaik.predictor import moved_map, window_sums

        values = [moved_map(scale, shift_um, self._vessel_map) for scale in self.tiles.scales]
        neoplastic, other = window_sums(self.tiles.scales[0], values[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(neoplastic + other > 0, neoplastic / (neoplastic + other), np.nan)
        return values, {"neoplastic_fraction": share, "non_neoplastic_fraction": 1.0 - share}

    def _curves(self, table: Table) -> FloatArray | None:
        """Curves of the tiles (n, t, 3), µM, or of the patient (t, 3) as the network reads them."""
        from napari_mosaik.workflow.steps.kinetics import (
            CurveParams,
            DeliveredCurveParams,
            antigen_share,
        )

        if self._kinetic is None:
            return None
        moved = {
            name: float(getattr(self._kinetic, name)) * math.exp(sd * self._draw[name])
            for name, sd in self._numbers.items()
        }
        params = self._kinetic.model_copy(update=moved)
        if isinstance(params, CurveParams):
            from napari_mosaik.kinetics import solve_immunokinetic

            found = solve_immunokinetic(params, self._read(KINETICS)["time_h"])
            return np.asarray(found.normalised(found.free_um[0]), float)
        assert isinstance(params, DeliveredCurveParams)
        density = np.asarray(table["vessel_perimeter_density_per_um"], float)
        return tile_curves_um(density, antigen_share(table), params, np.array(TILE_TIMES_H))

    def at(self, numbers: FloatArray) -> TileInputs:
        """The inputs of the network for one draw, (d,) standard normal numbers, dimensionless."""
        found = self._computed(dict(zip((name for _, name in self.names), numbers, strict=True)))
        nominal, moved_by = {**self._nominal, **self._nominal_shares}, self._shift_um("he")
        maps, shares = self._class_shares(moved_by)
        columns: dict[str, FloatArray] = {}
        for name, values in {**found, **shares}.items():
            if name in self._table:
                stored = np.asarray(self._table[name], float)
                change = np.where(np.isfinite(values - nominal[name]), values - nominal[name], 0.0)
                top = 1.0 if name.endswith("_fraction") else np.inf
                top = np.inf if name == "caix_intensity_fraction" else top
                columns[name] = np.clip(stored + change, 0.0, top)
        table = self._table.with_columns(dict(columns))
        features = self.tiles.features.copy()
        for place, name in enumerate(self.tiles.feature_names):
            if name in columns:
                features[:, place] = columns[name]
        scales = tuple(
            replace(scale, values=values)
            for scale, values in zip(self.tiles.scales, maps, strict=True)
        )
        curves, drawn = self.tiles.curves, self._curves(table)
        if drawn is not None and self._nominal_curves is not None:
            change = np.nan_to_num(drawn - self._nominal_curves)
            curves = np.maximum(curves + change, 0.0)
        return replace(
            self.tiles,
            features=features,
            scales=(scales[0], scales[1], scales[2]),
            curves=curves,
            codes=self._codes(),
        )

    def _codes(self) -> NDArray[np.uint8]:
        """Cluster labels (n, 3, 11, 11); those of a section move with it, tile by tile."""
        from napari_mosaik.predictor import moved_codes

        stride_um = self._grid.stride_um
        steps = {
            place: np.rint(np.array(self._shift_um(slide)) / stride_um).astype(int)
            for place, slide in ((1, "he"), (2, "caix"))
        }
        return moved_codes(self.tiles.codes, self._grid, steps)
