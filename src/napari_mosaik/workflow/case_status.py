"""The status of every step of a case under one recipe: done, stale, missing or blocked, and why.

    case + recipe ──► verdict of each step (`_Resolution`) ──► its reason in words (`_reason`)
                                        └──────► `CaseStatus`, frozen

Origins are compared as they *would* arise from today's sources and settings, so a change early in
the chain shows at once in everything that depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from napari_mosaik.core.artifact import (
    Artifact,
    Origin,
    Source,
    defined_artifacts,
    defined_sources,
)
from napari_mosaik.core.catalogue import INJECTION, PET, PLANS, SLIDES, SUV, WARNINGS
from napari_mosaik.core.errors import CorruptArtifact, InputError, MissingPixelSize, MosaikError
from napari_mosaik.core.manifest import check_files
from napari_mosaik.core.params import Params
from napari_mosaik.io.case import Case
from napari_mosaik.io.files import in_words
from napari_mosaik.workflow.recipe import Recipe, read_recipe
from napari_mosaik.workflow.relink import file_title, lost_files
from napari_mosaik.workflow.step import Step, StepStatus, Word
from napari_mosaik.workflow.steps import STEPS, maker_of

__all__ = ["CaseStatus", "Looked", "case_status", "cohort_line", "given_sources"]

_COPY: Final = re.compile(
    r"(case|recipe|journal)(?=.*(?:(?i:conflict|copy|kopie)|\(\d+\)|-[A-Z][A-Z0-9]+))"
    r".+(\.toml|\.jsonl)"
)
"""Names that programs for folders in the cloud give where two computers changed a file."""


@dataclass(frozen=True, slots=True)
class CaseStatus:
    """The status of every step of a case under one recipe.

    Parameters
    ----------
    recipe
        Settings of every step.
    states
        Status by step name.
    expected
        Origin that the results of each step would have if it ran now, of the steps that can run.
    unavailable
        Names of the optional inputs that are not available, of the steps that can run.
    warnings
        Doubts about the files of the case, and what helps.
    doubts
        What is doubtful about a slide ("he"), the "pet" or the "injection" that is there.
    """

    recipe: Mapping[str, Params]
    states: Mapping[str, StepStatus]
    expected: Mapping[str, Origin]
    unavailable: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def progress(self) -> tuple[int, int]:
        """Number of steps that are done, and of all steps that the case needs or can run."""
        words = [self.states[step.name].word for step in self._asked()]
        return words.count("done"), len(words)

    @property
    def next_step(self) -> str:
        """What comes next, in words."""
        for step in STEPS:
            state = self.states[step.name]
            if state.word in ("stale", "missing"):
                return f"run {step.title} ({state.reason})"
        states = [self.states[step.name] for step in self._asked()]
        blocked = [state.reason for state in states if state.word == "blocked"]
        return blocked[0] if blocked else "nothing, all steps are done"

    def _asked(self) -> list[Step[Any]]:
        """The steps without those that are optional and wait for something."""
        return [
            step
            for step in STEPS
            if step.name in self.states
            and not (step.optional and self.states[step.name].word == "blocked")
        ]


def case_status(
    case: Case,
    recipe: Recipe | None = None,
    until: Step[Any] | None = None,
    looked: Looked | None = None,
) -> CaseStatus:
    """The status of every step of a case; under the case's own recipe if none is given.

    With *until*, only that of this step and of those before it, without warnings and doubts.
    The files of results in *looked* are not looked at again, others are added to it: whoever runs
    one step after another passes it on.
    """
    steps = STEPS if until is None else _up_to(until.name)
    asked = recipe or read_recipe(case.root)
    return _Resolution(case, asked, steps, {} if looked is None else looked).resolve()


def _up_to(last: str) -> tuple[Step[Any], ...]:
    """A step and those that it reads from, directly or through others, in order."""
    needed = {last}
    for step in reversed(STEPS):
        if step.name in needed:
            entries = (*step.reads, *step.may_read, *step.needs_any)
            needed |= {maker_of(one).name for one in entries if isinstance(one, Artifact)}
    return tuple(step for step in STEPS if step.name in needed)


def cohort_line(root: Path) -> str:
    """A case in a list: name, patient, how far it is and what comes next; its files are not read.

    Whether results are stale shows only once the case is open.
    """
    try:
        case = Case(root)
    except (MosaikError, OSError) as error:
        return f"{root.name} · ⚠ {in_words(error)}"
    stored = [
        all((case.store.folder(one) / "origin.json").is_file() for one in step.writes)
        for step in STEPS
    ]
    given = {_key(source) for source in defined_sources() if case.file.paths(source.key or "pet")}
    waits: list[str] = []
    lacking: set[str] = set()
    ran = {step.name for step, done in zip(STEPS, stored, strict=True) if done}
    for step, done in zip(STEPS, stored, strict=True):
        if done:
            continue
        makers = {maker_of(entry).name for entry in step.reads if isinstance(entry, Artifact)}
        if step.optional and any(case.missing_reason(e) for e in step.reads if e is PLANS):
            lacking.add(step.name)
            continue
        if (step.needs_model and not _chosen_model(root, step)) or makers & lacking:
            lacking.add(step.name)
        elif given.issuperset(given_sources(step, ran) - {INJECTION.name}):
            waits.append(step.title)
    asked = sum(done or not step.optional for step, done in zip(STEPS, stored, strict=True))
    state = f"{sum(stored)} of {asked} steps" if any(stored) else "not run"
    coming = next(iter(waits), "")
    name = case.name if case.name == root.name else f"{case.name} ({root.name})"
    return " · ".join([name, case.patient, state, *([f"next: {coming}"] if coming else [])])


def _chosen_model(root: Path, step: Step[Any]) -> str:
    try:
        return str(getattr(read_recipe(root)[step.name], step.needs_model))
    except InputError:
        return ""  # whoever opens the case says why


def _key(source: Source) -> str:
    return source.key or source.name


def given_sources(step: Step[Any], done: Collection[str] = ()) -> set[str]:
    """What a step needs from the user, directly or through others: "he", "pet", "injection"...

    Steps that are *done* need nothing.
    """
    keys: set[str] = set()
    for entry in step.reads:
        if isinstance(entry, Artifact):
            maker = maker_of(entry)
            keys |= given_sources(maker, done) if maker.name not in done else set()
        elif entry.kind in ("slide", "pet", "injection"):
            keys.add(_key(entry))
    return keys


_Cause = Literal[
    "",
    "missing input",
    "unusable",
    "pixel size",
    "no model",
    "damaged",
    "model not found",
    "given",
    "not run",
    "revision",
    "settings",
    "inputs",
]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Where a step stands and what decided it; the details depend on the cause."""

    word: Word
    cause: _Cause = ""
    details: tuple[str, ...] = ()


