"""Small chains of steps that count what they compute."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from napari_mosaik.core import Artifact, InputError, Params, Progress, setting
from napari_mosaik.core.catalogue import PET, SLIDES
from napari_mosaik.io import CaseFile, PetEntry, create_case
from napari_mosaik.workflow import case_status as status_module
from napari_mosaik.workflow import recipe as recipe_module
from napari_mosaik.workflow import run as run_module
from napari_mosaik.workflow import steps as steps_module
from napari_mosaik.workflow.step import Step

FIRST = Artifact("first", dict, "first result")
EXTRA = Artifact("extra", dict, "optional result")
LAST = Artifact("last", dict, "last result")


class Settings(Params):
    factor: int = setting(2, "A number.", ge=0)


@dataclass
class Chain:
    """Three steps: first (from the PET) -> extra (from CD34, optional) -> last."""

    blocks: list[int] = field(default_factory=list)
    fail: str = ""

    def first(self, inputs, params):
        def work(item):
            self.blocks.append(item)
            return {"value": np.array(item * params.factor)}

        parts = yield from inputs.blocks("parts", range(40), work, "working")
        if self.fail:
            raise InputError(self.fail)
        return {FIRST: {"sum": int(sum(part["value"] for part in parts))}}

    def extra(self, inputs, params):
        yield Progress(0.5, 1)
        return {EXTRA: {"extra": 1}}

    def last(self, inputs, params):
        yield Progress(0.5, 1)
        extra = inputs.read(EXTRA)["extra"] if inputs.has(EXTRA) else 0
        return {LAST: {"sum": inputs.read(FIRST)["sum"] + extra}}

    def steps(self):
        def step(name, reads, writes, body, **more):
            return Step(name, name.title(), "", "", Settings, reads, writes, body, **more)

        return (
            step("first", (PET,), (FIRST,), self.first),
            step("extra", (SLIDES["cd34"],), (EXTRA,), self.extra),
            step("last", (FIRST,), (LAST,), self.last, may_read=(EXTRA,)),
        )


def install(monkeypatch, steps):
    """Make *steps* the program's steps."""
    monkeypatch.setattr(run_module, "STEPS", steps)
    monkeypatch.setattr(status_module, "STEPS", steps)
    monkeypatch.setattr(recipe_module, "STEPS", steps)
    monkeypatch.setattr(steps_module, "_BY_NAME", {step.name: step for step in steps})
    makers = {artifact.name: step for step in steps for artifact in step.writes}
    monkeypatch.setattr(steps_module, "_MAKERS", makers)


@pytest.fixture
def chain(monkeypatch):
    made = Chain()
    install(monkeypatch, made.steps())
    return made


@pytest.fixture
def case(tmp_path):
    root = tmp_path / "B11"
    root.mkdir()
    (root / "pet.dcm").write_bytes(b"pet")
    return create_case(root, CaseFile(name="B11", pet=PetEntry(paths=("pet.dcm",))))
