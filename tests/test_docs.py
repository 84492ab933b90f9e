"""The documents: links, headings, and that what they name exists."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "napari_mosaik"
sys.path.insert(0, str(ROOT / "docs"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "sample_data" / "README.md"]
MADE = {"outputs.md", "settings.md", "commands.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        path = page.parent / target.partition("#")[0]
        assert path.exists() or path.name in MADE or "reference" in path.parts, target


def test_the_page_on_contributions_has_its_headings():
    text = (ROOT / "docs" / "how_to_add.md").read_text("utf-8")
    asked = ("step", "layer", "slide format", "PET format", "tissue class", "tool")
    for thing in asked:
        assert f"## How do I add a {thing}\n" in text


def _names() -> set[str]:
    names: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for attribute in ("name", "id", "attr", "arg"):
                value = getattr(node, attribute, None)
                if isinstance(value, str):
                    names.add(value)
            if isinstance(node, ast.ImportFrom):
                names |= set((node.module or "").split("."))
    return names | {path.stem for path in SOURCE.rglob("*.py")} | {p.name for p in SOURCE.iterdir()}


def test_the_glossary_names_what_the_code_has():
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    entries = re.findall(r"^### (.+)\n(.+\n)?Code `(\w+)`; window .+; files .+\.$", text, re.M)
    assert len(entries) == len(re.findall(r"^### ", text, re.M))
    names = _names()
    assert [term for term, _, code in entries if code not in names] == []


def test_the_first_use_of_a_term_is_a_link():
    from link_terms import linked, pages

    late = [
        page.name for page in pages() if linked(page.read_text("utf-8")) != page.read_text("utf-8")
    ]
    assert late == []


def test_a_missing_link_is_found():
    from link_terms import linked

    assert linked("`registration` needs a landmark.") == (
        "`registration` needs a [landmark](glossary.md#landmark)."
    )
    assert linked("# Landmark\n\nLandmarks") == "# Landmark\n\n[Landmarks](glossary.md#landmark)"


def test_every_column_has_a_meaning():
    tables = json.loads((ROOT / "docs" / "outputs.json").read_text("utf-8"))
    bare = [f"{name}.{c['name']}" for name, cs in tables.items() for c in cs if not c["about"]]
    assert bare == []


def test_every_optical_density_has_its_base_in_the_documents():
    import hooks

    words = {"OD": "OD (natural)", "OD10": "OD (base 10)"}
    tables = json.loads((ROOT / "docs" / "outputs.json").read_text("utf-8"))
    columns = [c for one in tables.values() for c in one if c["unit"] in words]
    assert len(columns) >= 6
    assert [c["name"] for c in columns if words[c["unit"]] not in c["about"]] == []
    pages = hooks.settings_page() + hooks.outputs_page()
    assert all(f" | {text} | " in pages for text in words.values())
    assert not any(f" | {unit} | " in pages for unit in words)
