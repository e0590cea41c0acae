"""The picture of the house in CONTRIBUTING.md: its arrows are the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from readme_blocks import blocks
from servers import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PARTS = {"app", "auth", "languages", "login", "stores", "tenant"}


def arrows() -> set[tuple[str, str]]:
    """Return the arrows of the picture: who imports, what is imported."""
    [picture] = blocks("mermaid", text=CONTRIBUTING)
    named = re.sub(r'\[".*?"\]', "", picture.code)
    return set(re.findall(r"(\w+) --> (\w+)", named))


def imports() -> Iterator[tuple[str, str]]:
    """Yield which part imports which other."""
    for part in PARTS:
        folder = ROOT / part
        for source in (
            folder.rglob("*.py") if folder.is_dir() else [ROOT / f"{part}.py"]
        ):
            for node in ast.walk(ast.parse(source.read_text())):
                for name in _imported(node):
                    if name in PARTS - {part}:
                        yield part, name


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield str(node.module).partition(".")[0]


def test_the_arrows_are_the_imports() -> None:
    assert set(imports()) == arrows()


def test_all_modules_at_the_top_are_in_it() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} < PARTS
