"""The updating twin of a case: predict the next scan, take it in, say what was learnt.

    CASE/invivo.csv, uptake of the slice ──► scans, in order of time
    CASE/twin/prior.json                     prior, settings and free parameters; written once
    CASE/twin/predictions/NNN_TIMEh.json     what was predicted of a scan before it was taken in
    CASE/twin/updates/NNN/                   posterior of all scans so far: record.json, draws.npy
    CASE/twin/decisions.jsonl                decisions; lines are only added, each on the one before
    CASE/twin/decisions_end.json             how many lines the record of decisions has

Nothing else in the folder is changed once it is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.catalogue import (
    ALIGNMENT,
    PARAMETERS,
    PREDICTION,
    SUV_RECORD,
    TILES,
    UPTAKE,
)
from napari_mosaik.core.errors import CorruptArtifact, InputError, MosaikError
from napari_mosaik.core.invivo import InvivoValue
from napari_mosaik.core.manifest import SEAL, file_digest, read_sealed, sealed
from napari_mosaik.core.params import Params, digest, setting
from napari_mosaik.core.pet_records import InjectionRecord
from napari_mosaik.core.progress import blocking, map_progress, run_to_end
from napari_mosaik.core.text import read_text
from napari_mosaik.dosimetry import NUCLIDES
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import json_ready, saving, write_bytes, write_json
from napari_mosaik.io.invivo import read_invivo
from napari_mosaik.twin import (
    Observation,
    Posterior,
    Prior,
    chain_posterior,
    predict,
    value_of_scan,
)
from napari_mosaik.twin.chain import Chain
from napari_mosaik.twin.data import CHAIN
from napari_mosaik.twin.identify import iter_scan_identifiability
from napari_mosaik.twin.posterior import iter_chain_posterior
from napari_mosaik.twin.scans import scored
from napari_mosaik.twin.verification import iter_verified_by_lines
from napari_mosaik.uptake import SuvKind
from napari_mosaik.uptake.suv import body_measure, net_dose_bq
from napari_mosaik.uptake.volume_of_interest import SIGMAS_PER_FWHM

__all__ = [
    "IN_DOUBT_Z",
    "PLAN_CHANGED",
    "PLAN_GONE",
    "PLAN_SAME",
    "TWIN_LIMITS",
    "CaseTwin",
    "TwinParams",
    "TwinScan",
    "begun_twin",
    "time_course_csv",
]

TWIN_LIMITS: Final = (
    "Three scans determine about two numbers. Parameters marked 'prior only' are assumptions; the "
    "band shows what is not known within the model, not whether the model is right."
)
IN_DOUBT_Z: Final = 3.0
"""A scan further from its prediction, in SD, is a warning."""
PLAN_SAME: Final = "as decided"
PLAN_CHANGED: Final = "changed since"
PLAN_GONE: Final = "no longer there"
"""What became of the plan of a decision."""
_FOLDER: Final = "twin"
_DECISIONS: Final = "decisions.jsonl"
_DECISIONS_END: Final = "decisions_end.json"
_FREE: Final = (
    "transfer_per_h", "k03_per_h", "plasma_start", "fast_half_life_h", "slow_half_life_h"
)  # fmt: skip
_EARLY_H: Final = 24.0
_KINDS: Final[dict[str, SuvKind]] = {"SUVbw": "bw", "SUVbsa": "bsa", "SUVlbm": "lbm"}
_ACTIVITY: Final = {"Bq/mL": 1.0, "kBq/mL": 1e-3}
_SLICE_ERROR: Final = 0.05
"""Calibration of the scanner of the slice, relative."""
_SLICE_FWHM_MM: Final = 1.5
"""Resolution of the scanner of the slice where the case states none."""
_SMALL_SLICE: Final = 0.9
"""A PET that shows less of a uniform uptake of the slice is a note."""
_RECOVERED: Final = "divided by the recovery"
_S_PER_H: Final = 3600.0
_SURGERY_H: Final = 336.0
_POSSIBLE_H: Final = (4.0, *np.arange(24.0, 1000.0, 24.0).tolist())
_LARGEST_CV: Final = 1.0
_GRID_FREE: Final = 2
_CURVE_H: Final = np.concatenate([[0.0], np.geomspace(1.0, 1000.0, 60)])
_Z90: Final = 1.6448536269514722
_NEW_IMAGES: Final = 2


class TwinParams(Params):
    """Settings of a twin: medians and SD of ln of its prior; the defaults are illustrative."""

    permeability_um_per_s: float = setting(
        3e-3, "Permeability of the vessel wall to the antibody.", unit="µm/s", gt=0
    )
    surface_density_per_um: float = setting(
        0.0,
        "Vessel perimeter per area; 0 takes the mean of the case's tiles (CD34), or 0.005 without.",
        unit="1/µm",
        ge=0,
    )
    transfer_sd: float = setting(
        1.5,
        "SD of ln of the transfer from plasma: 0.5 for the vessel surface of one section, the rest "
        "for permeability, perfusion and the living share of the tumour.",
        label="SD of ln transfer",
        gt=0,
    )
    k32_per_h: float = setting(0.2, "Rate of internalisation.", unit="1/h", label="k₃₂", gt=0)
    k32_sd: float = setting(0.5, "SD of ln of k₃₂.", label="SD of ln k₃₂", ge=0)
    k03_per_h: float = setting(
        8.33e-4, "Rate of loss of internalised antibody.", unit="1/h", label="k₀₃", gt=0
    )
    k03_sd: float = setting(1.0, "SD of ln of k₀₃.", label="SD of ln k₀₃", ge=0)
    plasma_volume_l: float = setting(3.0, "Plasma volume of the patient.", unit="L", gt=0)
    plasma_start: float = setting(
        0.0,
        "Plasma at injection in the unit of the scans; 0 computes it from injection record and "
        "plasma volume.",
        ge=0,
    )
    plasma_sd: float = setting(0.3, "SD of ln of the plasma at injection.", ge=0)
    fast_half_life_h: float = setting(12.0, "Half-life of the fast component.", unit="h", gt=0)
    slow_half_life_h: float = setting(90.0, "Half-life of the slow component.", unit="h", gt=0)
    half_life_sd: float = setting(0.3, "SD of ln of both half-lives.", ge=0)
    fast_fraction: float = setting(0.4, "Fraction of the fast component.", ge=0, le=1)
    blood_fraction: float = setting(0.05, "Blood volume of the tumour.", ge=0, lt=1)
    haematocrit: float = setting(0.45, "Share of cells in blood.", ge=0, lt=1)
    free: str = setting(
        "",
        "Free parameters, separated by commas; empty: all but k32, and k32 if a scan is earlier "
        "than 24 h.",
    )
    seed: int = setting(0, "Random seed of all draws.", ge=0)


@dataclass(frozen=True, slots=True)
class TwinScan:
    """All regions of one time; those that the model does not describe are kept beside it."""

    time_h: float
    rows: tuple[Observation, ...]
    others: tuple[Observation, ...] = ()

    @property
    def main(self) -> Observation:
        """The tumour, or the blood of a sample."""
        return max(self.rows, key=lambda row: row.region == "tumour")


class CaseTwin:
    """The twin of one case: what is stored in its folder ``twin``, and what comes next.

    Parameters
    ----------
    case
        The case.
    settings
        Changes of `TwinParams`; only before the first prediction is stored.
    recover_slice
        Whether the mean of the slice is divided by its recovery when it is taken in.

    Raises
    ------
    InputError
        If the stored twin is that of another patient, or its settings differ from those given.
    CorruptArtifact
        If a stored file was changed.
    """

    def __init__(
        self,
        case: Case,
        settings: Mapping[str, Any] | None = None,
        *,
        recover_slice: bool = False,
    ) -> None:
        self.case, self.recover_slice = case, recover_slice
        self.root = case.root / _FOLDER
        self.notes: list[str] = []
        self._changed: list[str] = []
        self._prior_file = _sealed_file(self.root / "prior.json")
        if self._prior_file is None:
            self.params = TwinParams.parse(settings or {}, "twin")
        else:
            self.params = self._kept(settings or {})

    def _kept(self, settings: Mapping[str, Any]) -> TwinParams:
        kept = self._prior_file
        assert kept is not None
        if kept["patient"] != self.case.patient:
            raise InputError(
                f"{self.root} is the twin of {kept['patient']}, not of {self.case.patient}: it "
                "belongs to another case; move it back"
            )
        before = TwinParams.parse(kept["settings"], "twin")
        asked = TwinParams.parse({**kept["settings"], **settings}, "twin")
        for name in TwinParams.model_fields:
            was, now = getattr(before, name), getattr(asked, name)
            if was != now:
                raise InputError(
                    f"this twin was begun with {name} = {was}; it cannot continue with {now}: a "
                    "prior is chosen before the first scan"
                )
        return before

    # --- scans ----------------------------------------------------------------------------------
    @cached_property
    def values(self) -> tuple[InvivoValue, ...]:
        """The rows of ``invivo.csv``."""
        return read_invivo(self.case.root)

    @cached_property
    def unit(self) -> str:
        """Unit of the twin: that of its scans."""
        if self._prior_file is not None:
            return str(self._prior_file["unit"])
        return self.values[0].unit if self.values else "SUVbw"

    @cached_property
    def updates(self) -> tuple[dict[str, Any], ...]:
        """The stored updates, in order."""
        found: list[dict[str, Any]] = []
        while (record := _sealed_file(self._update(len(found)) / "record.json")) is not None:
            found.append(record)
        left = sorted((self.root / "updates").glob("[0-9][0-9][0-9]"))[len(found) :]
        if left:  # a folder of an update comes whole or not at all
            raise CorruptArtifact(
                f"{self._update(len(found)) / 'record.json'} is missing: restore it, or move "
                f"{self.root} away and take the scans in again"
            )
        return tuple(found)

    def _update(self, number: int) -> Path:
        return self.root / "updates" / f"{number:03d}"

    @cached_property
    def taken(self) -> tuple[Observation, ...]:
        """What was taken in so far, as it was then."""
        if not self.updates:
            return ()
        return tuple(Observation(**row) for row in self.updates[-1]["observations"])

    @cached_property
    def scans(self) -> tuple[TwinScan, ...]:
        """All scans by time; of those that were taken in the rows as they were then."""
        rows = [_observation(value) for value in self.values]
        rows = [row for row in rows if row.region in ("tumour", "blood")] + self._slice(rows)
        others = [_observation(v) for v in self.values if v.region not in ("tumour", "blood")]
        known = {(row.time_h, row.region) for row in self.taken}
        self._compare(rows)
        rows = [*self.taken, *(row for row in rows if (row.time_h, row.region) not in known)]
        times = sorted({row.time_h for row in rows})
        return tuple(
            TwinScan(
                time,
                tuple(row for row in rows if row.time_h == time),
                tuple(row for row in others if row.time_h == time),
            )
            for time in times
        )

    def _compare(self, rows: Sequence[Observation]) -> None:
        now = {(row.time_h, row.region): row for row in rows}
        for row in self.taken:
            other = now.get((row.time_h, row.region))
            label = f"the {row.region} at {row.time_h:g} h"
            if other is None and not row.from_slice:
                self._changed.append(
                    f"{label} was taken in and is no longer in invivo.csv; the twin keeps it"
                )
            elif other is not None and (other.mean, other.sd) != (row.mean, row.sd):
                was, is_now = (f"{one.mean:g} ± {one.sd:g}" for one in (row, other))
                self._changed.append(
                    f"{label} was {was} when it was taken in and is {is_now} now; the twin keeps "
                    "what it took in"
                )

    @property
    def warnings(self) -> list[str]:
        """Scans far from their prediction, and scans that invivo.csv states otherwise by now."""
        far = [text for one in self.updates for text in one["warnings"]]
        return [*far, *self._changed] if self.scans else far

    def _slice(self, rows: Sequence[Observation]) -> list[Observation]:
        """The mean of the excised slice, if the case has it and its terms."""
        taken = [row for row in self.taken if row.from_slice]
        if taken:
            self.notes += [text for text in [self._slice_loss(taken[0])] if text]
            return taken
        if not rows:
            return []
        if not self.case.store.folder(UPTAKE).is_dir():
            if self.case.file.pet:
                self.notes.append(
                    "the slice is not used yet: its uptake was not computed; run the case first"
                )
            return []
        try:
            found = self._measured_slice()
        except MosaikError as error:
            self.notes.append(f"the slice is not used: {error}")
            return []
        if any((row.time_h, row.region) == (found.time_h, "tumour") for row in rows):
            self.notes.append("the slice is not used: invivo.csv has the tumour at its time")
            return []
        self.notes += [text for text in [self._slice_loss(found)] if text]
        return [found]

    def _slice_loss(self, taken: Observation) -> str:
        """A sentence on what the PET of a small slice loses; empty if little, or not known."""
        known = self.slice_recovery
        if known is None:
            return ""
        share, fwhm_mm = known
        words = (
            f"The slice is small for a PET resolution of {fwhm_mm:g} mm: its tiles would show "
            f"{100 * share:.0f} % of a uniform uptake on average; "
        )
        if _RECOVERED in taken.source:
            return f"{words}its mean was divided by that recovery"
        return f"{words}its mean is taken as measured and may be too low" * (share < _SMALL_SLICE)

    @cached_property
    def slice_recovery(self) -> tuple[float, float] | None:
        """Share of a uniform uptake that the tiles of the slice show, and FWHM of its PET, mm.

        The tissue of the tiles, seen with a Gaussian of that full width at half maximum, as a mean
        over the tiles with an uptake; nothing outside the tissue.  None without tiles or uptake.
        """
        if not all(self.case.store.folder(one).is_dir() for one in (TILES, UPTAKE)):
            return None
        from scipy.ndimage import gaussian_filter

        grid = self.case.store.read(TILES)
        suv = np.asarray(self.case.store.read(UPTAKE)["suv"], float)
        pet = self.case.file.pet
        fwhm_mm = (pet.fwhm_mm if pet else None) or _SLICE_FWHM_MM
        sigma = [1000 * fwhm_mm / SIGMAS_PER_FWHM / step for step in grid.lattice.spacing_um]
        tissue = np.nan_to_num(np.asarray(grid.paint(grid.coverage).values, float))
        shown = gaussian_filter(tissue, sigma, mode="constant").ravel()[grid.kept]
        seen = shown[np.isfinite(suv)]
        return (float(seen.mean()), fwhm_mm) if seen.size and seen.mean() > 0 else None

    def _measured_slice(self) -> Observation:
        hours = self._excision_h()
        if hours is None:
            raise InputError("the injection record lacks the time of injection or excision")
        suv = np.asarray(self.case.store.read(UPTAKE)["suv"], float)
        if not np.isfinite(suv).any():
            raise InputError("no tile has a measured uptake")
        kind = str(self.case.store.read(SUV_RECORD)["kind"])
        stated = next((unit for unit, known in _KINDS.items() if known == kind), "")
        mean = (
            float(np.nanmean(suv))
            * self.activity_measure(self.unit)
            / self.activity_measure(stated)
        )
        origin, words = self.case.store.origin(UPTAKE), ""
        if self.recover_slice:
            if self.slice_recovery is None:
                raise InputError("its recovery is not known without tiles and their uptake")
            mean /= self.slice_recovery[0]
            words = f", {_RECOVERED} {self.slice_recovery[0]:.3f}"
        return Observation(
            time_h=hours,
            region="tumour",
            mean=mean,
            sd=_SLICE_ERROR * mean,
            unit=self.unit,
            from_slice=True,
            source=f"uptake {origin.digest() if origin else ''}".strip() + words,
        )

    def activity_measure(self, unit: str) -> float:
        """Value of one unit of activity concentration per injected activity, 1/mL, in *unit*."""
        record = self.case.file.injection or InjectionRecord()
        if unit in _KINDS:
            return float(body_measure(record, _KINDS[unit]))
        if unit in _ACTIVITY:
            return float(net_dose_bq(record)) * _ACTIVITY[unit]
        raise InputError(f"the unit {unit!r} cannot be converted; give SUVbw, SUVbsa or Bq/mL")

    @property
    def next_scan(self) -> TwinScan | None:
        """The next scan that was not taken in, by time."""
        known = {(row.time_h, row.region) for row in self.taken}
        return next(
            (s for s in self.scans if any((r.time_h, r.region) not in known for r in s.rows)), None
        )

    @property
    def updates_with_new_images(self) -> bool:
        """Whether two scans of the tumour or more were taken in."""
        return len({row.time_h for row in self.taken if row.region == "tumour"}) >= _NEW_IMAGES

    # --- prior and posterior --------------------------------------------------------------------
    @cached_property
    def start(self) -> dict[str, Any]:
        """What the twin begins with: prior, constants, free parameters and where they come from."""
        if self._prior_file is not None:
            return self._prior_file
        p = self.params
        surface, source = self._surface()
        start = p.plasma_start or self.activity_measure(self.unit) / (1e3 * p.plasma_volume_l)
        pairs = {
            "transfer_per_h": (p.permeability_um_per_s * _S_PER_H * surface, p.transfer_sd),
            "k32_per_h": (p.k32_per_h, p.k32_sd),
            "k03_per_h": (p.k03_per_h, p.k03_sd),
            "plasma_start": (start, p.plasma_sd),
            "fast_half_life_h": (p.fast_half_life_h, p.half_life_sd),
            "slow_half_life_h": (p.slow_half_life_h, p.half_life_sd),
        }
        constants = {
            name: getattr(p, name) for name in ("fast_fraction", "blood_fraction", "haematocrit")
        }
        free = [name.strip() for name in p.free.split(",") if name.strip()] or list(_FREE)
        if not p.free and any(scan.time_h < _EARLY_H for scan in self.scans):
            free.insert(1, "k32_per_h")
        return {
            "case": self.case.name,
            "patient": self.case.patient,
            "unit": self.unit,
            "settings": p.model_dump(),
            "prior": {name: list(pair) for name, pair in pairs.items()},
            "constants": constants,
            "free": free,
            "surface_density_per_um": surface,
            "surface_source": source,
        }

    def _surface(self) -> tuple[float, str]:
        if self.params.surface_density_per_um:
            return self.params.surface_density_per_um, "given as a setting"
        store, column = self.case.store, "vessel_perimeter_density_per_um"
        table = None if store.origin(PARAMETERS) is None else store.read(PARAMETERS)
        if table is not None and column in table:
            tiles = np.asarray(table[column], float)
            if float(np.nansum(tiles)) > 0:
                n = int(np.isfinite(tiles).sum())
                return float(np.nanmean(tiles)), f"this patient's vessels on CD34, {n} tiles"
        return 0.005, "assumed: the vessels of this patient were not measured on CD34"

    @cached_property
    def prior(self) -> Prior:
        """The prior of the chain."""
        arguments = {name: tuple(self.start["prior"][name]) for name in CHAIN}
        return Prior.chain(**{**arguments, **self.start["constants"]})

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior of what was taken in: as it was stored, or the prior."""
        return self.posterior_after(len(self.updates))

    def posterior_after(self, n: int) -> Posterior:
        """The posterior as it was stored after *n* updates; the prior for 0.

        Raises
        ------
        CorruptArtifact
            If the stored draws were changed.
        """
        free = tuple(self.start["free"])
        if not n:
            return self.population
        last, place = self.updates[n - 1], self._update(n - 1) / "draws.npy"
        if not place.is_file() or file_digest(place) != last["draws"]:
            raise CorruptArtifact(f"{place} is damaged: its content is not what was written")
        draws = np.load(place, allow_pickle=False)
        mean, covariance = np.array(last["mean_ln"]), np.array(last["covariance"])
        seen = tuple(Observation(**row) for row in last["observations"])
        return Posterior(
            free, mean, covariance, np.sqrt(np.diag(covariance)), float(last["log_evidence"]),
            draws, "chain", self.prior, seen, last["method"], self.params.seed, draws,
            np.full(len(draws), 1 / len(draws)),
        )  # fmt: skip

    @property
    def population(self) -> Posterior:
        """The prior over the free parameters, as a posterior without data."""
        free = tuple(self.start["free"])
        return chain_posterior(
            [], self.prior, free=free, method=_method(free), seed=self.params.seed
        )

    def _begin(self) -> None:
        if self._prior_file is None:
            self._prior_file = {**json_ready(self.start), "created": _now()}
            write_json(self.root / "prior.json", sealed(self._prior_file))

    # --- predict and update ---------------------------------------------------------------------
    def _needed_scan(self) -> TwinScan:
        scan = self.next_scan
        if scan is None and not self.scans:
            raise InputError(
                f"case {self.case.name} has no scan of tumour or blood in invivo.csv; add them "
                "with: napari-mosaik invivo add"
            )
        if scan is None:
            raise InputError(f"all {len(self.scans)} scans of case {self.case.name} were taken in")
        return scan

    def predict_next(self) -> dict[str, Any]:
        """Prediction of the next scan, stored before it is taken in; the stored one if there is.

        Raises
        ------
        InputError
            If there is no scan that was not taken in.
        """
        scan = self._needed_scan()
        place = self._prediction(len(self.updates), scan.time_h)
        stored = _sealed_file(place)
        if stored is not None:
            return stored
        regions = []
        for row in scan.rows:
            seen = predict(self.posterior, scan.time_h, row.region, cv=row.ln_sd)
            ln = np.log(seen.draws[:, 0])
            regions.append(
                {
                    "region": row.region, "median": seen.median, "low": seen.low,
                    "high": seen.high, "ln_mean": float(ln.mean()), "ln_sd": float(ln.std()),
                    "noise_ln_sd": row.ln_sd, "from_slice": row.from_slice,
                }
            )  # fmt: skip
        main = next(one for one in regions if one["region"] == scan.main.region)
        with self.case.writing():
            self._begin()
            record = json_ready(
                {
                    "time_h": scan.time_h,
                    **{name: main[name] for name in ("region", "median", "low", "high")},
                    "unit": self.unit,
                    "stored_at": _now(),
                    "regions": regions,
                    "n_updates": len(self.updates),
                    "data": _data_digest(self.taken),
                }
            )
            write_json(place, sealed(record))
        return dict(record)

    def iter_take_in_next(self) -> Generator[Progress, None, dict[str, Any]]:
        """Take in the next scan by time: score its stored prediction, store the posterior.

        Yields
        ------
        Progress
            What is done; a stop before the end leaves the prediction and stores nothing else.

        Raises
        ------
        InputError
            If there is no scan that was not taken in, or the observations do not fit the model.
        SolverError
            If the posterior could not be computed.
        CorruptArtifact
            If the record of decisions is damaged.
        """
        scan = self._needed_scan()
        if self.recover_slice and not scan.main.from_slice:
            raise InputError(
                f"the recovery is that of the slice, and the next scan is at {scan.time_h:g} h; "
                "choose it when the slice is next"
            )
        self.decisions()  # what is observed is added to them: a damaged record stops it here
        yield Progress(0, 1, "prediction")
        prediction = self.predict_next()
        before = self.posterior
        known = {(row.time_h, row.region) for row in self.taken}
        new = [row for row in scan.rows if (row.time_h, row.region) not in known]
        work = iter_chain_posterior(
            [*self.taken, *new],
            self.prior,
            free=before.names,
            method=_method(self.start["free"]),
            seed=self.params.seed,
        )
        after = yield from map_progress(work, partial(_share, "posterior", 0.05, 0.3))
        parameters = yield from map_progress(
            self._iter_parameters(after), partial(_share, "identifiability", 0.3, 0.6)
        )
        verification = yield from map_progress(
            iter_verified_by_lines(after.observations), partial(_share, "checks", 0.6, 0.99)
        )
        regions: list[dict[str, Any]] = []
        for row in new:
            z, score = scored(before, row)
            regions.append({"region": row.region, "mean": row.mean, "z": z, "log_score": score})
        main = next((one for one in regions if one["region"] == scan.main.region), regions[0])
        record: dict[str, Any] = {
            "time_h": scan.time_h,
            **{name: main[name] for name in ("region", "mean", "z")},
            "log_score": after.log_evidence - before.log_evidence,
            "taken_in_at": _now(),
            "unit": self.unit,
            "regions": regions,
            "warnings": [self._doubt(scan, one) for one in regions if abs(one["z"]) > IN_DOUBT_Z],
            "notes": list(after.notes),
            "prediction": {
                name: prediction[name] for name in ("stored_at", "median", "low", "high")
            },
            "observations": [asdict(row) for row in after.observations],
            "data": _data_digest(after.observations),
            "prior": digest(json_ready(self.start["prior"])),
            "names": list(after.names),
            "mean_ln": after.mean.tolist(),
            "covariance": after.covariance.tolist(),
            "log_evidence": after.log_evidence,
            "method": after.method,
            "seed": self.params.seed,
            "parameters": parameters,
            "verification": verification,
        }
        yield Progress(0.99, 1, "storing")
        self._store(record, after)
        return record

    take_in_next = blocking(iter_take_in_next)

    def _doubt(self, scan: TwinScan, one: Mapping[str, Any]) -> str:
        return (
            f"the {one['region']} at {scan.time_h:g} h lies {abs(one['z']):.1f} SD "
            f"{'above' if one['z'] > 0 else 'below'} its prediction: check the scan, its unit and "
            "the prior before the twin is used"
        )

    def _store(self, record: dict[str, Any], after: Posterior) -> None:
        place = self._update(len(self.updates))
        with self.case.writing(), saving("the update of the twin", place):
            if place.exists():
                raise InputError(f"{place} exists already: another update took this scan in")
            with atomic_folder(place) as folder:
                np.save(folder / "draws.npy", after.draws, allow_pickle=False)
                record["draws"] = file_digest(folder / "draws.npy")
                write_json(folder / "record.json", sealed(json_ready(record)))
            self._observe(record, len(self.updates))
        self.case.log("twin", time_h=record["time_h"], z=record["z"])
        self._changed.clear()
        for name in ("updates", "taken", "scans", "posterior"):
            self.__dict__.pop(name, None)

    # --- what was learnt ------------------------------------------------------------------------
    def status(self) -> dict[str, Any]:
        """Scans, parameters with their words, and what comes next, as a document."""
        known = {(row.time_h, row.region) for row in self.taken}
        times = {time for time, _ in known}
        scans = []
        for scan in self.scans:
            rows = [(row, (row.time_h, row.region) in known, True) for row in scan.rows]
            rows += [(row, scan.time_h in times, False) for row in scan.others]
            scans += [
                {
                    "time_h": row.time_h, "region": row.region, "mean": row.mean, "sd": row.sd,
                    "unit": row.unit, "taken_in": taken, "modelled": modelled,
                    "from_slice": row.from_slice,
                }
                for row, taken, modelled in rows
            ]  # fmt: skip
        after = self.scans and self.next_scan
        return {
            "case": self.case.name,
            "scans": scans,
            "parameters": self._parameters(),
            "fixed": {
                name: self.start["prior"][name][0]
                for name in CHAIN
                if name not in self.posterior.names
            },
            "updates": [
                {
                    name: one[name]
                    for name in (
                        "time_h",
                        "region",
                        "mean",
                        "z",
                        "log_score",
                        "taken_in_at",
                        "warnings",
                        "regions",
                    )
                }
                for one in self.updates
            ],
            "updates_with_new_images": self.updates_with_new_images,
            "next_scan": {"time_h": after.time_h, "region": after.main.region} if after else None,
            "slice_recovery": self.slice_recovery and self.slice_recovery[0],
            "surface_density_per_um": self.start["surface_density_per_um"],
            "surface_source": self.start["surface_source"],
            "notes": [*self.notes, *self.posterior.notes],
            "warnings": self.warnings,
            "decisions": self._decisions_now(),
            "limits": TWIN_LIMITS,
        }

    def _parameters(self) -> list[dict[str, Any]]:
        """The parameters with their words: as stored with the last update, or of the prior."""
        if self.updates:
            return list(self.updates[-1]["parameters"])
        return run_to_end(self._iter_parameters(self.posterior))

    def _iter_parameters(
        self, posterior: Posterior
    ) -> Generator[float, None, list[dict[str, Any]]]:
        found = yield from iter_scan_identifiability(
            "chain", self.prior, posterior.observations, free=posterior.names
        )
        if posterior.observations:
            bands = np.exp(np.percentile(posterior.draws, [5, 50, 95], axis=0))
        else:
            reach = _Z90 * posterior.sd
            bands = np.exp(posterior.mean + np.outer([-1, 0, 1], reach))
        return [
            {
                "name": row.name, "median": float(median), "low": float(low), "high": float(high),
                "contraction": row.contraction, "word": row.word,
                "prior_median": self.start["prior"][row.name][0],
                "prior_sd": self.start["prior"][row.name][1],
            }
            for row, low, median, high in zip(found.rows, *bands, strict=True)
        ]  # fmt: skip

    def iter_identify(self) -> Generator[float, None, dict[str, Any]]:
        """Rows of `identifiability`, singular values and correlated pairs, as a document."""
        found = yield from iter_scan_identifiability(
            "chain", self.prior, self.taken, free=self.posterior.names
        )
        return {
            "rows": [asdict(row) for row in found.rows],
            "singular_values": found.singular_values.tolist(),
            "correlated": [list(pair) for pair in found.correlated],
            "n_observations": len(self.taken),
        }

    identify = blocking(iter_identify)

    def worth_of_scans(
        self, times_h: Sequence[float], target: tuple[str, float] | None, cv: float
    ) -> dict[str, Any]:
        """SD of ln of a target after one more scan at each time, h, as a document."""
        aim = target or ("uptake", self.surgery_h)
        found = value_of_scan(self.posterior, times_h, aim, cv=cv)
        best = int(np.argmin(found.sd_after))
        return {
            "target": list(aim),
            "cv": cv,
            "time_h": found.time_h.tolist(),
            "sd_before": found.sd_before.tolist(),
            "sd_after": found.sd_after.tolist(),
            "reduction": found.reduction.tolist(),
            "best_time_h": float(found.time_h[best]),
        }

    @property
    def surgery_h(self) -> float:
        """Time of the excision after injection, h; day 14 if the injection record lacks it."""
        return self._excision_h() or _SURGERY_H

    @property
    def now_h(self) -> float:
        """Time of the last scan that was taken in, h after injection; 0 before the first."""
        return max((row.time_h for row in self.taken), default=0.0)

    def worth_before_surgery(self, target: tuple[str, float], cv: float) -> dict[str, Any] | None:
        """`worth_of_scans` at times from now until surgery; None where no time is left."""
        times = [time for time in _POSSIBLE_H if self.now_h < time < self.surgery_h]
        return self.worth_of_scans(times, target, cv) if times else None

    def prediction_before(self, n: int) -> dict[str, Any] | None:
        """What was predicted and stored before update *n*, from 0, which may be the next one.

        None where there is no such prediction or scan.
        """
        if n < len(self.updates):
            return _sealed_file(self._prediction(n, self.updates[n]["time_h"]))
        scan = self.next_scan
        return None if scan is None else _sealed_file(self._prediction(n, scan.time_h))

    def _prediction(self, n: int, time_h: float) -> Path:
        return self.root / "predictions" / f"{n:03d}_{time_h:g}h.json"

    def time_course(self, half_life_h: float, n_draws: int = 0) -> dict[str, Any]:
        """The tumour's curve with its band, for the dose, as a document.

        ``activity_mbq_ml`` is the median as activity of the injected tracer, decay-corrected to
        injection, and ``draws`` holds the first *n_draws* draws of the same; ``time_course_cv`` is
        the coefficient of variation of the time integral of a label with this half-life, h, for a
        given uptake at the excision.  The excision is among the times.

        Raises
        ------
        InputError
            If the injected activity is missing.
        """
        mbq = float(net_dose_bq(self.case.file.injection or InjectionRecord())) * 1e-6
        at_h = self.surgery_h
        times = np.union1d(_CURVE_H, [at_h])
        curve = predict(self.posterior, times)
        chain = Chain(self.prior, self.posterior.names)
        ln_hours = chain.ln_integral(self.posterior.draws, half_life_h)
        ln_level = chain.ln_curve(self.posterior.draws, [at_h], "tumour")[:, 0]
        spread = float(np.std(ln_hours - ln_level))
        per_unit = mbq / self.activity_measure(self.unit)
        return {
            "time_h": times.tolist(),
            "median": np.asarray(curve.median).tolist(),
            "low": np.asarray(curve.low).tolist(),
            "high": np.asarray(curve.high).tolist(),
            "unit": self.unit,
            "activity_mbq_ml": (np.asarray(curve.median) * per_unit).tolist(),
            "draws": (curve.draws[:n_draws] * per_unit).tolist(),
            "half_life_h": half_life_h,
            "uptake_at_h": at_h,
            "time_course_cv": math.sqrt(math.expm1(spread**2)),
            "n_updates": len(self.updates),
        }

    def _excision_h(self) -> float | None:
        """Time of the excision after injection, h, if the injection record has both."""
        record = self.case.file.injection
        if record is None or record.injected is None or record.excised is None:
            return None
        return (record.excised - record.injected).total_seconds() / _S_PER_H

    def write_map(
        self, path: Path, at_h: float, uptake: Literal["best", "predicted", "measured"] = "best"
    ) -> dict[str, Any]:
        """Write the uptake of the tiles at a time, h after injection, as NIfTI, a JSON beside it.

        The SUV of a tile times the median over the draws of the tumour's curve at that time, as a
        multiple of it at the excision; decay-corrected to injection.  One voxel a tile, NaN where
        there is no uptake; lengths of living tissue.

        Parameters
        ----------
        path
            A ``.nii`` file.
        at_h
            Time after injection, h; 0 to 1000.
        uptake
            Of the tiles: predicted, measured, or the first of them that the case has.

        Returns
        -------
        dict
            What the JSON states: unit, times, ``ratio`` with its 5 and 95 %, voxel size, affine.

        Raises
        ------
        InputError
            If no scan of the tumour was taken in, the case lacks uptake or time of the excision,
            the time is not possible, or the file is no ``.nii``.
        """
        from napari_mosaik.register import transform_of
        from napari_mosaik.workflow.dose_exchange import nifti_bytes
        from napari_mosaik.workflow.plan_facts import SHRINKAGE

        if path.suffix.lower() != ".nii":
            raise InputError(f"'{path.name}' is not a .nii file: change its name")
        if not 0 <= at_h <= _CURVE_H[-1]:
            raise InputError(f"the map needs a time of 0 to {_CURVE_H[-1]:g} h, not {at_h:g} h")
        if not any(row.region == "tumour" for row in self.taken):
            raise InputError("no scan of the tumour was taken in: the map would be the prior alone")
        excised_h, store = self._excision_h(), self.case.store
        if excised_h is None:
            raise InputError(
                "the uptake of the tiles has no time: give the time of injection and of excision "
                "in the injection record"
            )
        kinds = {"predicted": PREDICTION, "measured": UPTAKE}
        wanted = list(kinds) if uptake == "best" else [uptake]
        which = next((name for name in wanted if store.folder(kinds[name]).is_dir()), None)
        if which is None:
            raise InputError(f"the case has no {' or '.join(wanted)} uptake; run that step first")
        table, grid = store.read(kinds[which]), store.read(TILES)
        curves = predict(self.posterior, [excised_h, at_h]).draws
        low, ratio, high = np.percentile(curves[:, 1] / curves[:, 0], [5, 50, 95]).tolist()
        placed = store.folder(ALIGNMENT["pet"]).is_dir()
        scale = transform_of(store.read(ALIGNMENT["pet"])).scale if placed else SHRINKAGE
        high_mm, wide_mm = (step / scale / 1e3 for step in grid.lattice.spacing_um)
        values = np.asarray(grid.paint(np.asarray(table["suv"], float) * ratio).values, float)
        voxel_mm = (wide_mm, high_mm, high_mm)
        write_bytes(path, nifti_bytes(values, voxel_mm, placed=True))
        stated = json_ready(
            {
                "Units": table.unit("suv"),
                "quantity": "SUV, decay-corrected to injection",
                "uptake": which,
                "time_h": at_h,
                "uptake_at_h": excised_h,
                "ratio": {"median": ratio, "low": low, "high": high},
                "voxel_mm": {"column": wide_mm, "row": high_mm, "thickness": high_mm},
                "affine": "x along the columns, y against the rows, from the upper left corner",
                "lengths": f"living tissue: those of the section / {scale:.4g}",
                "case": self.case.name,
                "n_updates": len(self.updates),
                "data": _data_digest(self.taken),
                "seed": self.params.seed,
                "warnings": list(self.updates[-1]["warnings"]),
                "limitations": [TWIN_LIMITS, "Every tile is taken to follow the tumour's curve."],
            }
        )
        write_json(path.with_suffix(".json"), stated)
        return dict(stated)

    # --- decisions ------------------------------------------------------------------------------
    def decide(self, plan: str, by: str, note: str = "") -> dict[str, Any]:
        """Add a decision to the record: plan, by whom, what is known and predicted now.

        ``plan_digest`` tells whether the plan is still what was decided on.

        Raises
        ------
        InputError
            If plan or name is empty, or the case has no such plan.
        """
        from napari_mosaik.workflow.plans import plan_digest, read_plan

        if not plan.strip() or not by.strip():
            raise InputError("a decision needs the name of the plan and who decided")
        chosen = read_plan(self.case.root, plan.strip())
        scan = self.next_scan
        line = json_ready(
            {
                "time": _now(),
                "plan": plan.strip(),
                "plan_digest": plan_digest(self.case.root, chosen),
                "by": by.strip(),
                "note": note,
                "n_updates": len(self.updates),
                "data": _data_digest(self.taken),
                "parameters": self._parameters(),
                "predicted": None if scan is None else self.predict_next(),
            }
        )
        with self.case.writing():
            self._add_decision(line)
        return dict(line)

    def decisions(self) -> list[dict[str, Any]]:
        """The lines of the record: decisions, and what was observed later, in order.

        Raises
        ------
        CorruptArtifact
            If a line was changed, doubled or moved, or lines are gone.
        """
        return [line for line, _ in self._sealed_decisions()]

    def _sealed_decisions(self) -> list[tuple[dict[str, Any], str]]:
        """The lines of the record, each with its seal.

        A line has its number and the seal of the one before; those of earlier versions have not.
        """
        place, end = self.root / _DECISIONS, _sealed_file(self.root / _DECISIONS_END)
        if end is None and not place.is_file():
            return []
        found: list[tuple[dict[str, Any], str]] = []
        seals, chained = [""], 0
        for number, text in enumerate(read_text(place).splitlines() if place.is_file() else (), 1):
            line, seal = self._sealed_line(number, text)
            chained += "line" in line
            stated = line.pop("line", number), line.pop("before", seals[-1])
            if stated != (number, seals[-1]) or seal in seals:
                raise self._damaged(
                    f", line {number}, is damaged: lines are missing before it, or it was doubled "
                    "or moved"
                )
            seals.append(seal)
            found.append((line, seal))
        if not found:  # it is written with its first line
            raise self._damaged(" is damaged: it holds no decision")
        if end is None and chained > 1:
            raise self._damaged(f" may lack lines: {_DECISIONS_END} is missing")
        if end is not None and seals[end["lines"] : end["lines"] + 1] != [end["last"]]:
            raise self._damaged(
                f" is damaged: it had {end['lines']} lines, of which the last are missing"
            )
        return found

    def _sealed_line(self, number: int, text: str) -> tuple[dict[str, Any], str]:
        try:
            line: dict[str, Any] = json.loads(text)
            seal = str(line.pop(SEAL))
            whole = digest(line) == seal
        except (ValueError, KeyError, AttributeError, TypeError):
            whole = False
        if not whole:
            raise self._damaged(f", line {number}, is damaged: it was changed")
        return line, seal

    def _damaged(self, how: str) -> CorruptArtifact:
        return CorruptArtifact(
            f"{self.root / _DECISIONS}{how}; restore it from a copy of the case, or move it and "
            f"{_DECISIONS_END} away to begin a new record"
        )

    def _decisions_now(self) -> list[dict[str, Any]]:
        """The lines of the record; decisions with what became of their plan (``plan_now``)."""
        from napari_mosaik.workflow.plans import plan_digest, read_plans

        found = self.decisions()
        if not any("plan_digest" in line for line in found):
            return found
        root = self.case.root
        now = {name: plan_digest(root, plan) for name, plan in read_plans(root).items()}
        for line in found:
            if "plan_digest" in line:
                same = now.get(line["plan"]) == line["plan_digest"]
                changed = PLAN_CHANGED if line["plan"] in now else PLAN_GONE
                line["plan_now"] = PLAN_SAME if same else changed
        return found

    def _add_decision(self, line: Mapping[str, Any]) -> None:
        place, before = self.root / _DECISIONS, self._sealed_decisions()
        chain = {"line": len(before) + 1, "before": before[-1][1] if before else ""}
        whole = sealed({**line, **chain})
        kept = place.read_bytes().rstrip() + b"\n" if before else b""
        write_bytes(place, kept + json.dumps(whole, sort_keys=True).encode() + b"\n")
        write_json(
            self.root / _DECISIONS_END, sealed({"lines": chain["line"], "last": whole[SEAL]})
        )

    def _observe(self, record: Mapping[str, Any], number: int) -> None:
        """Add what was observed to the record of each decision that predicted this scan."""
        for line in self.decisions():
            if "plan" in line and line["n_updates"] == number and line["predicted"]:
                observed = {name: record[name] for name in ("time_h", "region", "mean", "z")}
                observed |= {"time": record["taken_in_at"], "observed_of": line["time"]}
                self._add_decision(json_ready({**observed, "plan_was": line["plan"]}))

    def observe(self, number: int, by: str, text: str) -> dict[str, Any]:
        """Add to the record what was observed after decision *number*, from 1.

        Raises
        ------
        InputError
            If there is no such decision, or text or name is empty.
        """
        made = [line for line in self.decisions() if "plan" in line]
        if not 1 <= number <= len(made):
            raise InputError(f"there is no decision {number}; the record has {len(made)}")
        if not text.strip() or not by.strip():
            raise InputError("give what was observed, and by whom")
        line = {"time": _now(), "by": by.strip(), "observed": text.strip()}
        line |= {"observed_of": made[number - 1]["time"], "plan_was": made[number - 1]["plan"]}
        with self.case.writing():
            self._add_decision(line)
        return line

    # --- dose -----------------------------------------------------------------------------------
    def use_in_plan(self, name: str) -> dict[str, Any]:
        """Give the stored plan *name* the time course of the tumour, and how uncertain it is.

        The plan gets the median curve as its time course with one curve for each of its draws,
        from the draws of the posterior, so ``spreads.time_course`` becomes 0: draw i of the dose
        has curve i.

        Returns
        -------
        dict
            ``plan``, ``before`` (its time course until now), ``n_draws``, ``time_course_cv`` (of
            the time integral of its nuclide for a given uptake at the excision, the largest of
            several nuclides), ``warnings``.

        Raises
        ------
        InputError
            If no scan of the tumour was taken in, the plan has no course, the injection record
            lacks the time of the excision, or the time integral is not known to a CV of 1.
        """
        from napari_mosaik.workflow.plan_record import TWIN_SOURCE
        from napari_mosaik.workflow.plans import read_plan, write_plan

        plan = read_plan(self.case.root, name)
        if not plan.courses:
            raise InputError(
                f"the plan '{name}' has fractions only: without a course it has no time course"
            )
        if not any(row.region == "tumour" for row in self.taken):
            raise InputError(
                "no scan of the tumour was taken in: the time course would be the prior alone; "
                "take in a scan first"
            )
        if self._excision_h() is None:
            raise InputError(
                "the uptake of the tiles has no time: give the time of injection and of excision "
                "in the injection record"
            )
        half_lives = {NUCLIDES[course.nuclide].half_life_h for course in plan.courses}
        found = [self.time_course(half_life, plan.draws) for half_life in sorted(half_lives)]
        cv = max(one["time_course_cv"] for one in found)
        if cv > _LARGEST_CV:
            raise InputError(
                f"the scans leave the time integral uncertain by a CV of {cv:.2g}, more than a "
                f"dose can be drawn from ({_LARGEST_CV:g}); take in a later scan first"
            )
        n_draws = len(found[0]["draws"])
        source = f"{TWIN_SOURCE} after {len(self.updates)} scans, data {_data_digest(self.taken)}, "
        source += f"{n_draws} draws, seed {self.params.seed}"
        kept = tuple(text for text in plan.sources if not text.startswith(TWIN_SOURCE))
        with TemporaryDirectory() as folder:
            file = Path(folder) / "curve.csv"
            write_bytes(file, time_course_csv(found[0]))
            spreads = plan.spreads.model_copy(update={"time_course": 0.0})
            changes = {"shape": str(file), "spreads": spreads, "sources": (*kept, source)}
            write_plan(self.case.root, plan.model_copy(update=changes), replace=True)
        self.case.log("twin", plan=name)
        return {
            "plan": name,
            "before": plan.shape,
            "n_draws": n_draws,
            "time_course_cv": cv,
            "n_updates": len(self.updates),
            "warnings": list(self.updates[-1]["warnings"]),
        }


