"""Link the first use of each term of the glossary on every page to the glossary.

    python docs/link_terms.py [--check]

With ``--check`` nothing is written; pages whose first uses are not linked are named, exit code 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
_UNLINKED = re.compile(
    r"(```.*?```|^\#[^\n]*$|`[^`\n]*`|!?\[[^\]\n]*\]\([^)\n]*\)|<[^>\n]*>|^---\n.*?^---\n)",
    re.DOTALL | re.MULTILINE,
)
"""What a link must not be put into: code, headings, links and tags."""


def terms() -> dict[str, str]:
    """Term to anchor, longest term first."""
    text = (DOCS / "glossary.md").read_text("utf-8")
    found = re.findall(r"^### (.+)$", text, re.MULTILINE)
    return {term: term.lower().replace(" ", "-") for term in sorted(found, key=len, reverse=True)}


def linked(text: str, up: str = "") -> str:
    """The page with the first use of each term as a link; *up* leads to the glossary's folder."""
    parts = _UNLINKED.split(text)
    for term, anchor in terms().items():
        target = f"{up}glossary.md#{anchor}"
        if f"]({target})" in text:
            continue
        pattern = re.compile(rf"(?<![\w/-]){re.escape(term)}s?(?![\w/-])", re.IGNORECASE)
        for number in range(0, len(parts), 2):
            match = pattern.search(parts[number])
            if match:
                before, after = parts[number][: match.start()], parts[number][match.end() :]
                link = f"[{match.group(0)}]({target})"
                parts[number : number + 1] = [before, link, after]
                break
    return "".join(parts)


def pages() -> Iterator[Path]:
    """The written pages but the glossary itself."""
    return (path for path in sorted(DOCS.glob("*.md")) if path.name != "glossary.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="Name the pages; write nothing.")
    check = parser.parse_args().check
    late = [path for path in pages() if linked(path.read_text("utf-8")) != path.read_text("utf-8")]
    for path in late:
        if not check:
            path.write_text(linked(path.read_text("utf-8")), "utf-8")
        print(f"{path.name}: first uses of terms " + ("not linked" if check else "linked"))
    sys.exit(1 if late and check else 0)


if __name__ == "__main__":
    main()
