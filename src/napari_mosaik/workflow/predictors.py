"""The trained predictors that a case can use: listed, trained on its cohort, chosen."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.catalogue import PARAMETERS, PREDICTION, PREDICTION_RECORD, TILES
from napari_mosaik.core.errors import InputError
from napari_mosaik.io.case import Case
from napari_mosaik.workflow.classifier import REPLAY, retrain
from napari_mosaik.workflow.cohort import SplitKind, train_network
from napari_mosaik.workflow.models import KnownModel, adopt_model, with_cohort
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until
from napari_mosaik.workflow.step import Step
from napari_mosaik.workflow.steps import maker_of

if TYPE_CHECKING:
    from napari_mosaik.predictor import NearestTiles

__all__ = [
    "Predictor",
    "choose_predictor",
    "known_predictors",
    "learn_on",
    "models_for",
    "nearest_training_tiles",
    "train_on_cohort",
]


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
                raise InputError(f"the model in {folder} is not a predictor of uptake")
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
    """The models of a case that a step can use: first letters of the hash, date and name."""
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
            found[card.parent.name] = f"{card.parent.name[:8]}, {day}, {name}"
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
    Predictor.read(folder)
    adopt_model([case], KnownModel.read(folder), "choose predictor")


def nearest_training_tiles(case: Case, k: int = 5) -> NearestTiles:
    """The training tiles most like each tile of a predicted case, of the model that predicted it.

    Raises
    ------
    InputError
        The case is not predicted, a tile parameter is missing, or the model keeps no tiles.
    CorruptArtifact
        The model is damaged.
    """
    from napari_mosaik.predictor import TileInputs, TrainedModel, nearest_tiles

    if case.store.origin(PREDICTION_RECORD) is None:
        raise InputError(f"case {case.name} is not predicted; run the page 'Predictor' first")
    name = case.store.read(PREDICTION_RECORD)["model"]
    model = TrainedModel.load(case.model_folder(name))
    table, features = case.store.read(PARAMETERS), tuple(model.card["features"])
    lost = [one for one in features if one not in table]
    if lost:
        raise InputError(f"case {case.name} lacks the tile parameter '{lost[0]}' of the model")
    grid = case.store.read(TILES)
    inputs = TileInputs.of_parameters(case.name, grid, table.matrix(features), features)
    return nearest_tiles(model, inputs, k)


def learn_on(
    case: Case,
    cohort: Sequence[Path],
    parent: KnownModel,
    *,
    replay: float = REPLAY,
    epochs: int = 0,
    seed: int = 0,
) -> Generator[Progress, None, dict[str, Any]]:
    """Fine-tune a network: a tissue network from annotations, a predictor without this case.

    Its model is stored in the case, compared with its parent and not used.

    Parameters
    ----------
    case, cohort
        The case that gets the model, and the folders of all cases.
    parent
        The model to start from.
    replay
        Share of the tiles that it knows among those that train.
    epochs
        Maximum number of epochs; that of the parent if 0.
    seed
        Random seed.

    Returns
    -------
    dict
        ``model``, ``comparison`` (None where nothing is held out from both) and ``warnings``.
    """
    settings = {"epochs": epochs} if epochs else {}
    cases = with_cohort([case], cohort or (case.root,))
    if parent.is_classifier:
        made = yield from retrain(
            cases,
            [case],
            method="densenet",
            settings=settings,
            seed=seed,
            parent=parent,
            replay=replay,
        )
        return {name: made[name] for name in ("model", "comparison", "warnings")}
    from napari_mosaik.predictor import TrainParams

    split: SplitKind = "patient" if parent.card.get("split") == "patient" else "case"
    params = TrainParams.parse(settings, "settings")
    model = yield from train_network(
        cases, case.name, params, split=split, seed=seed, parent=parent, replay=replay
    )
    card = KnownModel.read(case.model_folder(model)).card
    return {"model": model, "comparison": card.get("comparison"), "warnings": card["warnings"]}


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
