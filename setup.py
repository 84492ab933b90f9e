"""The user pages of docs/ go into the package, where *Help > MOSAIK documentation* shows them."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

DOCS = Path(__file__).parent / "docs"


class BuildWithPages(build_py):
    """Build the package and add the pages; an editable install reads them where they are."""

    def run(self) -> None:
        """Build, then copy the pages."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "napari_mosaik", "docs")
            folder.mkdir(parents=True, exist_ok=True)
            for page in DOCS.glob("*.md"):
                copyfile(page, folder / page.name)


setup(cmdclass={"build_py": BuildWithPages})
