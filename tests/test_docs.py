"""The documents: links, headings, and that what they name exists."""

import ast
import json
import re
import shlex
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
    pytest.importorskip("mkdocs", reason="the documents are not built here")
    import hooks

    words = {"OD": "OD (natural)", "OD10": "OD (base 10)"}
    tables = json.loads((ROOT / "docs" / "outputs.json").read_text("utf-8"))
    columns = [c for one in tables.values() for c in one if c["unit"] in words]
    assert len(columns) >= 6
    assert [c["name"] for c in columns if words[c["unit"]] not in c["about"]] == []
    pages = hooks.settings_page() + hooks.outputs_page()
    assert all(f" | {text} | " in pages for text in words.values())
    assert not any(f" | {unit} | " in pages for unit in words)


def _texts() -> str:
    """All texts of the program without its docstrings; names and numbers in them are blank."""
    parts: list[str] = [(ROOT / "napari.yaml").read_text("utf-8")]
    for path in SOURCE.rglob("*.py"):
        text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text("utf-8"))
        parts += re.findall(r'"((?:[^"\\\n]|\\.)*)"', re.sub(r'"\s*\n\s*[rf]*"', "", text))
    return "\n".join(parts)


FOREIGN = {"Plugins", "Help", "Window", "Export objects as GeoJSON", "Corrected vessels"}
"""Menus of napari and QuPath, and titles that the program puts together."""
FOREIGN |= {"Corrected nuclei"}
OF_USERS = ("start", "how_to", "troubleshooting", "window", "uptake", "slides", "robustness")


def _plain(text: str) -> str:
    """Without code, and of links their words alone."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "", text))


def test_what_the_pages_call_the_window_is_in_the_window():
    texts, missing = _texts().lower(), []
    pages = [*(ROOT / "docs").glob("tutorial_*.md"), *(ROOT / "docs" / f"{n}.md" for n in OF_USERS)]
    for page in pages:
        for words in re.findall(
            r"(?<![*\w])\*([A-Z][^*\n]+?)\*(?![*\w])", _plain(page.read_text())
        ):
            names = [part.strip() for part in words.split(" > ")]
            missing += [
                (page.name, n) for n in names if n not in FOREIGN and n.lower() not in texts
            ]
    assert missing == []


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_program():
    texts, missing = _texts(), []
    for line in _plain((ROOT / "docs" / "troubleshooting.md").read_text("utf-8")).splitlines():
        words = line.split("|")[1].strip() if line.startswith("|") else ""
        parts = () if words in ("message", "---") else re.split(r"\.\.\.|;|⚠", words)
        missing += [part for part in parts if part.strip(" :") not in texts]
    assert missing == []


OF_TABLES = (
    *("sample", "slide", "run", "report", "segment", "suv", "align", "set-alignment", "kinetics"),
    *("annotate import", "annotate export", "annotate package", "retrain", "train", "predict"),
    *("review-queue", "twin", "invivo", "dose", "weights", "models", "correct", "relink", "qa"),
)
"""Commands that pages show without the name of the program."""


def _typed_commands() -> list[tuple[str, list[str]]]:
    """Every command that a page shows, as words; `...` and what follows a comment is not typed."""
    found = []
    for page in (one for one in PAGES if one.name != "CHANGELOG.md"):
        text = page.read_text("utf-8").replace("\\\n", " ")
        blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`((?:\S*/)?napari-mosaik [^`\n]+)`", text)
        known = "|".join(sorted(OF_TABLES, key=len, reverse=True))
        shown = re.findall(rf"`((?:{known}) [^`\n]+)`", text)
        lines += [f"napari-mosaik {line}".replace("\\|", " ") for line in shown]
        for line in lines:
            words = shlex.split(line.replace("`", ""), comments=True)
            places = [i for i, word in enumerate(words) if word.endswith("napari-mosaik")]
            if places:
                found.append((page.name, words[places[0] + 1 :]))
    return found


def test_the_commands_of_the_pages_are_those_of_the_program():
    import typer

    from napari_mosaik.cli.app import app

    wrong = []
    for page, words in _typed_commands():
        command, path = typer.main.get_command(app), []
        rest = [word for word in words if word not in ("...", "&", ">")]
        while name := next((w for w in rest[:2] if w in getattr(command, "commands", ())), ""):
            rest.remove(name)
            command, path = command.commands[name], [*path, name]
        known = {"--help", "-h", "--install-completion"}
        for one in (command, *getattr(command, "commands", {}).values()):  # the default of a group
            known |= {option for given in one.params for option in given.opts}
            known |= {option for given in one.params for option in given.secondary_opts}
        asked = {
            word.partition("=")[0].strip("[]") for word in rest if word.strip("[(")[:2] == "--"
        }
        wrong += [(page, *path, option) for option in asked if option.strip("(") not in known]
        if not path and rest and rest[0][0] not in "-[":
            wrong.append((page, *words))
    assert wrong == []
