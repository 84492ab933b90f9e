"""Published regimens and arms of a virtual cohort, as plans with their sources and limits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from napari_mosaik.core.params import Params
from napari_mosaik.workflow.plan_record import Course, Plan

__all__ = ["ARM_SETS", "PRESETS", "Preset"]


class Preset(Params):
    """A published regimen as a plan, with its source and what limited it, in words."""

    title: str
    about: str
    plan: Plan


_LARGEST_LU_177: Final = 2405.0
_STILLEBROER: Final = (
    "Stillebroer et al. 2013, Eur Urol 64:478 (phase 1; 2405 MBq/m2 was the largest activity that "
    "was tolerated; retreatment after 3 months with 75 % of the activity before, at most three "
    "courses)"
)
_MERKX: Final = (
    "Merkx et al. 2021, Eur J Nucl Med Mol Imaging 48:3277 (5 or 10 mg of antibody, with Zr-89)"
)
_KRATOCHWIL: Final = (
    "Kratochwil et al. 2016, J Nucl Med 57:1941 (100 kBq/kg of Ac-225-PSMA-617, about 8 MBq)"
)
_OTHER_LIGAND: Final = (
    "illustrative: the activity of Ac-225 is that of another ligand, PSMA-617, not of girentuximab"
)
_MARROW: Final = "bone marrow limited the activity"


def _lutetium(n: int, share: float = 1.0) -> tuple[Course, ...]:
    """Courses of 177Lu-girentuximab as in its phase 1, of a share of the activity."""
    return tuple(
        Course(
            nuclide="Lu-177", activity=share * _LARGEST_LU_177 * 0.75**place, unit="MBq/m2",
            day=84.0 * place,
        )
        for place in range(n)
    )  # fmt: skip


def _actinium(mbq: float) -> Course:
    return Course(nuclide="Ac-225", activity=mbq, unit="MBq", day=0.0)


def _arm(
    title: str, about: str, sources: tuple[str, ...], limits: tuple[str, ...], **plan: Any
) -> Preset:
    """An arm of the virtual cohort as a preset; its first source tells it from the others."""
    own = (f"arm of the virtual cohort: {title}", *sources)
    return Preset(
        title=title, about=about, plan=Plan(name=title, sources=own, limits=limits, **plan)
    )


def _girentuximab() -> Preset:
    return Preset(
        title="177Lu-girentuximab phase 1",
        about="2405 MBq/m2, then twice 75 % of the previous activity, every 84 days (3 months)",
        plan=Plan(
            name="177Lu-girentuximab phase 1",
            courses=_lutetium(3),
            sources=(_STILLEBROER, "Muselaers et al. 2016, Eur Urol 69:767 (phase 2)"),
            limits=(
                _MARROW,
                "4 of 23 patients of phase 1 received a third course",
                "in phase 2 thrombocytopenia lasted so long that none received a third course",
            ),
        ),
    )


def _arms() -> tuple[Preset, ...]:
    lutetium, both = (_STILLEBROER,), (_STILLEBROER, _KRATOCHWIL)
    return (
        _arm(
            "177Lu 5 mg", "one course of 2405 MBq/m2 on 5 mg of antibody", (*lutetium, _MERKX),
            (_MARROW,), courses=_lutetium(1), antibody_mg=5.0,
        ),
        _arm(
            "177Lu 10 mg", "one course of 2405 MBq/m2 on 10 mg of antibody", (*lutetium, _MERKX),
            (_MARROW,), courses=_lutetium(1), antibody_mg=10.0,
        ),
        _arm(
            "177Lu one course", "one course of 2405 MBq/m2", lutetium, (_MARROW,),
            courses=_lutetium(1),
        ),
        _arm(
            "177Lu three courses", "2405 MBq/m2, then twice 75 % of the previous activity, every "
            "84 days", lutetium, (_MARROW, "4 of 23 patients of phase 1 received a third course"),
            courses=_lutetium(3),
        ),
        _arm(
            "225Ac one course", "one course of 8 MBq", (_KRATOCHWIL,), (_OTHER_LIGAND,),
            courses=(_actinium(8.0),),
        ),
        _arm(
            "177Lu and 225Ac one course", "1202.5 MBq/m2 of 177Lu and 4 MBq of 225Ac: half of each",
            both, (_OTHER_LIGAND, "illustrative: half of the activity of each"),
            courses=(*_lutetium(1, 0.5), _actinium(4.0)),
        ),
    )  # fmt: skip


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {preset.title: preset for preset in (_girentuximab(), *_arms())}
)
"""Published regimens and arms of a virtual cohort, by title."""
ARM_SETS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "mass": ("5 or 10 mg of antibody", ("177Lu 5 mg", "177Lu 10 mg")),
        "courses": ("One or three courses", ("177Lu one course", "177Lu three courses")),
        "nuclide": (
            "177Lu, 225Ac or both",
            ("177Lu one course", "225Ac one course", "177Lu and 225Ac one course"),
        ),
    }
)
"""What a virtual cohort may compare: words for it, and the presets that are its arms."""
