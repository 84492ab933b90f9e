"""The plans of the dose what-if of a case, as files: written, read, renamed, compared by digest.

Plan  ──write_plan──►  CASE/plans/NAME.toml  (and the files that it names, beside it)
CASE  ──read_plans──►  {name: Plan}, at most four
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from napari_mosaik.core.errors import InputError
from napari_mosaik.core.manifest import file_digest
from napari_mosaik.core.params import digest
from napari_mosaik.core.text import natural_key, read_toml, same_words
from napari_mosaik.dosimetry import DoseKernel
from napari_mosaik.dosimetry.time_integral import decayed_curve
from napari_mosaik.io.files import saving, write_bytes, write_lock
from napari_mosaik.workflow.plan_presets import ARM_SETS, PRESETS
from napari_mosaik.workflow.plan_record import PLAN_KERNELS, PLAN_SHAPES, Plan, parse_plan

__all__ = [
    "PLANS_KEPT",
    "add_arms",
    "change_plan",
    "free_plan_name",
    "plan_digest",
    "plan_files",
    "read_plan",
    "read_plans",
    "remove_plan",
    "rename_plan",
    "restore_plans",
    "write_plan",
]

PLANS_KEPT: Final = 4
_FOLDER: Final = "plans"


def plan_folder(root: Path) -> Path:
    """Folder of the plans of a case."""
    return root / _FOLDER


def _paths(root: Path) -> list[Path]:
    found = [path for path in plan_folder(root).glob("*.toml") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: natural_key(path.stem))


def read_plans(root: Path) -> dict[str, Plan]:
    """All plans of a case by name, in natural order; empty without one.

    Raises
    ------
    InputError
        If one cannot be read, two names differ by case only, or there are more than four.
    """
    paths = _paths(root)
    if len(paths) > PLANS_KEPT:
        raise InputError(
            f"{plan_folder(root)} holds {len(paths)} plans, at most {PLANS_KEPT} are compared; "
            f"remove '{paths[-1].stem}' or another one"
        )
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(same_words(path.stem), path.stem)
        if other != path.stem:
            raise InputError(f"the plans '{other}' and '{path.stem}' have one name; rename one")
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Plan:
    values = read_toml(path)
    if "name" in values:
        raise InputError(f"{path}: the name of a plan is that of its file; remove the entry 'name'")
    return parse_plan({**values, "name": path.stem}, str(path))


def read_plan(root: Path, name: str) -> Plan:
    """One plan of a case; raises `InputError` with the names that there are for another one."""
    paths = {path.stem: path for path in _paths(root)}
    if name not in paths:
        there = "the case has no plan: give it one on the page 'Dose what-if', or with: dose CASE"
        if paths:
            there = f"the plans of the case are: {', '.join(paths)}"
        raise InputError(f"there is no plan {name!r}; {there}")
    return _read(paths[name])


def plan_digest(root: Path, plan: Plan) -> str:
    """Digest of what a plan says, whatever its name, and of the files that it names.

    Raises
    ------
    InputError
        If one of the files is missing.
    """
    files = {key: plan_folder(root) / file for key, file in plan.files.items()}
    for path in files.values():
        if not path.is_file():
            raise InputError(f"{path} is missing: the plan names it; give the plan again")
    content = {key: file_digest(path) for key, path in files.items()}
    return digest([plan.model_copy(update=dict.fromkeys(files, "")).text(), content])


def write_plan(root: Path, plan: Plan, *, replace: bool = False) -> Plan:
    """Write a plan into its case, whole; the files that it names are copied beside it.

    Parameters
    ----------
    root
        Folder of the case.
    plan
        The plan.
    replace
        Whether a plan of this name is replaced.

    Returns
    -------
    Plan
        As it is stored: the files that it names lie in the folder of the plans.

    Raises
    ------
    InputError
        If another plan has the name (also with other case), it would be the fifth, a file that it
        names is missing, or no plan can have the name.
    """
    plan = parse_plan(plan.model_dump(), f"plan '{plan.name}'")
    with write_lock(root, f"case {root.name}"):
        names = [path.stem for path in _paths(root)]
        same = next((name for name in names if same_words(name) == same_words(plan.name)), "")
        if same and not (replace and same == plan.name):
            also = "" if same == plan.name else f", which differs from '{plan.name}' by case only"
            raise InputError(
                f"a plan has the name '{same}' already{also}; choose another name, or replace it"
            )
        if not same and len(names) >= PLANS_KEPT:
            raise InputError(
                f"'{plan.name}' would be plan {len(names) + 1}, at most {PLANS_KEPT} are compared; "
                f"remove one of: {', '.join(names)}"
            )
        stored = plan.model_copy(update=_kept_files(root, plan))
        write_bytes(plan_folder(root) / f"{plan.name}.toml", stored.text().encode())
        return stored


def add_arms(root: Path, key: str) -> tuple[str, ...]:
    """Add the presets of one of `ARM_SETS` to the plans of a case; returns their names.

    A plan of that name stays as it is.  Tumour volume and clonogenic cells are those of the plans
    that are there, if all state the same.

    Raises
    ------
    InputError
        If there is no such set, or the case would have more than four plans.
    """
    if key not in ARM_SETS:
        raise InputError(f"there are no arms '{key}'; choose from: {', '.join(ARM_SETS)}")
    there, names = read_plans(root), ARM_SETS[key][1]
    new = [name for name in names if name not in there]
    if len(there) + len(new) > PLANS_KEPT:
        others = ", ".join(name for name in there if name not in names)
        raise InputError(
            f"the arms {', '.join(new)} would make {len(there) + len(new)} plans, at most "
            f"{PLANS_KEPT} are kept; remove some of: {others}"
        )
    entries = ("tumour_ml", "clonogens", "clonogens_per_ml")
    stated = {tuple(getattr(plan, entry) for entry in entries) for plan in there.values()}
    tumour = dict(zip(entries, stated.pop(), strict=True)) if len(stated) == 1 else {}
    for name in new:
        write_plan(root, PRESETS[name].plan.model_copy(update=tumour))
    return names


def _check_file(setting_name: str, path: Path) -> None:
    """Raise `InputError` for a file that is neither a time course nor a kernel."""
    from napari_mosaik.workflow.dose import read_time_course

    if setting_name == "kernel":
        DoseKernel.from_file(path)
        return
    times, values, drawn = read_time_course(path)
    try:
        decayed_curve(times, [values, *([] if drawn is None else drawn)], 1.0)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    if not any(values):
        raise InputError(f"{path.name}: the curve has no activity, so there is no dose")


_SETTING_PREFIX: Final = "dose."
_FIRST_NAME: Final = "plan"


def change_plan(
    root: Path,
    name: str,
    changes: Mapping[str, Any],
    settings: Mapping[str, str],
    preset: str = "",
    *,
    replace: bool = False,
) -> Plan:
    """Write a plan of typed entries: that of a preset, the stored one of this name, or a new one.

    A plan that is stored as it would be is left as it is.

    Parameters
    ----------
    root
        Folder of the case.
    name
        Name of the plan; of the preset, or "plan", if it is empty.
    changes
        Entries of the plan.
    settings
        Further entries as typed, ``dose.alpha`` or ``dose.spreads.alpha``.
    preset
        Title of a preset; empty without one.
    replace
        Whether a plan of this name may be replaced by another one.  One that nobody named, and one
        of which settings alone change, always may.

    Raises
    ------
    InputError
        For an unknown preset or setting, or as `write_plan` and `parse_plan`.
    """
    if preset and preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}; choose from: {', '.join(PRESETS)}")
    own = name or preset or _FIRST_NAME
    there = own in [path.stem for path in _paths(root)]
    values: dict[str, Any] = {}
    if preset:
        values = PRESETS[preset].plan.model_dump()
    elif there and not {"courses", "fractions"} & set(changes):
        values = read_plan(root, own).model_dump()
    values |= {**changes, "name": own}
    for key, text in settings.items():
        entry = key.removeprefix(_SETTING_PREFIX)
        if entry == key or entry in ("name", "courses", "fractions"):
            raise InputError(
                f"--set: {key!r} is not a setting here; they are 'dose.alpha' and so on"
            )
        table, dot, inner = entry.partition(".")
        if dot:
            values[table] = {**dict(values.get(table) or {}), inner: text}
        else:
            values[entry] = _typed_pairs(text) if entry == "repair" else text
    plan = parse_plan(values, f"plan '{own}'")
    if there and read_plan(root, own) == plan.model_copy(update=_stored_files(root, plan)):
        return read_plan(root, own)
    is_another = bool(preset) or bool({"courses", "fractions"} & set(changes))
    return write_plan(root, plan, replace=replace or not name or not is_another)


def _stored_files(root: Path, plan: Plan) -> dict[str, str]:
    """The files that a plan names and that lie beside it already, with equal content."""
    found = {}
    for key, text in plan.files.items():
        own, given = f"{plan.name} {key}.csv", Path(text).expanduser()
        kept = plan_folder(root) / own
        if given.is_file() and kept.is_file() and given.read_bytes() == kept.read_bytes():
            found[key] = own
    return found


def _typed_pairs(text: str) -> list[list[str]]:
    """Components of repair as typed: ``1:1.5`` or ``0.6:0.5,0.4:4`` (share:half-time)."""
    return [part.split(":") for part in text.split(",")]


def _kept_files(root: Path, plan: Plan) -> dict[str, str]:
    """Copy the files that a plan names beside it; their new names by setting."""
    kept = {}
    for setting_name, text in plan.files.items():
        source, own = Path(text).expanduser(), f"{plan.name} {setting_name}.csv"
        inside = plan_folder(root) / text
        source = inside if inside.is_file() and not source.is_absolute() else source
        if not source.is_file():
            words = PLAN_SHAPES if setting_name == "shape" else PLAN_KERNELS
            raise InputError(
                f"plan '{plan.name}': the {setting_name} {text!r} is neither a file nor one of: "
                f"{', '.join(words)}"
            )
        target = plan_folder(root) / own
        _check_file(setting_name, source)
        if source.absolute() != target.absolute():
            write_bytes(target, source.read_bytes())
        kept[setting_name] = own
    return kept


def remove_plan(root: Path, name: str) -> None:
    """Remove a plan of a case and the files beside it; its results become stale."""
    with write_lock(root, f"case {root.name}"):
        plan = read_plan(root, name)
        with saving("the removal of a plan", plan_folder(root)):
            for path in (f"{name}.toml", *plan.files.values()):
                (plan_folder(root) / path).unlink(missing_ok=True)


def rename_plan(root: Path, before: str, after: str) -> None:
    """Give a plan another name, with the files beside it; results keep the name before.

    Raises
    ------
    InputError
        If there is no plan *before*, another one has the name *after*, or no plan can have it.
    """
    with write_lock(root, f"case {root.name}"):
        plan = read_plan(root, before)
        moved = {file: f"{after} {setting_name}.csv" for setting_name, file in plan.files.items()}
        values = plan.model_dump() | {"name": after}
        for setting_name, file in plan.files.items():
            values[setting_name] = moved[file]
        renamed = parse_plan(values, f"plan '{before}'")
        others = [path.stem for path in _paths(root) if path.stem != before]
        same = next((name for name in others if same_words(name) == same_words(after)), "")
        if same:
            raise InputError(f"a plan has the name '{same}' already; choose another name")
        files = plan_files(root)
        own = {f"{before}.toml", *moved}
        kept = {name: data for name, data in files.items() if name not in own}
        kept |= {new: files[old] for old, new in moved.items() if old in files}
        restore_plans(root, kept | {f"{after}.toml": renamed.text().encode()})


def free_plan_name(wanted: str, taken: Iterable[str]) -> str:
    """*wanted*, or with the first number behind it with which no plan of *taken* has the name."""
    known = {same_words(name) for name in taken}
    names = (wanted, *(f"{wanted} {number}" for number in range(2, len(known) + 3)))
    return next(name for name in names if same_words(name) not in known)


def plan_files(root: Path) -> dict[str, bytes]:
    """All files of the plans of a case by name, for `restore_plans`."""
    found = [path for path in plan_folder(root).glob("*") if not path.name.startswith(".")]
    try:
        return {path.name: path.read_bytes() for path in found if path.is_file()}
    except OSError as error:
        raise InputError(f"{plan_folder(root)} cannot be read: {error.strerror}") from error


def restore_plans(root: Path, files: Mapping[str, bytes]) -> None:
    """Make the plans of a case what they were when `plan_files` was called."""
    with write_lock(root, f"case {root.name}"), saving("the plans", plan_folder(root)):
        now = plan_files(root)
        words = {same_words(name) for name in files}
        gone = now.keys() - files.keys()
        for name in gone:  # those that differ by case only: a new one may be the same file
            if same_words(name) in words:
                (plan_folder(root) / name).unlink(missing_ok=True)
        for name, data in files.items():
            if now.get(name) != data:
                write_bytes(plan_folder(root) / name, data)
        for name in gone:
            if same_words(name) not in words:
                (plan_folder(root) / name).unlink(missing_ok=True)
