"""The documentation inside the window: *Help > MOSAIK documentation*.

The pages are the Markdown files of the documentation, without their pictures.  A checkout reads
them in ``docs``; a built package holds a copy (``setup.py``).
"""

from __future__ import annotations

import re
from pathlib import Path

import napari
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QColor, QDesktopServices, QTextCharFormat, QTextCursor
from qtpy.QtWidgets import (
    QDialog,
    QLineEdit,
    QSplitter,
    QTextBrowser,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mosaik.widgets.base.figure_view import theme_colours
from napari_mosaik.widgets.canvas.keys import show_shortcuts

__all__ = ["PAGES", "HelpWindow", "add_help_actions", "show_help"]

_FILES = {
    "Tutorials": "tutorial_sample.md tutorial_own_data.md tutorial_annotate.md tutorial_loop.md "
    "tutorial_review.md tutorial_dose.md tutorial_twin.md",
    "How do I ...": "how_to.md how_long.md troubleshooting.md",
    "User guide": "start.md window.md annotation.md slides.md segmentation.md registration.md "
    "uptake.md spatial.md kinetics.md invivo.md dose.md twin.md science.md predictor.md "
    "robustness.md glossary.md",
}
PAGES = {section: names.replace(".md", "").split() for section, names in _FILES.items()}
"""The pages by section, in the order of the list."""

_NAME = Qt.ItemDataRole.UserRole
_PACKAGE = Path(__file__).resolve().parents[1]


def pages_folder() -> Path:
    """The folder with the pages: of the package, or of the checkout."""
    inside = _PACKAGE / "docs"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "docs"


def page_text(name: str) -> str:
    """The Markdown of a page without its pictures and comments."""
    text = (pages_folder() / f"{name}.md").read_text("utf-8")
    return re.sub(r"^!\[[^\]]*\]\([^)]*\)\n?|<!--.*?-->\n?", "", text, flags=re.MULTILINE)


def heading_anchor(title: str) -> str:
    """The anchor of a heading, as the documentation's links name it."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


class HelpWindow(QDialog):
    """A list of pages, the page, and a search in all pages."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("MOSAIK documentation")
        self.setWindowFlag(Qt.WindowType.Window)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search all pages, then Enter for the next place")
        self.search.setClearButtonEnabled(True)
        self.tree = QTreeWidget()
        self.tree.setHeaderHidden(True)
        self.browser = QTextBrowser()
        self.browser.setOpenLinks(False)
        self._texts = {name: page_text(name) for names in PAGES.values() for name in names}
        self._pages: dict[str, QTreeWidgetItem] = {}
        for section, names in PAGES.items():
            group = QTreeWidgetItem(self.tree, [section])
            for name in names:
                title = self._texts[name].split("\n", 1)[0].lstrip("# ")
                self._pages[name] = QTreeWidgetItem(group, [title])
                self._pages[name].setData(0, _NAME, name)
        self.tree.expandAll()
        split = QSplitter()
        split.addWidget(self.tree)
        split.addWidget(self.browser)
        split.setStretchFactor(1, 1)
        split.setSizes([280, 680])
        layout = QVBoxLayout(self)
        layout.addWidget(self.search)
        layout.addWidget(split)
        self.resize(980, 720)
        self.name = ""
        self.tree.currentItemChanged.connect(self._chosen)
        self.browser.anchorClicked.connect(self._follow)
        self.search.textChanged.connect(self._filter)
        self.search.returnPressed.connect(self._find_next)

    def show_page(self, name: str, anchor: str = "") -> None:
        """Show a page, at a heading if one is named."""
        if name != self.name:
            self.name = name
            self.browser.setMarkdown(self._texts[name])
            self._colour_links()
            self.tree.blockSignals(True)
            self.tree.setCurrentItem(self._pages[name])
            self.tree.blockSignals(False)
        self._scroll_to(anchor)

    def _colour_links(self) -> None:
        """Links are underlined text: Qt's blue cannot be read on the dark theme."""
        colour = QTextCharFormat()
        colour.setForeground(QColor(theme_colours()[0]))
        colour.setFontUnderline(True)
        cursor = QTextCursor(self.browser.document())
        block = self.browser.document().begin()
        links = []
        while block.isValid():
            pieces = block.begin()
            while not pieces.atEnd():
                piece = pieces.fragment()
                if piece.charFormat().isAnchor():
                    links.append((piece.position(), piece.position() + piece.length()))
                pieces += 1
            block = block.next()
        for start, end in links:
            cursor.setPosition(start)
            cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
            cursor.mergeCharFormat(colour)

    def _scroll_to(self, anchor: str) -> None:
        block = self.browser.document().begin()
        while block.isValid():
            if block.blockFormat().headingLevel() and heading_anchor(block.text()) == anchor:
                break
            block = block.next()
        cursor = QTextCursor(block) if block.isValid() else QTextCursor(self.browser.document())
        self.browser.setTextCursor(cursor)
        bar = self.browser.verticalScrollBar()
        bar.setValue(bar.value() + self.browser.cursorRect().top())

    def _chosen(self, item: QTreeWidgetItem | None) -> None:
        name = item.data(0, _NAME) if item is not None else None
        if name:
            self.show_page(name)

    def _follow(self, link: QUrl) -> None:
        name, anchor = link.path().removesuffix(".md"), link.fragment()
        if link.scheme():
            QDesktopServices.openUrl(link)
        elif not name or name in self._texts:
            self.show_page(name or self.name, anchor)

    def _filter(self, word: str) -> None:
        """Only the pages that hold the word stay in the list."""
        for name, item in self._pages.items():
            text = self._texts[name]
            item.setHidden(word.lower() not in text.lower())

    def _find_next(self) -> None:
        """The next place of the word on this page, then on the next page that holds it."""
        word = self.search.text()
        if not word or self.browser.find(word):
            return
        names = [name for name, item in self._pages.items() if not item.isHidden()]
        if names:
            at = names.index(self.name) + 1 if self.name in names else 0
            self.show_page(names[at % len(names)])
            self.browser.find(word)


def show_help(parent: QWidget | None = None, page: str = "", anchor: str = "") -> HelpWindow:
    """Open the documentation, at a page and a heading if they are named."""
    window = HelpWindow(parent)
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    window.show_page(page or PAGES["Tutorials"][0], anchor)
    window.show()
    return window


def add_help_actions(viewer: napari.Viewer) -> None:
    """Put MOSAIK's lines into napari's Help menu, once per window."""
    menu = viewer.window.help_menu
    window = menu.window()
    known = {action.text() for action in menu.actions()}
    lines = {
        "MOSAIK documentation…": lambda: show_help(window),
        "MOSAIK troubleshooting…": lambda: show_help(window, "troubleshooting"),
        "Keyboard shortcuts (MOSAIK)…": lambda: show_shortcuts(window),
    }
    for text, action in lines.items():
        if text not in known:
            menu.addAction(text).triggered.connect(action)
