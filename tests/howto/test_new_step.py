"""How many files a new step touches that is seen: a toy step, run, shown and reported in a copy."""

from tests.howto.copies import PackageCopy

SCIENCE = '''"""Necrosis: pale tissue of the H&E slide."""

import numpy as np

from napari_mosaik.core.params import Params, setting

__all__ = ["NecrosisParams", "necrosis_mask"]


class NecrosisParams(Params):
    """How necrosis is found."""

    min_intensity: int = setting(200, "Pixels at least this bright are necrosis.", ge=0, le=255)


def necrosis_mask(rgb, params):
    """Pixels (rows, columns) that are bright in all channels; mask."""
    return np.asarray(rgb).min(axis=2) >= params.min_intensity
'''
STEP = '''"""Find necrosis on the H&E slide."""

import numpy as np

from napari_mosaik.core import Progress, Raster
from napari_mosaik.core.catalogue import NECROSIS, SLIDES
from napari_mosaik.tissue import NecrosisParams, necrosis_mask
from napari_mosaik.workflow.step import Step


def _body(inputs, params):
    yield Progress(0, 1, "finding necrosis")
    with inputs.slide("he") as slide:
        picture = slide.thumbnail(4.0)
    return {NECROSIS: Raster(necrosis_mask(picture.values, params), picture.lattice)}


FIND_NECROSIS = Step(
    name="necrosis",
    title="Necrosis",
    about="Finds necrosis on the H&E slide.",
    page="Tissue and tiles",
    params=NecrosisParams,
    reads=(SLIDES["he"],),
    writes=(NECROSIS,),
    body=_body,
)
'''
VIEW = '''"""Necrosis: outline, share and row of the report."""

import numpy as np

from napari_mosaik.core.catalogue import NECROSIS
from napari_mosaik.core.palette import PREDICTED, one_colour
from napari_mosaik.view.formatting import percent
from napari_mosaik.view.report.html import ReportTable
from napari_mosaik.view.spec import LayerSpec, Legend, placement
from napari_mosaik.view.step_view import StepView
from napari_mosaik.workflow.steps.necrosis import FIND_NECROSIS


def _layers(results, choice):
    mask = results.get(NECROSIS)
    if mask is None:
        return []
    place = placement(mask.lattice, results.transform("he"))
    legend = Legend("Necrosis", entries=(("necrosis", PREDICTED),))
    values = np.asarray(mask.values, np.uint8)
    style = {"colormap": one_colour(PREDICTED)}
    return [LayerSpec("Necrosis", "labels", values, place, style, legend=legend)]


def _line(results):
    return percent(float(np.mean(results.get(NECROSIS).values)))


def _report(results):
    if not results.has(NECROSIS):
        return []
    return [ReportTable("Segmentation", ("", "amount"), (("necrosis", _line(results)),))]


NECROSIS_VIEW = StepView(
    step=FIND_NECROSIS, layers=_layers, base_slide="he", result_line=_line, report=_report
)
'''
ARTIFACT = '\nNECROSIS: Final = Artifact("necrosis", Raster, "necrosis on the H&E slide")\n'
USE = """
import sys
from pathlib import Path

import numpy as np
import tifffile

from napari_mosaik.io.case import create_case
from napari_mosaik.io.case_file import CaseFile, SlideEntry
from napari_mosaik.view.presentation import result_lines, specs_of, step_view
from napari_mosaik.view.report.content import case_report
from napari_mosaik.workflow.case_status import case_status
from napari_mosaik.workflow.recipe import read_recipe
from napari_mosaik.workflow.run import run_until

root = Path(sys.argv[1])
root.mkdir()
rgb = np.full((256, 256, 3), 90, np.uint8)
rgb[:64] = 240
tifffile.imwrite(root / "he.tif", rgb, tile=(128, 128), photometric="rgb")
entry = SlideEntry(path="he.tif", spacing_um=(1.0, 1.0), spacing_source="user")
case = create_case(root, CaseFile(name="B1", slides={"he": entry}))
for _ in run_until(case, read_recipe(root), "necrosis"):
    pass
states = case_status(case).states
assert states["necrosis"].word == "done"
[layer] = specs_of(case, "necrosis")
assert layer.name == "Necrosis"
assert int(layer.data.sum()) == 16 * 64
assert step_view("necrosis").base_slide == "he"
assert result_lines(case, states)["necrosis"].startswith("25")
assert "<td>necrosis</td>" in case_report(case)
"""


NAMES = (
    "from .necrosis import NecrosisParams, necrosis_mask\n",
    '"NecrosisParams",\n    "necrosis_mask",\n',
)


def test_a_new_step_that_is_seen(tmp_path, record_property):
    package = PackageCopy(tmp_path)
    package.append("tissue/necrosis.py", SCIENCE)
    package.edit("tissue/__init__.pyi", "from .stain", f"{NAMES[0]}from .stain")
    package.edit("tissue/__init__.pyi", "__all__ = [\n", f"__all__ = [\n    {NAMES[1]}")
    package.append("core/catalogue.py", ARTIFACT)
    package.append("workflow/steps/necrosis.py", STEP)
    package.append("view/steps/necrosis.py", VIEW)
    package.run(USE, tmp_path / "case")
    touched = package.touched()
    in_widgets = sum(path.parts[0] == "widgets" for path in touched)
    record_property("new_step_files", len(touched))
    record_property("new_step_widgets", in_widgets)
    assert len(touched) <= 5
    assert in_widgets == 0
