"""Read the package's source as text and count what `house.py` reports; imports nothing of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "napari_mosaik"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef

UNITS = re.compile(
    r"µm|\bum\b|\b[cm]m\b|\bmm²|\bpx\b|\bGy\b|\b[MkG]?Bq\b|\bSUV|\bh\b|\bhours?\b|\bs\b|\bseconds?\b"
    r"|°|\bdegrees?\b|\bradians?\b|\bOD\b|optical density|\bgrey (?:levels?|values?)\b|\buint8\b"
    r"|%|\bfractions?\b|\bdimensionless\b|\blabels?\b|\bmasks?\b|\bcounts?\b|\bind(?:ex|ices)\b"
    r"|\bkeV\b|\bm[lL]\b|\bkg\b|\bg\b|\bnM\b|µM|\bmol\b|\bin pixels\b|\bsRGB\b|\b0 to 255\b",
)
_SIZE = (
    r"(?:\d+|[a-zA-Z]\d?|rows|cols|columns|height|width|n_\w+|n \w+|\.\.\.|…|channels|bands|tiles"
    r"|classes|\*\w+|\d* ?[a-z]\w* ?[-+*/] ?\d+|\d+ ?[*·] ?\w+|[a-z] ?[*·x] ?[a-z])"
)
SHAPES = re.compile(
    rf"\(\s*{_SIZE}\s*,\s*(?:{_SIZE}\s*(?:,\s*{_SIZE}?\s*)*)?\)|\bshapes?\b|\bscalars?\b"
)

# What the review of the code found in texts that a person reads, with the field's word for each.
OLD_WORDS = {
    r"\b(lay|laid|lays|laying)\b": "register, registration, manual alignment",
    r"\b(teach|teaches|teaching|taught|lessons?)\b": "train, training set",
    r"\banew\b": "recomputed, again",
    r"\bbad places?\b|\bflag(ged)? as bad\b": "artefact",
    r"\b(left|leave|leaves|leaving) out\b": "exclude",
    r"\bby hand\b": "manual, manually",
    r"\bside-cars?\b": "sidecar",
    r"\bfaults? of the program\b": "internal error",
    r"\bin the hand\b|\btakes? the mouse\b": "active tool",
    r"\bworth a look\b|\bneeds? a look\b": "review priority",
    r"\bby eye\b": "visual QA",
    r"\bmain job\b": "pipeline",
    r"\b(from|of all|to) chance\b": "random seed, random initialisation",
    r"\bhow firm\b|\bfirmness\b": "selection stability",
    r"\bgoes (best )?with\b": "correlates with",
    r"\bhonest p-values?\b": "corrected for spatial autocorrelation",
    r"\bstep size of\b": "learning rate",
    r"\bhow undecided\b": "classification uncertainty",
    r"\bnot to be believed\b": "invalid",
    r"\b(said|told)\b": "reported, warning",
    r"\bput away\b": "pan/zoom (no tool)",
    r"\bturn over\b": "flip horizontally",
    r"\bfour slides\b|\b4-up\b": "2 x 2 linked views",
    r"\ball in one\b": "composite overlay",
    r"\blook of\b": "display settings",
    r"\bcan be had\b|\bas far as the inputs allow\b": "available",
    r"\bbrown (that is|which is) no\b|\bbrown objects? that\b": "excluded DAB object",
    r"\bforerunners?\b": "earlier version",
    r"\brivals?\b": "runner-up, baseline",
    r"[a-z]\(e?s\)(?=[ .,;:]|$)": "singular or plural by the number (`core.text.counted`)",
    r"\bveils?\b": "semi-transparent",
    r"\bpass(es)? \d+ of\b|\bpasses over the data\b": "epoch",
    r"\b(least|most|leave_out)_\w+": "min_, max_, exclude_",
    r"\bwith a number\b": "with its uncertainty",
    r"\bgive way\b|\bgives way\b": "reduce the batch size",
    r"\bmust have seen\b": "forward model of the scanner",
    r"\bwhat is inside\b": "image content",
    r"\bexchange(d)? by name\b|\blook(s)? exchanged\b": "swapped",
    r"\bstains? of the pictures?\b": "stain vectors",
    r"\bnot to be had\b|\bwere not at hand\b": "not available",
    r"(?<![`/\w])artifacts?\b(?![/`_])": "result",
    r"(?<!there )\bis no (number|name|class|model|mask|file|setting|parameter)\b": "is not a",
    r"\bknown are:": "choose from:",
}
OLD_NAMES = re.compile(
    r"_?(?:(?:least|most|leave_out)_|(?:told|said|laid|taught|lessons?|rivals?)(?:_|$))",
    re.IGNORECASE,
)
"""Names of functions, arguments and variables that begin with an old word."""


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


class House:
    """The source of the package below ``root/src`` and what is counted in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "src" / PACKAGE

    @cached_property
    def modules(self) -> dict[str, Module]:
        found = {}
        for path in sorted(self.source.rglob("*.py")):
            parts = (PACKAGE, *path.relative_to(self.source).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text("utf-8")))
        return found

    # --- lines ---------------------------------------------------------------------------------
    def lines(self) -> int:
        """All lines of the Python files of the package."""
        return sum(len(m.path.read_text("utf-8").splitlines()) for m in self.modules.values())

    # --- imports -------------------------------------------------------------------------------
    @cached_property
    def exports(self) -> dict[str, dict[str, str]]:
        """Of each folder's ``__init__``: name -> the module that it is taken from."""
        taken: dict[str, dict[str, str]] = {}
        for name, module in self.modules.items():
            if not module.is_package:
                continue
            table: dict[str, str] = {}
            stub = module.path.with_suffix(".pyi")
            trees = [module.tree, *([ast.parse(stub.read_text("utf-8"))] if stub.is_file() else [])]
            for node in (node for tree in trees for node in ast.walk(tree)):
                if isinstance(node, ast.ImportFrom):
                    origin = f"{name}.{node.module}" if node.level else node.module or ""
                    table |= {alias.asname or alias.name: origin for alias in node.names}
                elif isinstance(node, ast.Dict):
                    table |= self._lazy_entries(name, node)
            taken[name] = table
        return taken

    def _lazy_entries(self, package: str, node: ast.Dict) -> dict[str, str]:
        """Entries of a table of lazy names, ``{"name": "module"}`` or ``{"module": ["name"]}``."""
        table = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                continue
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                table[key.value] = f"{package}.{value.value}"
            elif isinstance(value, ast.List | ast.Tuple | ast.Set):
                names = [e.value for e in value.elts if isinstance(e, ast.Constant)]
                table |= {str(entry): f"{package}.{key.value}" for entry in names}
        return {entry: where for entry, where in table.items() if where in self.modules}

    def _target(self, module: str, name: str) -> str | None:
        """The file that an imported name comes from."""
        for _ in range(8):
            if f"{module}.{name}" in self.modules:
                return f"{module}.{name}"
            if module not in self.modules:
                return None
            onward = self.exports.get(module, {}).get(name)
            if onward is None or onward == module:
                return module
            module = onward
        return module

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Module -> the modules that it imports, in functions and for types as well."""
        arrows: dict[str, set[str]] = {name: set() for name in self.modules}
        for name, module in self.modules.items():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                    targets = [self._target(node.module or "", a.name) for a in node.names]
                elif isinstance(node, ast.Import):
                    targets = [a.name for a in node.names if a.name in self.modules]
                else:
                    continue
                arrows[name] |= {target for target in targets if target and target != name}
        return arrows

    def import_circles(self) -> list[str]:
        """Groups of files that import one another; a folder's ``__init__`` is not an importer."""
        files = {name for name, module in self.modules.items() if not module.is_package}
        reach = {name: self._reach(name, files) for name in files}
        circles, seen = [], set()
        for name in sorted(files):
            group = {other for other in reach[name] if name in reach[other]}
            if name in reach[name] and name not in seen:
                seen |= group
                circles.append(" <-> ".join(sorted(n.removeprefix(f"{PACKAGE}.") for n in group)))
        return circles

    def _reach(self, start: str, files: set[str]) -> set[str]:
        todo, seen = [start], set()
        while todo:
            for target in self.graph[todo.pop()] & files:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    def single_importers(self) -> list[str]:
        """Modules that exactly one other module imports; ``__init__`` files do not count."""
        importers: dict[str, set[str]] = {}
        for name, targets in self.graph.items():
            if not self.modules[name].is_package:
                for target in targets:
                    importers.setdefault(target, set()).add(name)
        return [
            f"{name.removeprefix(PACKAGE + '.')}  <- {next(iter(who)).removeprefix(PACKAGE + '.')}"
            for name, who in sorted(importers.items())
            if len(who) == 1 and not self.modules[name].is_package
        ]

    # --- names ---------------------------------------------------------------------------------
    def homonyms(self) -> list[str]:
        """Public functions, classes and type aliases that two files define at their top level."""
        places: dict[str, list[str]] = {}
        for name, module in self.modules.items():
            for public in dict.fromkeys(self._top_level(module)):
                places.setdefault(public, []).append(name.removeprefix(f"{PACKAGE}."))
        rows = []
        for public, where in sorted(places.items()):
            commands = [place for place in where if place.startswith("cli.")]
            if len(where) - len(commands) > 1 or len(commands) > 1:
                rows.append(f"{public}: {', '.join(where)}")
        return rows

    @staticmethod
    def _top_level(module: Module) -> Iterator[str]:
        for node in module.tree.body:
            if isinstance(node, Definition) and not node.name.startswith("_"):
                yield node.name
            elif isinstance(
                node, ast.Assign | ast.AnnAssign | getattr(ast, "TypeAlias", ast.Assign)
            ):
                targets = (
                    node.targets
                    if isinstance(node, ast.Assign)
                    else [getattr(node, "target", None) or getattr(node, "name", None)]
                )
                for target in targets:
                    if isinstance(target, ast.Name) and re.match(r"[A-Z]\w*[a-z]", target.id):
                        yield target.id

    # --- docstrings of array functions ---------------------------------------------------------
    @cached_property
    def _array_names(self) -> re.Pattern[str]:
        aliases = {"NDArray", "ArrayLike", "ndarray", "Tensor", "Raster", "LabelImage"}
        for module in self.modules.values():
            for node in module.tree.body:
                value = getattr(node, "value", None)
                if isinstance(node, ast.Assign) and value is not None:
                    text = ast.unparse(value)
                    target = node.targets[0]
                    is_alias = isinstance(target, ast.Name) and "NDArray[" in text
                    if is_alias and not re.search(r"Mapping|dict|Callable|\(", text):
                        aliases.add(ast.unparse(target))
        return re.compile(rf"\b({'|'.join(sorted(aliases))})\b")

    def _array_functions(self) -> Iterator[tuple[str, str]]:
        """Name and docstring of every public function and method that takes or returns arrays."""
        for name, module in self.modules.items():
            if module.folder in ("widgets", "cli", "plugin"):
                continue
            for owner, node in _public_functions(module.tree):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                notes = [ast.unparse(a.annotation) for a in arguments if a.annotation]
                notes += [ast.unparse(node.returns)] if node.returns else []
                notes = [n for n in notes if not re.search(r"Mapping|[Dd]ict|Callable", n)]
                if any(self._array_names.search(note) for note in notes):
                    label = f"{name.removeprefix(PACKAGE + '.')}.{owner}{node.name}"
                    yield label, ast.get_docstring(node) or ""

    def no_shape(self) -> list[str]:
        """Public array functions whose docstring states no shape."""
        return [label for label, text in self._array_functions() if not SHAPES.search(text)]

    def no_unit(self) -> list[str]:
        """Public array functions whose docstring states no unit."""
        return [label for label, text in self._array_functions() if not UNITS.search(text)]

    # --- compiled functions --------------------------------------------------------------------
    def compiled_functions(self) -> list[str]:
        """Functions that numba compiles, directly or by a decorator of the package."""
        makers = {"njit", "jit", "vectorize", "guvectorize", "stencil"}
        for module in self.modules.values():
            # A decorator may hand the function to an object that calls numba later.
            calls = ["njit("]
            calls += [
                f"{node.name}("
                for node in module.tree.body
                if isinstance(node, ast.ClassDef) and "njit(" in ast.unparse(node)
            ]
            for node in module.tree.body:
                text = ast.unparse(node) if isinstance(node, Function) else ""
                if isinstance(node, Function) and any(call in text for call in calls):
                    makers.add(node.name)
                elif isinstance(node, ast.Assign) and re.search(
                    r"\bnjit\b", ast.unparse(node.value)
                ):
                    makers |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        return [
            f"{name.removeprefix(PACKAGE + '.')}.{node.name}"
            for name, module in self.modules.items()
            for node in ast.walk(module.tree)
            if isinstance(node, Function) and any(_called(d) in makers for d in node.decorator_list)
        ]

    # --- words ---------------------------------------------------------------------------------
    def texts(self) -> Iterator[tuple[str, str]]:
        """Where and what: every text that a person can read, in the program and in its documents.

        Strings of one word without capitals are names in code, not texts, except those of settings.
        """
        public = {name for module in self.modules.values() for name in self._top_level(module)}
        for name, module in self.modules.items():
            for where, text in _strings(name.removeprefix(f"{PACKAGE}."), module.tree):
                if text not in public:
                    yield where, text
        others = [*self.source.rglob("*.html"), self.source / "napari.yaml"]
        others += [*(self.root / "docs").glob("*.md"), *(self.root / "docs").glob("*/*.md")]
        others += [self.root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
        others += [self.root / "sample_data" / "README.md"]
        for path in others:
            if path.is_file() and path.name != "glossary.md":
                for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                    yield f"{path.relative_to(self.root)}:{number}", line

    def old_words(self) -> list[str]:
        """Texts, and names in code, that hold a word which the glossary replaced."""
        pattern = re.compile("|".join(f"(?:{old})" for old in OLD_WORDS), re.IGNORECASE)
        rows = []
        for where, text in self.texts():
            for match in pattern.finditer(text):
                start, end = max(0, match.start() - 30), match.end() + 30
                rows.append(f"{where}: {match.group(0)!r} in ...{text[start:end]!r}")
        return rows


def _public_functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield "", node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield f"{node.name}.", inner


def _called(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _strings(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """String literals of a module that are texts; docstrings only where typer shows them."""
    unseen = _docstrings(tree, commands=name.startswith("cli."))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in unseen and (" " in node.value or node.value[:1].isupper()):
                yield f"{name}:{node.lineno}", node.value
        elif OLD_NAMES.match(given := _given_name(node)):
            yield f"{name}:{getattr(node, 'lineno', 0)}", given.strip("_")


def _given_name(node: ast.AST) -> str:
    """The name that a node gives to something; empty for a node that gives none."""
    if isinstance(node, Definition):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.id if isinstance(node, ast.Name) else node.attr
    return ""


def _docstrings(tree: ast.Module, *, commands: bool) -> set[int]:
    """The constants of a module that nobody sees while the program runs."""
    unseen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            unseen.add(id(node.value))
    for node in ast.walk(tree):
        if commands and isinstance(node, Function) and ast.get_docstring(node) is not None:
            first = node.body[0]
            assert isinstance(first, ast.Expr)
            unseen.discard(id(first.value))
    return unseen
