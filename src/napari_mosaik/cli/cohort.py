"""Commands over several cases: train the tissue classifier and the uptake network, predict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_mosaik.cli.case import one_case, open_cases, run_case
from napari_mosaik.cli.common import (
    CaseFolder,
    CaseFolders,
    Device,
    JsonOutput,
    SchedulerAddress,
    Seed,
    SettingChanges,
    example_command,
    given_settings,
    number_option,
    report_warning,
)
from napari_mosaik.cli.show import Bar, drive, figure, print_json, table
from napari_mosaik.core.errors import InputError

__all__ = ["commands"]


commands = typer.Typer()
FromModel = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="HASH",
        help="Fine-tune this model on what has changed since its training.",
    ),
]
Replay = Annotated[
    float | None,
    number_option("With --from: fraction of tiles on which the model was trained before.", "SHARE"),
]


@example_command(commands, "retrain", "retrain cohort/A2 cohort/A3 --into cohort/B11")
def retrain(
    cases: CaseFolders,
    into: Annotated[
        list[Path] | None,
        typer.Option(help="Case that receives the model. Default: the training cases. Repeatable."),
    ] = None,
    method: Annotated[
        Literal["fast", "densenet"],
        typer.Option(help="A random forest on colour and texture, or the paper's DenseNet169."),
    ] = "fast",
    preset: Annotated[
        Literal["", "paper", "robust"],
        typer.Option(help="Named settings of the DenseNet; paper if empty.", show_default=False),
    ] = "",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="FILE|imagenet",
            help="Initial weights of the DenseNet encoder: a file, or imagenet to download them. "
            "Default: random initialisation.",
        ),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept the terms that '--encoder imagenet' prints.")
    ] = False,
    seed: Seed = 0,
    from_: FromModel = "",
    replay: Replay = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Reader whose annotations train. Default: all readers. Repeatable.",
        ),
    ] = None,
    set_: SettingChanges = None,
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Train the tissue classifier on the annotations of one or more cases.

    With --from a DenseNet is fine-tuned; its model is compared, and used once it is adopted.
    """
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.classifier import REPLAY
    from napari_mosaik.workflow.classifier import retrain as work
    from napari_mosaik.workflow.model_weights import encoder_weights
    from napari_mosaik.workflow.models import find_model, with_cohort

    training = open_cases(cases)
    targets = open_cases(into) if into else training
    parent = find_model(with_cohort([*training, *targets]), from_) if from_ else None
    method = "densenet" if parent is not None else method
    initial = Path(encoder) if encoder else None
    with Bar(quiet=json) as bar:
        if encoder == "imagenet":
            initial = drive(encoder_weights(consent=yes), "Encoder", bar)
        made = drive(
            work(
                training,
                targets,
                method=method,
                preset=preset,
                settings=given_settings(set_),
                seed=seed,
                encoder=initial,
                parent=parent,
                replay=REPLAY if replay is None else replay,
                readers=reader or (),
            ),
            "Tissue classifier",
            bar,
        )
    for sentence in made["warnings"]:
        report_warning(sentence)
    if json:
        print_json(made)
        return
    by = f" by {', '.join(made['readers'])}" if made["readers"] else ""
    typer.echo(
        f"model {made['model']} from {count(made['n_shapes'], 'shape')} in "
        f"{count(made['n_cases'], 'case')}{by}"
    )
    for sentence in made["notes"]:
        typer.echo(f"- {sentence}")
    _print_scores(made["held_out"])
    if made["adopted"]:
        typer.echo("dependent results are stale now; recompute them with: napari-mosaik run CASE")
    else:
        _print_comparison(made["comparison"], made["model"])


def _print_comparison(score: dict[str, Any] | None, model: str) -> None:
    """What a model that learned on is worth beside its parent, and how it is used."""
    if score is None:
        typer.echo("not compared: nothing is held out from both models")
    else:
        from napari_mosaik.view.models import comparison_line

        typer.echo(comparison_line(score))
    typer.echo(f"use it with: napari-mosaik models adopt CASE {model[:12]}")