Looked = dict[str, tuple[int, int, int] | None]
"""The results whose files are undamaged, by name, with `CaseStore.stamp` of what was looked at."""


@dataclass(slots=True)
class _Resolution:
    """What is known of a case while its steps are assessed, each after those that it reads."""

    case: Case
    recipe: Recipe
    steps: tuple[Step[Any], ...] = STEPS
    looked: Looked = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, _Verdict] = field(default_factory=dict)
    expected: dict[str, Origin] = field(default_factory=dict)
    unavailable: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    unsized: set[str] = field(default_factory=set)

    def resolve(self) -> CaseStatus:
        """Assess the steps, in order."""
        for step in self.steps:
            self.verdicts[step.name] = self._assess(step)
        states = {
            step.name: StepStatus(
                verdict.word,
                self._why(verdict),
                self._warnings(step, verdict),
                verdict.cause == "damaged",
            )
            for step in self.steps
            for verdict in (self.verdicts[step.name],)
        }
        known = (
            MappingProxyType(dict(self.recipe)),
            MappingProxyType(states),
            MappingProxyType(self.expected),
            MappingProxyType(self.unavailable),
        )
        if len(self.steps) < len(STEPS):
            return CaseStatus(*known)
        return CaseStatus(
            *known,
            (*self._lost(), *self._copies(), *self._doubts().values()),
            MappingProxyType(self._doubts()),
        )

    def _why(self, verdict: _Verdict) -> str:
        """The words for a verdict: what changed first, and why that changed."""
        if verdict.cause != "inputs":
            return _reason(verdict)
        first, *others = verdict.details
        about, cause = _about(first), ""
        while (maker := _made_by(first)) is not None:
            earlier = self.verdicts[maker.name]
            if earlier.cause != "inputs":
                cause = _FIRST_CHANGES.get(earlier.cause, "").format(maker.title)
                break
            first = earlier.details[0]
            cause = f"{_about(first)} changed"
        more = f" and {len(others)} more" if others else ""
        return f"changed: {about}{more}" + (f" ({cause})" if cause else "")

    def _lost(self) -> Iterator[str]:
        """What to do about files that are not where they were."""
        for key, path in lost_files(self.case).items():
            yield (
                f"the {file_title(key)} is not at {path}; if it was moved: napari-mosaik relink "
                f"{self.case.root} {key} PATH"
            )

    def _copies(self) -> Iterator[str]:
        """What a folder in the cloud keeps where two computers changed one file."""
        root = self.case.root
        for path in sorted((*root.glob("*.toml"), *root.glob("readers/*/*.jsonl"))):
            if found := _COPY.fullmatch(path.name):
                yield (
                    f"{path.relative_to(root)} seems to be a copy of {''.join(found.groups())} "
                    "from a conflict of two computers, and is not read; compare both, keep one"
                )

    def _doubts(self) -> dict[str, str]:
        """What is doubtful about the sources that are there, by key."""
        doubts = {
            source.key or source.name: f"{source.about}: {reason}"
            for source in (*SLIDES.values(), PET)
            if not self.case.missing_reason(source) and (reason := self._unreadable(source))
        }
        for source in SLIDES.values():
            if source.name in self.unsized:
                doubts[source.key] = f"{source.about}: pixel size unknown"
        record = self.case.file.injection
        empty = record is not None and not record.model_dump(exclude_unset=True, exclude_none=True)
        kind = "the injection record is empty" if empty else "the injection record"
        of_pet = [step for step in STEPS if step.check is not None and PET in step.reads]
        asked = [self.verdicts[step.name] for step in of_pet]
        blocked = any(verdict.word == "blocked" for verdict in asked) and not self._missing(PET)
        if blocked and (reason := self._pet_problem()):
            doubts["pet"] = f"{PET.about}: {reason}"
        elif reasons := [_reason(verdict) for verdict in asked if verdict.cause == "unusable"]:
            doubts[INJECTION.name] = f"{kind}: {reasons[0]}"
        if empty and self._missing(PET):
            doubts[INJECTION.name] = f"{kind}: no PET states the terms of the SUV"
        return doubts

    def _pet_problem(self) -> str:
        try:
            self.case.pet()
        except (MosaikError, OSError) as error:
            return in_words(error)
        return ""

    def _given(self, step: Step[Any]) -> _Verdict | None:
        """The verdict on results that were given, not computed; None for those of a run."""
        try:
            origin = self.case.store.origin(step.writes[0])
        except (CorruptArtifact, InputError, OSError):
            return None  # the comparison says what is wrong with it
        if origin is None or not origin.is_given:
            return None
        self.expected[step.name], self.unavailable[step.name] = origin, ()
        self.digests.update(dict.fromkeys((one.name for one in step.writes), origin.digest()))
        try:
            for artifact in step.writes:
                self._glance(artifact)
        except CorruptArtifact as error:
            wrong = str(error).partition("; run its step")[0]
            return _Verdict(
                "blocked", "damaged", (f"{wrong}; it was {origin.is_given}: create that again",)
            )
        return _Verdict("done", "given", (origin.is_given,))

    def _assess(self, step: Step[Any]) -> _Verdict:
        given = self._given(step)
        if given is not None:
            return given
        blocked = self._blocked(step)
        if blocked is not None:
            return blocked
        missing = tuple(entry.name for entry in step.may_read if self._missing(entry))
        used = [*step.reads, *(entry for entry in step.may_read if entry.name not in missing)]
        inputs = tuple((entry.name, self._digest(entry)) for entry in used)
        origin = Origin(step.name, step.revision, self.recipe[step.name].digest(), inputs)
        verdict = self._compare(step, origin)
        if verdict.word != "done" and (problem := self._unusable(step, origin.digest())):
            return _Verdict("blocked", "unusable", (problem,))
        self.expected[step.name], self.unavailable[step.name] = origin, missing
        # The digest that the results would have, not that of what is stored: this is how the steps
        # that read them turn stale in the same pass.
        for artifact in step.writes:
            self.digests[artifact.name] = origin.digest()
        return verdict

    def _unusable(self, step: Step[Any], content: str) -> str:
        """Why a run could not use its sources; asked once for each content of them."""
        if step.check is None:
            return ""
        settings = "".join(self.recipe[one].digest() for one in (step.name, maker_of(SUV).name))
        key = f"{self.case.root.absolute()}:{step.name}:{settings}:{content}"
        if key not in _ASKED:
            _ASKED[key] = ""
            try:
                step.check(self.case, self.recipe)
            except (MosaikError, OSError) as error:
                _ASKED[key] = in_words(error)
        return _ASKED[key]

    def _glance(self, artifact: Artifact[Any]) -> None:
        stamp = self.case.store.stamp(artifact)
        if stamp is None or self.looked.get(artifact.name) != stamp:
            self.case.store.glance(artifact)
            self.looked[artifact.name] = stamp

    def _absent(self, source: Source) -> str:
        """Why a source is not there; empty where it is."""
        if source.name not in self.absent:
            self.absent[source.name] = self.case.missing_reason(source)
        return self.absent[source.name]

    def _compare(self, step: Step[Any], origin: Origin) -> _Verdict:
        try:
            for artifact in step.writes:
                self._glance(artifact)
            stored = [self.case.store.origin(artifact) for artifact in step.writes]
        except CorruptArtifact as error:
            return _Verdict("stale", "damaged", (str(error),))
        except (InputError, OSError) as error:
            return _Verdict("stale", "damaged", (in_words(error),))
        if any(one is None for one in stored):
            return _Verdict("missing", "not run")
        different = next((one for one in stored if one is not None and one != origin), None)
        return _Verdict("done") if different is None else _stale(different, origin)

    def _warnings(self, step: Step[Any], verdict: _Verdict) -> tuple[str, ...]:
        """The doubts that were recorded with the stored results."""
        if verdict.word not in ("done", "stale") or verdict.cause == "damaged":
            return ()
        return tuple(map(str, self.case.store.record(step.writes[0]).get(WARNINGS, ())))

    def _digest(self, entry: Artifact[Any] | Source) -> str:
        if entry.name not in self.digests and isinstance(entry, Source):
            self.digests[entry.name] = self.case.digest(entry)
        return self.digests[entry.name]

    def _missing(self, entry: Artifact[Any] | Source) -> str:
        """Why an input is not available; empty where it is."""
        if isinstance(entry, Source):
            return self._absent(entry) or self._unreadable(entry)
        maker = maker_of(entry)
        verdict = self.verdicts[maker.name]
        if verdict.word != "blocked":
            return ""
        return f"'{maker.title}' is blocked" if maker.needs_any else _reason(verdict)

    def _unreadable(self, source: Source) -> str:
        """Why a file that exists cannot be read; one bad file blocks its own steps only."""
        if source.name not in self.unreadable:
            try:
                self._digest(source)
                self.unreadable[source.name] = ""
            except (MosaikError, OSError) as error:
                self.unreadable[source.name] = in_words(error)
                if isinstance(error, MissingPixelSize):
                    self.unsized.add(source.name)
        return self.unreadable[source.name]

    def _blocked(self, step: Step[Any]) -> _Verdict | None:
        for entry in step.reads:
            if reason := self._missing(entry):
                if entry is INJECTION and not self._missing(PET):
                    lacking = self._unusable(step, self._digest(PET))
                    reason += f": {lacking or 'the PET file states every term; accept them'}"
                return _Verdict("blocked", "missing input", (reason,))
        for entry in step.may_read:
            # What was given is not silently left out because it cannot be read.
            if self._was_given(entry) and (reason := self._missing(entry)):
                return _Verdict("blocked", "missing input", (reason,))
        alternatives = [self._missing(entry) for entry in step.needs_any]
        if alternatives and all(alternatives):
            return _Verdict("blocked", "missing input", tuple(dict.fromkeys(alternatives)))
        return self._wrong_pixel_size(step) or self._without_model(step)

    def _was_given(self, entry: Artifact[Any] | Source) -> bool:
        """Whether a source is there, or the model that an artifact is made with was chosen."""
        if isinstance(entry, Source):
            return not self._absent(entry)
        return self.verdicts[maker_of(entry).name].cause in ("damaged", "model not found")

    def _wrong_pixel_size(self, step: Step[Any]) -> _Verdict | None:
        for entry in step.reads:
            if isinstance(entry, Source) and entry.name.startswith("slide:"):
                spacing_um = max(self.case.spacing_um(entry.name.removeprefix("slide:")))
                if wanted := step.refused_pixel_size(spacing_um):
                    details = (entry.about, f"{spacing_um:.3g}", wanted)
                    return _Verdict("blocked", "pixel size", details)
        return None

    def _without_model(self, step: Step[Any]) -> _Verdict | None:
        if not step.needs_model:
            return None
        model = str(getattr(self.recipe[step.name], step.needs_model))
        if not model:
            return _Verdict("blocked", "no model", (step.title.lower(),))
        folder = self.case.model_folder(model)
        try:
            check_files(folder, f"the model {model}")
        except (MosaikError, OSError) as error:
            return _Verdict("blocked", "damaged", (f"{in_words(error)}; train it again",))
        if not (folder / "card.json").is_file():
            return _Verdict("blocked", "model not found", (model,))
        try:
            if step.check_model is not None:
                step.check_model(folder)
        except InputError as error:
            return _Verdict("blocked", "unusable", (in_words(error),))
        return None


