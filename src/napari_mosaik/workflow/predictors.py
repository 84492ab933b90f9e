"""The trained predictors that a case can use: listed, trained on its cohort, chosen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.atomic import atomic_folder
from napari_mosaik.core.catalogue import PREDICTION
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.cohort import SplitKind, train_network
from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import maker_of

__all__ = ["Predictor", "choose_predictor", "known_predictors", "models_for", "train_on_cohort"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A trained predictor in a models folder.

    Parameters
    ----------
    folder
        Its folder; the name is its hash.
    cases
        Names of the training cases.
    test_case
        The case that was held out.
    """

    folder: Path
    cases: tuple[str, ...]
    test_case: str

    @property
    def title(self) -> str:
        """Training cases, held-out case and the first letters of the hash."""
        return f"{self.name} ({self.folder.name[:8]})"

    @property
    def name(self) -> str:
        """Training cases and held-out case."""
        return f"trained on {', '.join(self.cases)}, without {self.test_case}"

    @classmethod
    def read(cls, folder: Path) -> Predictor:
        """The predictor of a folder; anything else raises `InputError`."""
        try:
            card = json.loads((folder / "card.json").read_text("utf-8"))
            if card.get("kind") != "mosaik":
                raise InputError(f"the model in {folder} is no predictor of uptake")
            cases = tuple(str(entry["case"]) for entry in card["cases"])
            return cls(folder, cases, str(card["test_case"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"there is no readable predictor in {folder}") from error


def known_predictors(case: Case, cohort: Sequence[Path]) -> list[Predictor]:
    """Predictors in the models folders of a case and its cohort that were not trained on it."""
    found: dict[str, Predictor] = {}
    for root in (case.root, *cohort):
        for card in sorted((root / "models").glob("*/card.json")):
            try:
                predictor = Predictor.read(card.parent)
            except InputError:
                continue  # a tissue classifier, or damaged: it is not offered
            if case.name not in predictor.cases:
                found.setdefault(card.parent.name, predictor)
    return list(found.values())


def models_for(case: Case, step: Step[Any]) -> dict[str, str]:
    """The models of a case that a step can use: name, date and first letters of each hash."""
    found = {}
    for card in sorted((case.root / "models").glob("*/card.json")):
        try:
            content = json.loads(card.read_text("utf-8"))
            day = datetime.fromtimestamp(card.stat().st_mtime).date()
            predicts = content.get("kind") == "mosaik"
            name = Predictor.read(card.parent).name if predicts else f"{content['model']}"
        except (InputError, OSError, ValueError, KeyError, AttributeError):
            continue  # damaged: it is not offered, and the step says so where it is used
        if predicts == (step is maker_of(PREDICTION)):
            found[card.parent.name] = f"{name}, {day} ({card.parent.name[:8]})"
    return found


def choose_predictor(case: Case, folder: Path) -> None:
    """Let a case predict by the predictor of a folder, which is copied into the case.

    Raises
    ------
    InputError
        If there is no predictor in *folder*, or it was trained on this case.
    CorruptArtifact
        If it is damaged.
    """
    from napari_mosaik.predictor import TrainedModel

    predictor = Predictor.read(folder)
    if case.name in predictor.cases:
        raise InputError(
            f"the predictor in {folder} was trained on case {case.name}; its prediction would say "
            "nothing: choose one that was trained on other cases"
        )
    TrainedModel.load(folder)
    with case.writing():
        target = case.model_folder(folder.name)
        if not target.exists():
            with atomic_folder(target) as scratch:
                shutil.copytree(folder, scratch, dirs_exist_ok=True)
        step = maker_of(PREDICTION)
        recipe = changed(read_recipe(case.root), step.name, model=folder.name)
        write_recipe(case.root, recipe)
        case.log("choose predictor", model=folder.name)


def train_on_cohort(
    cohort: Sequence[Path], test: str, split: SplitKind = "case", *, seed: int = 0
) -> Generator[tuple[str, Progress], None, str]:
    """Run what the other cases of a cohort lack, and train the predictor without the case *test*.

    Yields what is done, and its progress; returns the hash of the model, which the case uses.
    """
    from napari_mosaik.predictor import TrainParams

    cases = [Case(root) for root in cohort]
    if len(cases) < 2:
        raise InputError(
            "training needs other cases with a measured PET: put the case folders into one folder "
            "and open that folder"
        )
    for case in cases:
        if case.name != test:
            for step, progress in run_until(case, read_recipe(case.root)):
                yield f"{case.name}: {step.title}", progress
    training = train_network(cases, test, TrainParams(), split=split, seed=seed)
    while True:
        try:
            progress = next(training)
        except StopIteration as end:
            return str(end.value)
        yield "Training the predictor", progress
