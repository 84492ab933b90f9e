"""Run steps on a case: what is done, stale, missing or blocked, and making what is missing."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any

import napari_mosaik
from napari_mosaik.core.artifact import Artifact, Origin, Progress, Source
from napari_mosaik.core.catalogue import ARTIFACTS, SOURCES
from napari_mosaik.core.errors import Blocked, CorruptArtifact, InputError
from napari_mosaik.core.params import Params
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.parallel import one_blas_thread
from napari_mosaik.workflow.recipe import Recipe, read_recipe
from napari_mosaik.workflow.step import State, Step
from napari_mosaik.workflow.step_context import Inputs
from napari_mosaik.workflow.steps import STEPS, maker_of, step_named

__all__ = ["Outlook", "outlook", "plan", "run", "run_until", "state"]

_ABOUT = {artifact.name: artifact.about for artifact in ARTIFACTS} | {
    source.name: source.about for source in SOURCES
}


class Outlook:
    """The state of every step of a case under one recipe, worked out in one go.

    Origins are compared as they *would* arise from today's sources and settings, so a change
    early in the chain shows at once in everything that depends on it.
    """

    def __init__(self, case: Case, recipe: Recipe) -> None:
        self._case = case
        self.recipe = recipe
        self.expected: dict[str, Origin] = {}
        self.states: dict[str, State] = {}
        self._digests: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        for step in STEPS:
            self._judge(step)

    def _judge(self, step: Step[Any]) -> None:
        reason = self._blocked(step)
        if reason:
            self.states[step.name] = State("blocked", reason)
            return
        inputs = [(entry.name, self._digest(entry)) for entry in step.reads]
        inputs += [
            (entry.name, self._digest(entry)) for entry in step.may_read if not self._lacks(entry)
        ]
        params = self.recipe[step.name]
        origin = Origin(step.name, step.revision, params.digest(), tuple(inputs))
        self.expected[step.name] = origin
        for artifact in step.writes:
            self._digests[artifact.name] = origin.digest()
        self.states[step.name] = self._compare(step, origin)

    def absent(self, step: Step[Any]) -> list[str]:
        """Names of the optional inputs of a step that cannot be had."""
        return [entry.name for entry in step.may_read if self._lacks(entry)]

    def _compare(self, step: Step[Any], origin: Origin) -> State:
        stored = [self._case.store.origin(artifact) for artifact in step.writes]
        if any(one is None for one in stored):
            return State("missing", "not run")
        different = next((one for one in stored if one != origin), None)
        return State("stale", _why_stale(different, origin)) if different else State("done")

    def _digest(self, entry: Artifact[Any] | Source) -> str:
        if entry.name not in self._digests and isinstance(entry, Source):
            self._digests[entry.name] = self._case.digest(entry)
        return self._digests[entry.name]

    def _lacks(self, entry: Artifact[Any] | Source) -> str:
        if isinstance(entry, Source):
            return self._case.lacks(entry) or self._unusable(entry)
        maker = maker_of(entry)
        if self.states[maker.name].word != "blocked":
            return ""
        if maker.needs_any:
            return f"'{maker.title}' is blocked"
        return self.states[maker.name].reason

    def _unusable(self, source: Source) -> str:
        """Why a file that is there cannot be read; one bad file blocks its own steps only."""
        if source.name not in self._faults:
            try:
                self._digest(source)
                self._faults[source.name] = ""
            except InputError as error:
                self._faults[source.name] = str(error)
        return self._faults[source.name]

    def _blocked(self, step: Step[Any]) -> str:
        for entry in step.reads:
            reason = self._lacks(entry)
            if reason:
                return reason
        if step.needs_any and all(self._lacks(entry) for entry in step.needs_any):
            return "; ".join(dict.fromkeys(self._lacks(entry) for entry in step.needs_any))
        if step.coarsest_um is not None:
            reason = self._too_coarse(step, step.coarsest_um)
            if reason:
                return reason
        if step.needs_model:
            model = str(getattr(self.recipe[step.name], step.needs_model))
            return self._lacks_model(step, model)
        return ""

    def _too_coarse(self, step: Step[Any], coarsest_um: float) -> str:
        for entry in step.reads:
            if isinstance(entry, Source) and entry.name.startswith("slide:"):
                spacing_um = max(self._case.spacing_um(entry.name.removeprefix("slide:")))
                if spacing_um > coarsest_um:
                    return (
                        f"the {entry.about} has pixels of {spacing_um:.3g} µm; {coarsest_um:g} µm "
                        "or finer are needed"
                    )
        return ""

    def _lacks_model(self, step: Step[Any], model: str) -> str:
        if not model:
            return f"no model chosen for {step.title.lower()}; train one"
        if not (self._case.model_folder(model) / "card.json").is_file():
            return f"the model {model} is not in this case's models folder"
        return ""


def _why_stale(stored: Origin, expected: Origin) -> str:
    if stored.revision != expected.revision:
        return "the method was improved"
    if stored.params != expected.params:
        return "its settings changed"
    before, after = dict(stored.inputs), dict(expected.inputs)
    names = [name for name in after if before.get(name) != after[name]]
    names += [name for name in before if name not in after]
    return f"changed: {', '.join(_ABOUT.get(name, name) for name in names)}"


def outlook(case: Case, recipe: Recipe | None = None) -> Outlook:
    """The state of every step of a case."""
    return Outlook(case, recipe or read_recipe(case.root))


def state(case: Case, step: Step[Any], params: Params) -> State:
    """Where one step stands under the given settings and the case's recipe for the others."""
    recipe = {**read_recipe(case.root), step.name: params}
    return Outlook(case, recipe).states[step.name]