def time_course_csv(course: Mapping[str, Any]) -> bytes:
    """A document of `CaseTwin.time_course` as a table that `read_time_course` reads.

    Median and draws in MBq/mL; the draws have 8 digits.
    """
    names = [f"draw_{number}" for number in range(1, len(course["draws"]) + 1)]
    lines = [",".join(["time_h", "activity_mbq_ml", *names])]
    for time, level, *drawn in zip(
        course["time_h"], course["activity_mbq_ml"], *course["draws"], strict=True
    ):
        lines.append(",".join([f"{time!r},{level!r}", *(f"{one:.8g}" for one in drawn)]))
    return ("\n".join(lines) + "\n").encode()


def begun_twin(case: Case) -> CaseTwin | None:
    """The twin of a case; None before its first scan was taken in."""
    if not (case.root / _FOLDER / "updates").is_dir():
        return None
    twin = CaseTwin(case)
    return twin if twin.updates else None


def _sealed_file(path: Path) -> dict[str, Any] | None:
    try:
        return read_sealed(path)
    except FileNotFoundError:
        return None


def _share(text: str, start: float, stop: float, share: float) -> Progress:
    return Progress(start + (stop - start) * share, 1, text)


def _method(free: Sequence[str]) -> Literal["grid", "laplace"]:
    return "grid" if len(free) <= _GRID_FREE else "laplace"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _observation(value: InvivoValue) -> Observation:
    names = ("time_h", "region", "mean", "sd", "unit", "decay_reference", "volume_ml", "source")
    return Observation(**{name: getattr(value, name) for name in names})


def _data_digest(rows: Sequence[Observation]) -> str:
    return digest([asdict(row) for row in rows])