def _stale(stored: Origin, expected: Origin) -> _Verdict:
    """What differs first between the origin of a stored result and that of a new one."""
    if stored.revision != expected.revision:
        return _Verdict("stale", "revision")
    if stored.params != expected.params:
        return _Verdict("stale", "settings")
    before, after = dict(stored.inputs), dict(expected.inputs)
    names = [name for name in after if before.get(name) != after[name]]
    names += [name for name in before if name not in after]
    if not names:  # another version read the same inputs in another order
        return _Verdict("stale", "revision")
    return _Verdict("stale", "inputs", tuple(names))


def _reason(verdict: _Verdict) -> str:
    """The words for a verdict; empty for a step that is done."""
    if verdict.cause == "missing input":
        return "; ".join(verdict.details)
    return _REASONS[verdict.cause].format(*verdict.details)


def _about(name: str) -> str:
    """What an artifact or a source is, in words."""
    about = {one.name: one.about for one in defined_artifacts()}
    about |= {one.name: one.about for one in defined_sources()}
    return about.get(name, name)


def _made_by(name: str) -> Step[Any] | None:
    """The step that writes the artifact of that name; None for a source."""
    return next((s for s in STEPS if any(one.name == name for one in s.writes)), None)


_FIRST_CHANGES: Final = {
    "settings": "the settings of {} changed",
    "revision": "{} has a new method",
    "not run": "{} is not run",
}
"""Why the results of an earlier step are not those of before, by cause."""
_ASKED: Final[dict[str, str]] = {}
"""What `Step.check` said, by case and origin."""
_REASONS: Final = {
    "": "",
    "unusable": "{}",
    "pixel size": "the {} has a pixel size of {} µm; {}",
    "damaged": "{}",
    "no model": "no trained model for {}; train one or choose one",
    "given": "{}",
    "model not found": "the model {} is not in the models folder of this case",
    "not run": "not run",
    "revision": "method revision changed",
    "settings": "settings changed",
}
