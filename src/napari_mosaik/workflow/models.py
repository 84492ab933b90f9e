"""The models of a case or cohort: listed, adopted, rolled back, exported and imported.

    training ─► models/HASH ─► adopt ─► recipe.toml (which model a step uses) ─► results are stale
                    │  ▲         └────► journal/runs.jsonl ─► roll back
              export▼  │import
              HASH.zip (weights.safetensors, card.json, files.json)

A folder ``models/HASH`` is written once and never changed; a damaged one is set aside under another
name before the same model is written again.  The journal is written before the recipe, so that an
adoption that was interrupted is known, and rolling back starts from what the recipe says.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from napari_mosaik.annotate.foreign import BUILT_IN
from napari_mosaik.core.atomic import atomic_file, atomic_folder, scratch_path
from napari_mosaik.core.catalogue import CLASS_NAMES, CLASSES, PREDICTION
from napari_mosaik.core.errors import CorruptArtifact, InputError, require_memory
from napari_mosaik.core.journal import journals_of
from napari_mosaik.core.manifest import check_files, write_files_list
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import saving
from napari_mosaik.workflow.annotations import declared_classes
from napari_mosaik.workflow.leaks import case_labels
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.steps import maker_of

__all__ = [
    "KnownModel",
    "adopt_model",
    "export_model",
    "find_model",
    "import_model",
    "journal_ranges",
    "known_models",
    "model_in_use",
    "roll_back",
    "room_for_model",
    "use_model",
    "with_cohort",
]

_PARTS: Final = ("card.json", "files.json", "weights.safetensors")
_HASH = re.compile(r"[0-9a-f]{16,64}")
_MAX_BYTES = 2_000_000_000
_CLASSIFIER, _PREDICTOR = maker_of(CLASSES), maker_of(PREDICTION)


@dataclass(frozen=True, slots=True, eq=False)
class KnownModel:
    """A model in the models folder of one or several cases.

    Parameters
    ----------
    folder
        One of its folders; the name is its hash.
    card
        Its model card; empty where that cannot be read.
    cases, used_by
        Names of the cases that hold it, and of those that use it.
    damage
        Why it cannot be used; empty where it can.
    """

    folder: Path
    card: dict[str, Any]
    cases: list[str] = field(default_factory=list)
    used_by: list[str] = field(default_factory=list)
    damage: str = ""

    @classmethod
    def read(cls, folder: Path) -> KnownModel:
        """The model of a folder, looked at but not loaded."""
        card: dict[str, Any] = {}
        try:
            loaded = json.loads((folder / "card.json").read_text("utf-8"))
            card = loaded if isinstance(loaded, dict) else {}
            check_files(folder, f"the model {folder.name}")
            if not (folder / "weights.safetensors").is_file() or not card:
                raise CorruptArtifact(f"the model {folder.name} is damaged: a part is missing")
        except (OSError, ValueError) as error:
            return cls(folder, card, damage=f"the model {folder.name} cannot be read ({error})")
        except CorruptArtifact as error:
            return cls(folder, card, damage=str(error))
        return cls(folder, card)

    @property
    def hash(self) -> str:
        """The name of the model: the hash of its content."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """A "predictor" of uptake or a "classifier" of tissue."""
        return "predictor" if self.card.get("kind") == "mosaik" else "classifier"

    @property
    def step(self) -> str:
        """Name of the step that uses it."""
        return (_PREDICTOR if self.kind == "predictor" else _CLASSIFIER).name

    @property
    def method(self) -> str:
        """Short name of the method: "fast", "densenet" or "mosaik"."""
        return str(self.card.get("kind") or self.card.get("model") or "")

    @property
    def training(self) -> dict[str, Any]:
        """What the card says about the training."""
        record = self.card if self.kind == "predictor" else self.card.get("training", {})
        return dict(record)

    @property
    def trained_on(self) -> list[str]:
        """Labels of the training cases."""
        entries = self.training.get("cases", ())
        return [str(one["case"]) if isinstance(one, dict) else str(one) for one in entries]

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their codes; empty for a predictor."""
        return [str(name) for name in self.card.get("classes", ())] if self.is_classifier else []

    @property
    def is_classifier(self) -> bool:
        """Whether it classifies tissue."""
        return self.kind == "classifier"

    def record(self) -> dict[str, Any]:
        """Its record as a JSON document; None or empty for what its card does not hold."""
        training = self.training
        scores = training.get("held_out")
        metrics = scores if self.is_classifier else training.get("comparison")
        return {
            "model": self.hash,
            "kind": self.kind,
            "method": self.method,
            "cases": self.cases,
            "used_by": self.used_by,
            "damage": self.damage,
            "parent": training.get("parent", ""),
            "replay": training.get("replay"),
            "trained_on": self.trained_on,
            "classes": self.classes,
            "data": training.get("data"),
            "readers": training.get("readers", []),
            "journal": training.get("journal", {}),
            "split": training.get("split"),
            "metrics": metrics,
            "calibration": (metrics or {}).get("calibration"),
            "seed": training.get("seed"),
            "folder": str(self.folder),
            "card": self.card,
        }


