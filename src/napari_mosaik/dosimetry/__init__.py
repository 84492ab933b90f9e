"""Dose what-if: time-integrated activity, absorbed dose, and the response of tissue to it."""

from napari_mosaik.dosimetry.indices import (
    DRAWN_INDICES,
    ActivityPlan,
    DoseVolume,
    DrawSummary,
    TumourControl,
    dose_volume,
    equivalent_uniform_dose,
    iter_summarise_draws,
    plan_activity,
    summarise_draws,
    tumour_control,
)
from napari_mosaik.dosimetry.kernel import KERNEL_COLUMNS, DoseKernel, spread_dose
from napari_mosaik.dosimetry.nuclides import (
    GY_G_PER_MBQ_H_MEV,
    NUCLIDES,
    Nuclide,
    dose_per_activity_gy,
    nuclide,
)
from napari_mosaik.dosimetry.pools import protraction
from napari_mosaik.dosimetry.repair import RepairState
from napari_mosaik.dosimetry.response import (
    Response,
    oxygen_effect,
    oxygen_from_distance,
    respond,
    uneven_ln_survival,
)
from napari_mosaik.dosimetry.time_integral import (
    TimeIntegral,
    curve_level,
    time_integrated_activity,
    time_integrated_exponentials,
)

__all__ = [
    "DRAWN_INDICES",
    "GY_G_PER_MBQ_H_MEV",
    "KERNEL_COLUMNS",
    "NUCLIDES",
    "ActivityPlan",
    "DoseKernel",
    "DoseVolume",
    "DrawSummary",
    "Nuclide",
    "RepairState",
    "Response",
    "TimeIntegral",
    "TumourControl",
    "curve_level",
    "dose_per_activity_gy",
    "dose_volume",
    "equivalent_uniform_dose",
    "iter_summarise_draws",
    "nuclide",
    "oxygen_effect",
    "oxygen_from_distance",
    "plan_activity",
    "protraction",
    "respond",
    "spread_dose",
    "summarise_draws",
    "time_integrated_activity",
    "time_integrated_exponentials",
    "tumour_control",
    "uneven_ln_survival",
]
