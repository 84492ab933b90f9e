"""The command line: one command per thing that a user does."""

from napari_mosaik.cli.main import main

__all__ = ["main"]