# --- listing -------------------------------------------------------------------------------------
def known_models(cases: Sequence[Case]) -> list[KnownModel]:
    """All models in the models folders of some cases, each once; damaged ones are named as such."""
    found: dict[str, KnownModel] = {}
    for case in cases:
        used = {_used(case, step) for step in (_CLASSIFIER.name, _PREDICTOR.name)}
        for path in sorted((case.root / "models").glob("*/")):
            if not _HASH.fullmatch(path.name):
                continue
            model = found.get(path.name)
            if model is None or model.damage:
                read = KnownModel.read(path)
                if model is None or not read.damage:
                    before = model or read
                    read.cases[:], read.used_by[:] = before.cases, before.used_by
                    model = found[path.name] = read
            model.cases.append(case.name)
            if path.name in used:
                model.used_by.append(case.name)
    return sorted(found.values(), key=lambda one: (one.kind, not one.used_by, one.hash))


def find_model(cases: Sequence[Case], name: str) -> KnownModel:
    """The model whose hash is *name* or begins with it, in the models folders of some cases.

    Raises
    ------
    InputError
        None or several match; the message names what there is.
    """
    known = known_models(cases)
    matching = [one for one in known if name and one.hash.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    there = ", ".join(one.hash[:12] for one in known) or "none"
    places = ", ".join(str(case.root / "models") for case in cases)
    word = "several models begin with" if matching else "there is no model"
    raise InputError(f"{word} '{name}' in {places}; there are: {there}")


def with_cohort(cases: Sequence[Case], cohort: Sequence[Path] = ()) -> list[Case]:
    """Some cases, and after them the others of their cohort, whose models they can use.

    The folders of the *cohort* are those beside the cases where none are given; one that is no
    valid case is passed over.
    """
    beside = dict.fromkeys(case.root.absolute().parent for case in cases)
    roots = cohort or [p.parent for folder in beside for p in sorted(folder.glob("*/case.toml"))]
    own = {case.root.resolve() for case in cases}
    others = []
    for root in roots:
        if root.resolve() not in own:
            with contextlib.suppress(InputError):
                others.append(Case(root))
    return [*cases, *others]


def model_in_use(case: Case, step: str) -> str:
    """Hash of the model that a step of a case uses; empty where there is none."""
    return str(getattr(read_recipe(case.root)[step], "model", ""))


def _used(case: Case, step: str) -> str:
    try:
        return model_in_use(case, step)
    except InputError:  # a recipe that cannot be read is reported where it is run
        return ""


def journal_ranges(
    cases: Sequence[Case],
    kinds: Sequence[str],
    before: Mapping[str, Any],
    readers: Collection[str] | None = None,
) -> dict[str, Any]:
    """Entries of a model card: which readers' work was learned from, and where in their journals.

    Parameters
    ----------
    cases
        Training cases.
    kinds
        Kinds of work that train: "annotation", "correction".
    before
        The card of the parent: what it has read is left out of the range.
    readers
        Only the work of these; None for all.
    """
    ranges: dict[str, dict[str, list[int]]] = {}
    for case, label in zip(cases, case_labels(cases), strict=True):
        for reader, scan in journals_of(case.root).items():
            if readers is not None and reader not in readers:
                continue
            own = [one.n for one in scan.entries if one.part.partition(":")[0] in kinds]
            seen = before.get("journal", {}).get(label, {}).get(reader, [0, -1])[1]
            new = [n for n in own if n > seen]
            if new:
                ranges.setdefault(label, {})[reader] = [new[0], new[-1]]
            elif own:
                ranges.setdefault(label, {})[reader] = [seen + 1, seen]
    found = {reader for own in ranges.values() for reader in own}
    return {"readers": sorted({*found, *before.get("readers", ())}), "journal": ranges}


# --- which model a case uses ---------------------------------------------------------------------
def use_model(case: Case, step: str, model: str, how: str) -> None:
    """Let a step of a case use a model; the case is open for writing.

    The change stands in the journal of runs before it is made.
    """
    recipe = read_recipe(case.root)
    before = str(getattr(recipe[step], "model", ""))
    if before != model:
        case.log("adopt", step=step, model=model, before=before, how=how)
    write_recipe(case.root, changed(recipe, step, model=model))


def adopt_model(cases: Sequence[Case], model: KnownModel, how: str = "adopt") -> None:
    """Let cases use a model, which is checked and copied into each.

    Raises
    ------
    InputError
        It was trained on one of the cases, or has other classes than the program; then none of
        them is changed.
    CorruptArtifact
        It is damaged.
    """
    for case in cases:
        _check_fits(case, model)
    _load(model.folder, model.kind)
    for case in cases:
        with case.writing():
            _copy(model.folder, case)
            use_model(case, model.step, model.hash, how)


def roll_back(case: Case, step: str = "") -> tuple[str, str, str]:
    """Return to the model that was used before the present one; can be repeated.

    Parameters
    ----------
    case
        The case.
    step
        Name of the step; that of the last adoption if empty.

    Returns
    -------
    tuple of str
        The step, the model that was used and the one that is used now (empty: none).

    Raises
    ------
    InputError
        No other model was used before, or that one is no longer there.
    CorruptArtifact
        That one is damaged.
    """
    with case.writing():
        events = [event for event in _adoptions(case) if not step or event["step"] == step]
        name = step or (events[-1]["step"] if events else _CLASSIFIER.name)
        present = model_in_use(case, name)
        used = _in_force([event for event in events if event["step"] == name], present)
        if len(used) < 2:
            raise InputError(f"case {case.name} used no other model before {present or 'this'}")
        before = used[-2]
        if before:
            folder = case.model_folder(before)
            _load(folder, KnownModel.read(folder).kind)
        case.log("roll back", step=name, model=before, before=present)
        write_recipe(case.root, changed(read_recipe(case.root), name, model=before))
    return name, present, before


def _adoptions(case: Case) -> list[dict[str, Any]]:
    """Adoptions and their roll backs in the order of time; damaged lines are passed over."""
    try:
        lines = (case.root / "journal" / "runs.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        known = isinstance(event, dict) and event.get("event") in ("adopt", "roll back")
        if known and all(isinstance(event.get(key), str) for key in ("step", "model", "before")):
            events.append(event)
    return events


def _in_force(events: Sequence[dict[str, Any]], present: str) -> list[str]:
    """The models that were used one after another, without those rolled back; the last is present.

    An event that was written but not carried out is not part of it.
    """
    used: list[str] = []
    for event in events:
        if event["event"] == "roll back":
            if len(used) > 1 and used[-2] == event["model"]:
                used.pop()
            continue
        if not used or used[-1] != event["before"]:
            used.append(event["before"])
        used.append(event["model"])
    if present in used:
        return used[: len(used) - used[::-1].index(present)]
    return [*used, present]


def _check_fits(case: Case, model: KnownModel) -> None:
    """Refuse a predictor that has seen the case, and a classifier of other classes."""
    if model.damage:
        raise CorruptArtifact(model.damage)
    if not model.is_classifier:
        if case.name in model.trained_on:
            raise InputError(
                f"the predictor {model.hash[:12]} was trained on case {case.name}; its prediction "
                "would say nothing: choose one that was trained on other cases"
            )
        return
    known = [name for code, name in sorted(CLASS_NAMES.items()) if code > 0]
    if model.classes[: len(known)] != known:
        raise InputError(
            f"the model {model.hash[:12]} has the classes {', '.join(model.classes) or 'none'}; "
            f"the first must be {', '.join(known)}, in this order"
        )


# --- folders -------------------------------------------------------------------------------------
def room_for_model(folder: Path) -> None:
    """Make room for a model that is written again: a damaged one is set aside, not overwritten."""
    if folder.exists():
        folder.rename(scratch_path(folder).with_suffix(".damaged"))


def _copy(source: Path, case: Case) -> None:
    """Copy a model into a case, unless a good copy is there."""
    target = case.model_folder(source.name)
    if target.exists():
        if target.resolve() == source.resolve() or not KnownModel.read(target).damage:
            return
        room_for_model(target)
    with saving("the model", target.parent), atomic_folder(target) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)


def _load(folder: Path, kind: str) -> None:
    """Load a model, which checks its weights and its card."""
    if kind == "predictor":
        from napari_mosaik.predictor import TrainedModel

        TrainedModel.load(folder)
        return
    from napari_mosaik.segment.tissue_models import load_tissue_model

    found = load_tissue_model(folder)
    if found.hash != folder.name:
        raise CorruptArtifact(
            f"the model in {folder} is not the one that its folder names: its content is "
            f"{found.hash}"
        )


# --- files ---------------------------------------------------------------------------------------
def export_model(model: KnownModel, file: Path) -> None:
    """Write a model to one file: weights as safetensors, its card, and their digests.

    Equal models give equal bytes.
    """
    if model.damage:
        raise CorruptArtifact(model.damage)
    _load(model.folder, model.kind)
    with (
        saving("the model", file.parent),
        atomic_file(file) as scratch,
        zipfile.ZipFile(scratch, "w", zipfile.ZIP_STORED) as archive,
    ):
        for part in _PARTS:
            path = model.folder / part
            if path.is_file():  # models of format 1 have no list of files
                archive.writestr(zipfile.ZipInfo(f"{model.hash}/{part}"), path.read_bytes())


def import_model(case: Case, source: Path) -> KnownModel:
    """Add a model from a file of `export_model`, or from a folder, to a case that does not use it.

    Raises
    ------
    InputError
        It is not such a file, was trained on this case, or has other classes than the case.
    CorruptArtifact
        Its content is not what its hash says; the message names both.
    """
    scratch = scratch_path(case.root / "models" / "import")
    try:
        with saving("the model", scratch.parent):
            folder = _unpacked(source, scratch)
            model = _verified(folder, source)
            _check_fits(case, model)
            _check_declared(case, model, source)
            _load(folder, model.kind)
            with case.writing():
                _copy(folder, case)
                case.log("import model", model=model.hash, kind=model.kind)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return find_model([case], model.hash)


def _unpacked(source: Path, scratch: Path) -> Path:
    """The parts of a model in a folder that has the name the file gives."""
    if source.is_dir():
        folder = scratch / source.name
        folder.mkdir(parents=True)
        for part in _PARTS:
            if (source / part).is_file():
                shutil.copy2(source / part, folder / part)
        return folder
    if not source.is_file():
        raise InputError(f"there is no file {source}")
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            folder = scratch / _folder_in(entries, source)
            folder.mkdir(parents=True)
            for entry in entries:
                part = entry.filename.rpartition("/")[2]
                (folder / part).write_bytes(archive.read(entry))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{source} is not an exported model ({error}); a model is exported with: "
            "napari-mosaik models export CASE HASH FILE.zip"
        ) from error
    return folder


