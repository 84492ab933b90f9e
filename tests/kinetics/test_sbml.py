"""SBML read by a small reader of its own, which knows the format and nothing of the model."""

from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from napari_mosaik.core import InputError
from napari_mosaik.kinetics import ImmunokineticParams, solve_immunokinetic, to_sbml

CORE = "{http://www.sbml.org/sbml/level3/version2/core}"
MATH = "{http://www.w3.org/1998/Math/MathML}"
REQUIRED = {
    "compartment": {"id", "constant"},
    "species": {"id", "compartment", "hasOnlySubstanceUnits", "boundaryCondition", "constant"},
    "parameter": {"id", "constant"},
    "reaction": {"id", "reversible"},
    "speciesReference": {"species", "constant"},
    "unit": {"kind", "exponent", "scale", "multiplier"},
    "unitDefinition": {"id"},
}
"""Attributes that SBML Level 3 Version 2 core demands."""
ORDER = ["UnitDefinitions", "Compartments", "Species", "Parameters", "Reactions"]
"""The order in which it wants the lists of a model, without those that are empty."""


class Reader:
    """An SBML model of reactions in compartments, as rates of change of concentrations."""

    def __init__(self, text):
        root = ElementTree.fromstring(text.encode("utf-8"))
        assert root.tag == f"{CORE}sbml"
        assert (root.get("level"), root.get("version")) == ("3", "2")
        self.model = root.find(f"{CORE}model")
        assert [e.tag for e in self.model] == [f"{CORE}listOf{name}" for name in ORDER]
        for name, attributes in REQUIRED.items():
            for element in self.all(name):
                assert attributes <= set(element.keys()), name
        ids = [
            e.get("id")
            for n in REQUIRED
            for e in self.all(n)
            if e.get("id") and n != "unitDefinition"
        ]
        assert len(ids) == len(set(ids))
        self.sizes = {e.get("id"): float(e.get("size")) for e in self.all("compartment")}
        self.home = {e.get("id"): e.get("compartment") for e in self.all("species")}
        assert {e.get("hasOnlySubstanceUnits") for e in self.all("species")} == {"false"}
        self.start = {
            e.get("id"): float(e.get("initialConcentration")) for e in self.all("species")
        }
        self.constants = {e.get("id"): float(e.get("value")) for e in self.all("parameter")}

    def all(self, name):
        return list(self.model.iter(f"{CORE}{name}"))

    def value(self, element, known):
        if element.tag == f"{MATH}ci":
            return known[element.text.strip()]
        assert element.tag == f"{MATH}apply"
        numbers = [self.value(one, known) for one in element[1:]]
        if element[0].tag == f"{MATH}times":
            return float(np.prod(numbers))
        if element[0].tag == f"{MATH}plus":
            return sum(numbers)
        assert element[0].tag == f"{MATH}minus"
        return numbers[0] - numbers[1]

    def change(self, _time, state):
        names = list(self.start)
        known = dict(zip(names, state, strict=True)) | self.constants | self.sizes
        out = dict.fromkeys(names, 0.0)
        for reaction in self.all("reaction"):
            law = reaction.find(f"{CORE}kineticLaw/{MATH}math")
            rate = self.value(law[0], known)
            for side, sign in (("Reactants", -1), ("Products", 1)):
                for one in reaction.findall(f"{CORE}listOf{side}/{CORE}speciesReference"):
                    name = one.get("species")
                    amount = sign * float(one.get("stoichiometry")) * rate
                    out[name] += amount / self.sizes[self.home[name]]
        return [out[name] for name in names]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"antigen_um": 0.05},
        {"antigen_um": 0.05, "recycling": False},
        {"bound_0_um": 0.02, "internalised_0_um": 0.01, "recycling": False},
    ],
)
def test_an_independent_simulation_equals_ours(changes):
    params = ImmunokineticParams(k_a_per_um_h=300.0, **changes)
    reader, times = Reader(to_sbml(params)), np.array([0.0, 0.1, 2.0, 24, 72, 336])
    assert list(reader.start) == ["free", "bound", "internalised"]
    state = solve_ivp(
        reader.change, (0, 336), list(reader.start.values()), "LSODA", times,
        rtol=1e-10, atol=1e-13,
    ).y  # fmt: skip
    ours = solve_immunokinetic(params, times).stack()
    np.testing.assert_allclose(state.T, ours, rtol=1e-5, atol=1e-9)


def test_table_2_is_written_in_um_and_h():
    reader = Reader(to_sbml())
    table = ImmunokineticParams()
    assert reader.start == {"free": 7.32e-2, "bound": 0.0, "internalised": 0.0}
    assert reader.constants == {
        "k_a": table.k_a_per_um_h, "antigen": 0.3662, "k32": 0.2, "k03": 8.33e-4,
    }  # fmt: skip
    assert reader.model.get("timeUnits") == "hour"
    units = {
        e.get("id"): [
            (u.get("kind"), u.get("exponent"), u.get("scale"), u.get("multiplier"))
            for u in e.iter(f"{CORE}unit")
        ]
        for e in reader.all("unitDefinition")
    }
    assert units["hour"] == [("second", "1", "0", "3600")]
    assert units[reader.model.get("substanceUnits")] == [("mole", "1", "-6", "1")]
    assert reader.model.get("volumeUnits") == "litre"
    assert reader.sizes == {"tissue": 1.0}


def test_every_unit_is_that_of_its_quantity_in_si():
    reader = Reader(to_sbml())
    base = {"second": ("s", 1.0), "mole": ("mol", 1.0), "litre": ("m", 1e-3)}
    powers = {"s": 1, "mol": 1, "m": 3}  # a litre is 1e-3 m^3

    def of(name):
        """Factor to SI, and powers of second, mole and metre."""
        found, factor = dict.fromkeys(powers, 0), 1.0
        (unit,) = (e for e in reader.all("unitDefinition") if e.get("id") == name)
        for part in unit.iter(f"{CORE}unit"):
            exponent = int(part.get("exponent"))
            kind, size = base[part.get("kind")]
            scaled = float(part.get("multiplier")) * 10.0 ** int(part.get("scale")) * size
            factor *= scaled**exponent
            found[kind] += exponent * powers[kind]
        return pytest.approx(factor), tuple(found.values())

    hour, micromolar = 3600.0, 1e-6 / 1e-3
    units = {e.get("id"): of(e.get("units")) for e in reader.all("parameter")}
    assert of(reader.model.get("timeUnits")) == (hour, (1, 0, 0))
    assert of(reader.model.get("extentUnits")) == (1e-6, (0, 1, 0))
    assert units["k32"] == units["k03"] == (1 / hour, (-1, 0, 0))
    assert units["antigen"] == (micromolar, (0, 1, -3))
    assert units["k_a"] == (1 / (micromolar * hour), (-1, -1, 3))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="exceeds the antigen"):
        to_sbml(ImmunokineticParams(bound_0_um=1.0))