def _print_scores(held_out: dict[str, Any] | None) -> None:
    """A table of the scores on held-out annotations."""
    if held_out is None:
        typer.echo("not evaluated: too few annotations to hold some out; draw more of each class")
        return
    names = ("dice", "iou", "precision", "recall", "accuracy")
    rows = [
        [name, *(figure(scores[key]) for key in names)]
        for name, scores in held_out["classes"].items()
    ]
    table("Performance on held-out annotations", ["class", *names[:4], "one against rest"], rows)
    typer.echo(
        f"overall accuracy: {figure(held_out['overall'])}. One against rest also counts the pixels "
        "of the other classes, so it is high for small classes."
    )


@example_command(commands, "train", "train cohort --test B11 --split patient")
def train(
    cohort: CaseFolders,
    test: Annotated[str, typer.Option(metavar="CASE", help="Name of the held-out case.")],
    split: Annotated[
        Literal["case", "patient", "block"],
        typer.Option(
            help="Train on all other cases, only on other patients' cases, or on one end of the "
            "test case itself."
        ),
    ] = "case",
    guard: Annotated[
        int | None,
        typer.Option(
            metavar="TILES",
            help="With --split block: tiles between training and test. Default: the widest window "
            "and the scanner's blur.",
        ),
    ] = None,
    preset: Annotated[
        Literal["default", "paper"], typer.Option(help="Named training settings.")
    ] = "default",
    seed: Seed = 0,
    from_: FromModel = "",
    replay: Replay = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Ablation: train without each part of the network in turn; nothing is stored.",
        ),
    ] = False,
    set_: SettingChanges = None,
    scheduler: SchedulerAddress = "",
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Train the uptake network without one case, and add the model to that case.

    With --from it is fine-tuned; its model is compared, and used once it is adopted.
    """
    from napari_mosaik.predictor import TrainedModel, TrainParams
    from napari_mosaik.predictor.params import PRESETS
    from napari_mosaik.workflow.classifier import REPLAY
    from napari_mosaik.workflow.cohort import train_network, training_cases
    from napari_mosaik.workflow.models import find_model, with_cohort
    from napari_mosaik.workflow.parallel import on_one_worker

    found = open_cases(cohort)
    training, _ = training_cases(found, test, split)
    params = TrainParams.parse({**PRESETS[preset], **given_settings(set_)}, "settings")
    if scheduler and (ablate or device != "auto"):
        raise InputError(
            "--scheduler trains one network on the device of a worker; omit --ablate and --device"
        )
    if ablate:
        _ablate(found, test, params, split, seed, from_, json)
        return
    parent = find_model(with_cohort(found), from_) if from_ else None
    with Bar(quiet=json) as bar:
        work = partial(
            train_network,
            found,
            test,
            params,
            split=split,
            guard=guard,
            seed=seed,
            parent=parent,
            replay=REPLAY if replay is None else replay,
        )
        training_of = on_one_worker(work, scheduler) if scheduler else work()
        model = drive(training_of, f"Training without {test}", bar)
    (held_out,) = (case for case in found if case.name == test)
    card = TrainedModel.load(held_out.model_folder(model)).card
    warnings = card["warnings"]
    for text in warnings:
        report_warning(text)
    facts: dict[str, Any] = {"model": model, "test_case": test, "split": split, "seed": seed}
    facts |= {"device": card.get("device", "CPU"), "notes": card.get("notes", [])}
    if json:
        more = {name: card.get(name) for name in ("parent", "replay", "comparison")}
        names = [case.name for case in training]
        facts |= more if parent is not None else {}
        facts |= {"block": card["block"]} if "block" in card else {}
        print_json({**facts, "training_cases": names, "warnings": warnings})
        return
    typer.echo(f"trained on {', '.join(case.name for case in training)} ({facts['device']})")
    for text in facts["notes"]:
        typer.echo(f"- {text}")
    if parent is not None:
        _print_comparison(card.get("comparison"), model)
    else:
        typer.echo(f"model {model} is in case {test}; predict with: napari-mosaik predict CASE")


def _ablate(
    cases: list[Any], test: str, params: Any, split: Any, seed: int, from_: str, json: bool
) -> None:
    """Train without each part in turn, and print what each contributes."""
    from napari_mosaik.workflow.cohort import ablate_network

    if from_:
        raise typer.BadParameter(
            "trains from the start: not together with --from", param_hint="--ablate"
        )
    if split == "block":
        raise typer.BadParameter("takes --split case or patient", param_hint="--ablate")
    with Bar(quiet=json) as bar:
        work = ablate_network(cases, test, params, split=split, seed=seed)
        found = drive(work, f"Training without {test}", bar)
    if json:
        print_json(found)
        return
    typer.echo(f"normalised SUV of {test}, mean absolute error")
    typer.echo(f"  whole network        {found['whole']['mae']:.4f}")
    for part, one in found["without"].items():
        more = one["mae_minus_whole"]
        interval = "" if more["low"] is None else f" ({more['low']:+.4f} to {more['high']:+.4f})"
        typer.echo(f"  without {part:13s}{one['mae']:.4f}  {more['estimate']:+.4f}{interval}")


@example_command(commands, "predict", "predict cohort/B11")
def predict(
    case: CaseFolder,
    model: Annotated[
        str, typer.Option(metavar="HASH", help="A model in the case's models folder.")
    ] = "",
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TILE=CLASS|FILE|drawn",
            help="Show the prediction for other tissue classes of some tiles; nothing is stored. "
            "A tile (or several, '17,18=neoplastic'), a GeoJSON file of areas on H&E, or 'drawn': "
            "what was drawn and not run yet. Repeatable.",
        ),
    ] = None,
    attention: Annotated[
        int | None,
        typer.Option(
            metavar="TILE",
            help="Show how the network weights the cluster maps around a tile; nothing is stored.",
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Draw the inputs N times within their errors (24, for example) and state how far "
            "the prediction changes; 0 turns it off. Default: as set in the case.",
        ),
    ] = None,
    scheduler: SchedulerAddress = "",
    device: Device = "auto",
    json: JsonOutput = False,
) -> None:
    """Predict the uptake of a case and compare it with the measured uptake, if there is one."""
    if what_if or attention is not None:
        _ask(one_case(case), model, what_if or [], attention, json)
        return
    from napari_mosaik.core.catalogue import INPUT_SPREAD_RECORD
    from napari_mosaik.view.tile_data import spread_lines
    from napari_mosaik.workflow.case_status import case_status
    from napari_mosaik.workflow.review_queue import mark_steered

    found = one_case(case)
    mark_steered(found, compute=False)
    _set_prediction(found, model, draws)
    with Bar(quiet=json) as bar:
        for step in ("predict", "input_spread"):
            run_case(found, bar, step, scheduler)
        if case_status(found).states["review"].word in ("missing", "stale"):
            run_case(found, bar, "review", scheduler)
    done, record = _comparison(found)
    record = {
        "development": found.is_development,
        "input_spread": found.store.read(INPUT_SPREAD_RECORD),
        **record,
    }
    state = case_status(found).states["predict"]
    for text in dict.fromkeys([*record.get("warnings", ()), *state.warnings]):
        report_warning(text)
    if json:
        print_json(record)
        return
    typer.echo(f"case {found.name}: predicted with model {record['model']}")
    if done:
        typer.echo(f"  MAE of the normalised SUV {_error_words(record)}")
    for line in spread_lines(record):
        typer.echo(f"  {line}")


def _comparison(case: Any) -> tuple[bool, dict[str, Any]]:
    """Whether a prediction is compared with the PET, and the record that says most of it."""
    from napari_mosaik.core.catalogue import METRICS, PREDICTION_RECORD
    from napari_mosaik.workflow.case_status import case_status

    done = case_status(case).states["review"].word == "done"
    if done:
        case.note_shown("the error of the prediction")
    return done, case.store.read(METRICS if done else PREDICTION_RECORD)


def _error_words(record: Mapping[str, Any]) -> str:
    """The error of a prediction with what qualifies it."""
    error = record["suv_norm"]["mae"]
    if error is None:
        return "not available: no tile is measured and predicted"
    return f"{error:.3g}" + (", optimistic (development case)" if record["development"] else "")


def _ask(case: Any, model: str, what_if: list[str], attention: int | None, json: bool) -> None:
    """Answer a question to the predictor in use; nothing is stored."""
    if model or (what_if and attention is not None):
        raise InputError(
            "--what-if and --attention ask the predictor that the case uses, one at a time; omit "
            "the other and --model"
        )
    if attention is None:
        _what_if(case, what_if, json)
    else:
        _attention(case, attention, json)


_SHOWN = 20
"""So many tiles are printed of a what-if, those that change most; --json has all."""


def _what_if(case: Any, asked: list[str], json: bool) -> None:
    """Print what the prediction would be if the tissue were of other classes."""
    from napari_mosaik.view.formatting import count
    from napari_mosaik.workflow.what_if import what_if

    shapes = [shape for text in asked for shape in _assumed_shapes(case, text)]
    with Bar(quiet=json) as bar:
        work = what_if(case, shapes, drawn="drawn" in asked)
        found = drive(work, f"{case.name} · what if", bar)
    record = {"case": case.name, **found.record()}
    if json:
        print_json(record)
        return
    typer.echo(
        f"case {case.name}: parameters would change in {count(record['n_edited'], 'tile')}, the "
        f"prediction in {record['n_reached']}; nothing is stored"
    )
    for text in record["held_fixed"]:
        typer.echo(f"- {text}")
    rows = sorted(record["tiles"], key=lambda one: -abs(one["difference"] or 0.0))[:_SHOWN]
    table(
        f"SUV ({record['unit']}), the largest differences first",
        ["tile", "before", "after", "difference", "width before", "width after"],
        [
            [
                f"{one['tile']}{' *' if one['edited'] else ''}",
                *(figure(one[when]["suv"]) for when in ("before", "after")),
                figure(one["difference"]),
                *(figure(one[when]["width"]) for when in ("before", "after")),
            ]
            for one in rows
        ],
    )
    typer.echo("* parameters of the tile itself would change; width: that of its 90 % interval")


def _assumed_shapes(case: Any, text: str) -> Any:
    """The areas of one --what-if: tiles of a class, or those of a GeoJSON file."""
    from napari_mosaik.io.annotations import read_geojson
    from napari_mosaik.workflow.what_if import tile_shapes

    if text == "drawn":
        return ()
    tiles, equals, label = text.rpartition("=")
    numbers = [part.strip() for part in tiles.split(",")]
    if equals and all(part.isdecimal() for part in numbers):
        return tile_shapes(case, map(int, numbers), label.strip())
    if not Path(text).exists():
        raise InputError(
            f"--what-if '{text}' is neither a file, nor TILE=CLASS as in 17=neoplastic, nor 'drawn'"
        )
    with case.slide("he") as slide:
        return read_geojson(text, slide.lattice, tissue_only=True)


def _attention(case: Any, tile: int, json: bool) -> None:
    """Print the weights of the cluster maps around a tile."""
    from napari_mosaik.view.plots import ATTENTION_MEANS
    from napari_mosaik.workflow.what_if import attention_of

    with Bar(quiet=json) as bar:
        found = drive(attention_of(case), f"{case.name} · attention", bar)
    if not 0 <= tile < len(found.within):
        raise InputError(
            f"case {case.name} has no tile {tile}; it has 0 to {len(found.within) - 1}"
        )
    maps = dict(zip(found.proxies, found.within[tile], strict=True))
    shares = dict(zip(found.proxies, found.shares[tile].tolist(), strict=True))
    if json:
        across = found.across[tile].tolist()
        facts = {"case": case.name, "model": found.model, "tile": tile, "about": ATTENTION_MEANS}
        within = {name: values.tolist() for name, values in maps.items()}
        print_json({**facts, "proxies": shares, "within": within, "across": across})
        return
    typer.echo(f"case {case.name}, tile {tile}: mean weights of members and heads")
    rows = []
    for name, values in maps.items():
        row, column = (int(i) for i in divmod(int(values.argmax()), values.shape[1]))
        middle = values.shape[0] // 2
        place = f"{row - middle:+d}, {column - middle:+d}"
        largest, centre = values[row, column], values[middle, middle]
        rows.append([name, *(f"{100 * v:.1f} %" for v in (shares[name], centre, largest)), place])
    titles = ["proxy", "weight", "the tile itself", "largest", "offset of that (row, column)"]
    table("Attention over the cluster maps (11 x 11 tiles)", titles, rows)
    typer.echo(ATTENTION_MEANS)


def _set_prediction(case: Any, model: str, draws: int | None) -> None:
    """Note in the case by which model it is predicted, and how often its inputs are drawn."""
    from napari_mosaik.workflow.predictors import Predictor
    from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe

    recipe = read_recipe(case.root)
    if model:
        Predictor.read(case.model_folder(model))  # a wrong one does not get into the recipe
        recipe = changed(recipe, "predict", model=model)
    if draws is not None:
        recipe = changed(recipe, "input_spread", draws=draws)
    if model or draws is not None:
        with case.writing():
            write_recipe(case.root, recipe)