def _folder_in(entries: Sequence[zipfile.ZipInfo], source: Path) -> str:
    """The one folder that the parts of a model lie in; `InputError` for anything else."""
    names = [entry.filename for entry in entries]
    folders = {name.rpartition("/")[0] for name in names}
    other = sorted({name for name in names if name.rpartition("/")[2] not in _PARTS})
    first = next(iter(folders), "")
    if other or len(folders) != 1 or len(set(names)) < len(names) or not _HASH.fullmatch(first):
        raise InputError(
            f"{source} is not an exported model: it holds "
            f"{', '.join(other or names) or 'nothing'}; a model is one folder HASH with "
            f"{', '.join(_PARTS)}"
        )
    if sum(entry.file_size for entry in entries) > _MAX_BYTES:
        raise InputError(f"{source} is larger than {_MAX_BYTES} bytes; this is not a model")
    return first


def _verified(folder: Path, source: Path) -> KnownModel:
    """The model of a folder whose content has the hash that card and folder give."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from napari_mosaik.segment.model_files import weights_digest

    for part in (_PARTS[0], _PARTS[2]):
        if not (folder / part).is_file():
            raise InputError(f"{source} is not a model: it lacks {part}")
    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
        arrays = load_file(str(folder / "weights.safetensors"))
        if card.get("kind") == "mosaik":
            from napari_mosaik.predictor import TrainedModel

            content = stated = TrainedModel(arrays, card).hash
        else:
            essentials = {name: card[name] for name in ("model", "classes", "params")}
            content, stated = weights_digest(arrays, essentials), str(card["hash"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        require_memory(error)
        raise CorruptArtifact(f"the model in {source} is damaged ({error})") from error
    for place, name in (("its card", stated), ("its folder", folder.name)):
        if name != content:
            raise CorruptArtifact(
                f"the model in {source} was changed: {place} states the hash {name}, and its "
                f"content has {content}; export it again"
            )
    if not (folder / _PARTS[1]).is_file():  # from elsewhere: its content has the hash of its name
        write_files_list(folder)
    check_files(folder, f"the model in {source}")
    return KnownModel.read(folder)


def _check_declared(case: Case, model: KnownModel, source: Path) -> None:
    """Refuse a classifier whose own classes are not those of the case."""
    if not model.is_classifier:
        return
    own = [name for name in declared_classes(case) if name not in BUILT_IN]
    theirs = [name for name in model.classes if name not in BUILT_IN]
    unknown = [name for name in theirs if name not in own]
    absent = [name for name in own if name not in theirs]
    if unknown or absent:
        parts = [f"it has {', '.join(unknown)}, which the case does not"] if unknown else []
        parts += [f"it lacks {', '.join(absent)} of the case"] if absent else []
        raise InputError(
            f"the model in {source} has other classes than case {case.name}: {'; '.join(parts)}. "
            "Declare the same classes in the window (*New class*), or give another model"
        )
