"""The command for the weights of networks that find nuclei."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_mosaik.cli.case import Json
from napari_mosaik.cli.show import Bar, drive, print_json, table
from napari_mosaik.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("weights")(weights)


def weights(
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch StarDist's network for H&E from its makers.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to the terms that --fetch tells.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Take weights in from a file (weights_best.h5, .zip) or a folder."),
    ] = None,
    json: Json = False,
) -> None:
    """List the weights of StarDist networks on this computer, fetch them, or take them in."""
    from napari_mosaik.workflow import nuclei_weights as store

    if fetch and file is not None:
        raise InputError("give --fetch or --file, not both")
    if fetch:
        with Bar(quiet=json) as bar:
            drive(store.fetch_weights(consent=yes), "weights", bar)
    if file is not None:
        store.install_weights(file)
    names = ("weights", "name", "probability", "overlap")
    rows = [
        (found.hash, found.name, found.prob_threshold, found.nms_threshold)
        for found in map(store.find_weights, ("", *store.installed_weights()))
    ]
    if json:
        own, *others = (dict(zip(names, row, strict=True)) for row in rows)
        folder = str(store.weights_folder())
        print_json({"folder": folder, "embedded": own, "installed": others})
        return
    table(
        f"Weights: the first come with the program, others are in {store.weights_folder()}",
        list(names),
        [[str(value) for value in row] for row in rows],
    )
