"""The demo: the sample cohort, the whole pipeline on it, figures and a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_mosaik.cli.case import run_case
from napari_mosaik.cli.common import Seed, display_problem, example_command, open_window
from napari_mosaik.cli.show import Bar, drive, figure, table
from napari_mosaik.cli.side_by_side import fitting_jobs, run_side_by_side
from napari_mosaik.core.errors import InputError

__all__ = ["commands"]

TEST_CASE = "B11"


commands = typer.Typer()


@example_command(commands, "demo", "demo --out demo --seed 0")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the cohort and the results.")] = Path(
        "demo"
    ),
    size: Annotated[
        Literal["quick", "tiny"], typer.Option(help="Size of the sample cohort.")
    ] = "quick",
    seed: Seed = 0,
    headless: Annotated[
        bool, typer.Option("--headless", help="Do not open napari at the end.")
    ] = False,
) -> None:
    """Make the sample cohort, run the pipeline on it and compare predicted with measured uptake.

    Run it again to resume: finished work is kept.
    """
    began = time.monotonic()
    with Bar() as bar:
        cases = _cohort(out / "cohort", size, seed, bar)
        held_out = next(case for case in cases if case.name == TEST_CASE)
        _pipeline(cases, held_out, seed, bar)
        report = _report(held_out, out)
    metrics = _figures(held_out, out, time.monotonic() - began)
    _show(metrics)
    typer.echo(f"figures: {out / 'metrics.json'}")
    typer.echo(f"report:  {report}")
    typer.echo("Synthetic sample data. Research use only.")
    if not headless and not display_problem():
        open_window(held_out.root)


def _cohort(folder: Path, size: str, seed: int, bar: Bar) -> list[Any]:
    from napari_mosaik.io import Case
    from napari_mosaik.io.files import saving
    from napari_mosaik.phantom import sample

    with saving("the sample cohort", folder):
        made = drive(sample(folder, size, seed, None), f"Sample cohort ({size})", bar)
    return [Case(path) for path in made]


def _pipeline(cases: list[Any], held_out: Any, seed: int, bar: Bar) -> None:
    """Everything in the order of a study: classes, parameters, clusters, network, prediction."""
    from napari_mosaik.predictor import TrainParams
    from napari_mosaik.workflow.classifier import retrain
    from napari_mosaik.workflow.cohort import train_network
    from napari_mosaik.workflow.recipe import changed, read_recipe, write_recipe

    training = [case for case in cases if case.name != held_out.name]
    for case in training:
        run_case(case, bar, "stain")
    drive(retrain(training, cases, seed=seed), "Tissue classifier from annotations", bar)
    _run_all(cases, bar)
    work = train_network(cases, held_out.name, TrainParams(), seed=seed)
    drive(work, f"Uptake network, trained without {held_out.name}", bar)
    with held_out.writing():
        recipe = changed(read_recipe(held_out.root), "input_spread", draws=_DRAWS)
        write_recipe(held_out.root, recipe)
    run_case(held_out, bar)


def _run_all(cases: list[Any], bar: Bar) -> None:
    """What is missing in all cases, side by side where cores and memory allow."""
    jobs = fitting_jobs(len(cases))
    if jobs == 1:
        for case in cases:
            run_case(case, bar)
        return
    failed = run_side_by_side([case.root for case in cases], [], jobs, bar)
    if failed:
        raise InputError(" | ".join(failed))


_DRAWS = 24
"""Draws of the inputs of the prediction."""


def _report(case: Any, out: Path) -> Path:
    from napari_mosaik.view.report.content import write_case_report

    return write_case_report(case, out / "report.html")


def _figures(case: Any, out: Path, seconds: float) -> dict[str, Any]:
    from napari_mosaik.core.catalogue import METRICS
    from napari_mosaik.io.files import write_json

    metrics = {**case.store.read(METRICS), "seconds": round(seconds, 1)}
    write_json(out / "metrics.json", metrics)
    return metrics


def _show(metrics: dict[str, Any]) -> None:
    from napari_mosaik.view.formatting import baseline_title, by_error, count, interval

    rows = [["MOSAIK network", *_three(metrics["suv_norm"]), ""]]
    rows += [
        [
            f"baseline: {baseline_title(name)}",
            *_three(errors or {}),
            interval((errors or {}).get("mae_minus_network")),
        ]
        for name, errors in by_error(metrics["baselines"])
    ]
    tiles = count(metrics["n_tiles"], "tile")
    title = f"{metrics['test_case']}, held out, {tiles}; normalised SUV" + (
        " (same patient in training)" if metrics["shared_patient"] else ""
    )
    title += " (development case: optimistic)" if metrics["development"] else ""
    table(title, ["method", "MSE", "MAE", "R²", "MAE - network (95 %)"], rows)
    typer.echo(
        f"SUV by body surface: MAE {figure(metrics['suv_bsa']['mae'])} {metrics['unit']}, "
        f"R² {figure(metrics['suv_bsa']['r2'])}; {metrics['seconds']:.0f} s"
    )


def _three(errors: dict[str, Any]) -> list[str]:
    return [figure(errors.get(key)) for key in ("mse", "mae", "r2")]
