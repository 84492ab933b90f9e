"""Commands over several cases: retrain the tissue classes, train the network, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_mosaik.cli.case import Json, Paths, Scheduler, open_cases, run_case
from napari_mosaik.cli.show import Bar, drive, figure, print_json, table
from napari_mosaik.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("retrain")(retrain)
    app.command("train")(train)
    app.command("predict")(predict)


def retrain(
    cases: Paths,
    into: Annotated[
        list[Path] | None,
        typer.Option(help="Cases that get the model; those that teach it else. May be repeated."),
    ] = None,
    method: Annotated[str, typer.Option(help="fast, or densenet (the paper's network).")] = "fast",
    preset: Annotated[
        str, typer.Option(help="Settings of the network by name: paper (default) or robust.")
    ] = "",
    encoder: Annotated[
        str,
        typer.Option(
            help="What the network's encoder begins with: a file of DenseNet169 weights, or "
            "'imagenet' to fetch them; chance if empty."
        ),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to the terms that '--encoder imagenet' tells.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of the method: name=value.")
    ] = None,
    json: Json = False,
) -> None:
    """Train the tissue classes from the annotations of one or many cases."""
    from napari_mosaik.workflow.classifier import retrain as work
    from napari_mosaik.workflow.encoder_weights import encoder_weights

    teaching = open_cases(cases)
    targets = open_cases(into) if into else teaching
    begin = Path(encoder) if encoder else None
    with Bar(quiet=json) as bar:
        if encoder == "imagenet":
            begin = drive(encoder_weights(consent=yes), "Encoder", bar)
        made = drive(
            work(
                teaching,
                targets,
                method=method,
                preset=preset,
                settings=settings_of(set_),
                seed=seed,
                encoder=begin,
            ),
            "Tissue classifier",
            bar,
        )
    if json:
        print_json(made)
        return
    typer.echo(f"model {made['model']} from {made['n_shapes']} shapes in {made['n_cases']} cases")
    for sentence in made["notes"]:
        typer.echo(f"- {sentence}")
    _say_scores(made["held_out"])
    typer.echo("what depends on it is stale now; recompute with: napari-mosaik run CASE")


def _say_scores(held_out: dict[str, Any] | None) -> None:
    """A table of the scores on what did not teach."""
    if held_out is None:
        typer.echo("not judged: too few shapes to hold some out; draw more of each class")
        return
    names = ("dice", "iou", "precision", "recall", "accuracy")
    rows = [
        [name, *(figure(scores[key]) for key in names)]
        for name, scores in held_out["classes"].items()
    ]
    table("Judged on shapes that did not teach", ["class", *names[:4], "one against rest"], rows)
    typer.echo(
        f"right overall: {figure(held_out['overall'])}. One against rest counts the pixels of the "
        "other classes too and flatters small classes."
    )


def settings_of(texts: list[str] | None) -> dict[str, str]:
    """Values of ``--set name=value``."""
    values = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator:
            raise InputError(f"--set {text!r} is not of the form name=value")
        values[name.strip()] = value.strip()
    return values


def train(
    cohort: Paths,
    test: Annotated[str, typer.Option(help="Name of the case that is held out.")],
    split: Annotated[
        str, typer.Option(help="case: all other cases teach; patient: other patients only.")
    ] = "case",
    preset: Annotated[
        str, typer.Option(help="default, or paper (the paper's settings).")
    ] = "default",
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    json: Json = False,
) -> None:
    """Train the uptake network on all cases but one, and put the model into that one."""
    from napari_mosaik.predictor import TrainParams
    from napari_mosaik.workflow.cohort import train_network

    if split not in ("case", "patient"):
        raise InputError(
            f"split '{split}' is not offered; use case or patient (random tiles leak the answer)"
        )
    found = open_cases(cohort)
    params = TrainParams.preset(preset)
    with Bar(quiet=json) as bar:
        model = drive(
            train_network(found, test, params, split=split, seed=seed),  # type: ignore[arg-type]
            f"Training without {test}",
            bar,
        )
    if json:
        print_json({"model": model, "test_case": test, "split": split, "seed": seed})
    else:
        typer.echo(f"model {model} is in case {test}; predict with: napari-mosaik predict CASE")


def predict(
    case: Annotated[Path, typer.Argument(help="A case folder.")],
    model: Annotated[str, typer.Option(help="Hash of a model in the case's models folder.")] = "",
    scheduler: Scheduler = "",
    json: Json = False,
) -> None:
    """Predict the uptake of a case and compare it with the measured one where there is one."""
    from napari_mosaik.core.catalogue import METRICS, PREDICTION_RECORD
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe

    (found,) = open_cases([case])[:1]
    if model:
        with found.writing():
            write_recipe(found.root, changed(read_recipe(found.root), "predict", model=model))
    with Bar(quiet=json) as bar:
        run_case(found, bar, "predict", scheduler)
        if case_status(found).states["review"].word in ("missing", "stale"):
            run_case(found, bar, "review", scheduler)
    done = case_status(found).states["review"].word == "done"
    record = found.store.read(METRICS if done else PREDICTION_RECORD)
    if json:
        print_json(record)
    else:
        typer.echo(f"case {found.name}: predicted with model {record['model']}")
        if done:
            typer.echo(f"  MAE of the normalised SUV {record['suv_norm']['mae']:.3g}")
