"""The window knows steps, artifacts and layers as objects: none of their names is written there."""

import ast
from pathlib import Path

import napari_mosaik
from napari_mosaik.core.catalogue import STAIN_TITLES
from napari_mosaik.view.layers import LAYER_TITLES
from napari_mosaik.workflow.steps import STEPS

SOURCE = Path(napari_mosaik.__file__).parent
FREE = {"he", "cd34", "caix", "pet", "suv"}
"""Keys of the slides, of the PET and of the column of the uptake."""
DRAWN_BY = {"LayerSpec", "scalar_layer"}


def text_of(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def strings(path: Path) -> list[tuple[int, str]]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    return [(node.lineno, text_of(node)) for node in nodes if text_of(node)]


def layer_titles() -> set[str]:
    """Titles in the tables of the layers, and those that are written where a layer is made."""
    found = {*LAYER_TITLES.values(), *STAIN_TITLES.values()}
    for name in ("layers.py", "maps.py"):
        for node in ast.walk(ast.parse((SOURCE / "view" / name).read_text("utf-8"))):
            if isinstance(node, ast.Assign):
                found.add(text_of(node.value))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in DRAWN_BY:
                found.update(text_of(argument) for argument in node.args[:2])
    return found - {"", "image", "labels", "points", "shapes", "vectors"}


def test_no_string_of_the_window_is_a_name():
    names = {step.name for step in STEPS} | {a.name for step in STEPS for a in step.writes}
    assert {"tiles", "vessels", "prediction_record", "clusters"} <= names
    titles = layer_titles()
    assert {"Vessels", "H&E", "Predicted minus measured", "Review queue"} <= titles
    used = [
        f"{path.relative_to(SOURCE)}:{line} {text!r}"
        for path in sorted((SOURCE / "widgets").rglob("*.py"))
        for line, text in strings(path)
        if text in (names | titles) - FREE
    ]
    assert used == []
