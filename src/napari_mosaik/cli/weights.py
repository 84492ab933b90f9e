"""The command for the weights of nucleus segmentation networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_mosaik.cli.common import JsonOutput, example_command
from napari_mosaik.cli.show import Bar, drive, print_json, table
from napari_mosaik.core.errors import InputError

__all__ = ["commands"]


commands = typer.Typer()


@example_command(commands, "weights", "weights --file weights_best.h5")
def weights(
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download StarDist's H&E network from its authors.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept the terms that --fetch prints.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Install weights from a file (weights_best.h5, .zip) or a folder."),
    ] = None,
    json: JsonOutput = False,
) -> None:
    """List, download or install weights of StarDist networks."""
    from napari_mosaik.workflow import model_weights as store

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
        f"Weights: the first are built in, others are in {store.weights_folder()}",
        list(names),
        [[str(value) for value in row] for row in rows],
    )
