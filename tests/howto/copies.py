"""A copy of the package to which a test adds a toy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import napari_mosaik

SOURCE = Path(napari_mosaik.__file__).parent


class PackageCopy:
    """The package in a temporary folder, and which of its files were changed since."""

    def __init__(self, folder):
        self.root = folder / "src" / "napari_mosaik"
        shutil.copytree(SOURCE, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self._before = self._contents()

    def _contents(self):
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {
            path.relative_to(self.root): path.read_bytes()
            for path in files
            if path.suffix not in (".pyc", ".nbi", ".nbc")
        }

    def edit(self, name, old, new):
        """Replace *old*, which stands in the file once, by *new*."""
        path = self.root / name
        text = path.read_text("utf-8")
        assert text.count(old) == 1, f"{name}: {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new), "utf-8")

    def append(self, name, text):
        """Add to a file, or make it."""
        with (self.root / name).open("a", encoding="utf-8") as file:
            file.write(text)

    def touched(self):
        """The files that were changed or added."""
        return [path for path, text in self._contents().items() if self._before.get(path) != text]

    def run(self, code, *arguments):
        """Run Python code with the copy in place of the package."""
        environment = {**os.environ, "PYTHONPATH": str(self.root.parent)}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