def plan(view: Outlook, until: str = "") -> list[Step[Any]]:
    """The steps to run, in order, so that *until* (or everything that can be had) is done."""
    todo = [step for step in STEPS if view.states[step.name].word in ("stale", "missing")]
    if not until:
        return todo
    target = step_named(until)
    if view.states[until].word == "blocked":
        raise Blocked(f"{target.title} cannot run: {view.states[until].reason}")
    needed: set[str] = set()
    pending = [target]
    while pending:
        step = pending.pop()
        if step.name not in needed:
            needed.add(step.name)
            pending += [step_named(name) for name in sorted(_makers(step))]
    return [step for step in todo if step.name in needed]


def run(
    case: Case,
    step: Step[Any],
    params: Params,
    *,
    recipe: Recipe | None = None,
    scheduler: str = "",
    force: bool = False,
) -> Generator[Progress, None, None]:
    """Run one step and commit its results; nothing is committed when it is closed early.

    *recipe* holds the settings of the other steps; the case's own if it is left out.

    The caller may close the generator at any `Progress`: that is Cancel.  Work finished per block
    stays in the case's scratch folder and is used by the next run of the same inputs.
    """
    recipe = {**(recipe or read_recipe(case.root)), step.name: params}
    with case.writing():
        view = Outlook(case, recipe)
        _ready(view, step)
        if view.states[step.name].word == "done" and not force:
            yield Progress(1, 1, "done already")
            return
        origin = view.expected[step.name]
        scratch = case.root / "scratch" / f"{step.name}-{origin.digest()[:16]}"
        known = None if force else origin
        inputs = Inputs(case, step, scratch, scheduler, view.absent(step), known)
        if force:
            inputs.clear()
        began = time.monotonic()
        yield Progress(0, 1, step.title)
        with one_blas_thread():
            results = yield from step.body(inputs, params)
        seconds = time.monotonic() - began
        _commit(case, step, origin, params, results, {**inputs.notes, "seconds": round(seconds, 3)})
        inputs.clear()
    yield Progress(1, 1, step.title)


def _ready(view: Outlook, step: Step[Any]) -> None:
    if view.states[step.name].word == "blocked":
        raise Blocked(f"{step.title} cannot run: {view.states[step.name].reason}")
    for entry in (*step.reads, *step.may_read):
        if isinstance(entry, Artifact):
            maker = maker_of(entry)
            word = view.states[maker.name].word
            if word in ("missing", "stale"):
                raise Blocked(
                    f"{step.title} needs '{maker.title}', which is {word}; run that first, or use "
                    f"--until {step.name}"
                )


def _commit(
    case: Case,
    step: Step[Any],
    origin: Origin,
    params: Params,
    results: Mapping[Artifact[Any], object],
    notes: Mapping[str, Any],
) -> None:
    if set(results) != set(step.writes):
        raise KeyError(f"step '{step.name}' did not make what it declares")
    record = {
        "version": napari_mosaik.__version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": params.model_dump(mode="json"),
        **notes,
    }
    case.store.commit(origin, results, record)
    case.log("step", step=step.name, seconds=notes["seconds"], origin=origin.digest())


def run_until(
    case: Case, recipe: Recipe, until: str = "", *, scheduler: str = ""
) -> Generator[tuple[Step[Any], Progress], None, None]:
    """Run all that is stale or missing up to *until* (or all that can be had), in order.

    Without *until* a step that cannot use its input does not stop the steps that do without it;
    what could not be run is raised at the end.
    """
    failed: dict[str, str] = {}
    left_out: set[str] = set()
    for step in plan(Outlook(case, recipe), until):
        if _makers(step) & left_out:
            left_out.add(step.name)
            continue
        try:
            params = recipe[step.name]
            for progress in run(case, step, params, recipe=recipe, scheduler=scheduler):
                yield step, progress
        except (InputError, CorruptArtifact) as error:
            if until:
                raise
            failed[step.title] = str(error)
            left_out.add(step.name)
    if failed:
        told = "; ".join(f"{title}: {why}" for title, why in failed.items())
        raise InputError(f"case {case.name}: not everything could be run. {told}")


def _makers(step: Step[Any]) -> set[str]:
    """Names of the steps that make what a step reads."""
    entries = (*step.reads, *step.may_read)
    return {maker_of(entry).name for entry in entries if isinstance(entry, Artifact)}
