"""The documentation inside the window: all pages, links, search; also in a built package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gui
ROOT = Path(__file__).parents[2]


@pytest.fixture
def window(qtbot):
    from napari_mosaik.widgets.help_window import HelpWindow

    window = HelpWindow()
    qtbot.addWidget(window)
    window.show()
    return window


def test_every_user_page_is_in_the_list_and_shows_its_title(window):
    from napari_mosaik.widgets.help_window import PAGES

    listed = {name for names in PAGES.values() for name in names}
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written - listed == {"index", "architecture", "how_to_add", "performance"}
    for name in sorted(listed):
        window.show_page(name)
        title = (ROOT / "docs" / f"{name}.md").read_text("utf-8").split("\n")[0].lstrip("# ")
        assert window.browser.toPlainText().startswith(title)
        assert "![" not in window.browser.toMarkdown()


def test_links_lead_to_the_heading_of_another_page(window):
    from qtpy.QtCore import QUrl

    window.show_page("tutorial_own_data")
    window.browser.anchorClicked.emit(QUrl("how_to.md#register-by-landmarks"))
    assert window.name == "how_to"
    assert window.browser.textCursor().block().text() == "Register by landmarks"
    assert window.tree.currentItem().text(0) == "How do I ..."


def test_every_link_between_pages_has_its_heading():
    from napari_mosaik.widgets.help_window import PAGES, heading_anchor, page_text

    names = {name for pages in PAGES.values() for name in pages}
    for name in names:
        for page, anchor in re.findall(r"\]\((\w*)\.md#([^)]+)\)", page_text(name)):
            if page in names:
                headings = re.findall(r"^#+ (.+)$", page_text(page), re.MULTILINE)
                assert anchor in {heading_anchor(text) for text in headings}, (name, page, anchor)


def test_search_keeps_the_pages_with_the_word_and_finds_its_places(window, qtbot):
    window.show_page("start")
    qtbot.keyClicks(window.search, "landmark")
    shown = [item.text(0) for item in window._pages.values() if not item.isHidden()]
    assert shown
    assert "Tutorial 1: the first case, from the sample" not in shown
    from qtpy.QtCore import Qt

    qtbot.keyClick(window.search, Qt.Key.Key_Return)
    assert window.browser.textCursor().selectedText().lower() == "landmark"


def test_the_help_menu_has_its_lines_once(dock):
    from napari_mosaik.widgets.help_window import add_help_actions

    add_help_actions(dock.viewer)
    texts = [action.text() for action in dock.viewer.window.help_menu.actions()]
    for text in ("MOSAIK documentation…", "MOSAIK troubleshooting…"):
        assert texts.count(text) == 1


def test_a_built_package_holds_the_pages(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "docs", "src"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                tmp_path / name,
                # another test process may compile modules, and rename what it writes
                ignore=shutil.ignore_patterns("images", "*.npz", "__pycache__"),
            )
        else:
            shutil.copy(source, tmp_path / name)
    subprocess.run([sys.executable, "setup.py", "-q", "build_py"], cwd=tmp_path, check=True)
    built = tmp_path / "build" / "lib" / "napari_mosaik" / "docs"
    assert {path.name for path in built.glob("*.md")} == {
        path.name for path in (ROOT / "docs").glob("*.md")
    }
