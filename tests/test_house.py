"""The package's own order: who imports whom, and how much there is to read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from servers import ROOT

PACKAGE, STORES = ROOT / "auth0_flask", ROOT / "stores"
TENANT = "auth0_flask.tenant"


@cache
def modules() -> dict[str, Path]:
    """Return the package's modules by name; ``stores`` is a link in it."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "stores").glob("*.py")]
    parts = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {
        ".".join(path).removesuffix(".__init__"): file for file, path in parts.items()
    }


def imports(name: str, path: Path) -> Iterator[str]:
    """Yield what a module imports, in functions and for types alone as well."""
    known = modules()
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            parts = parts[: len(parts) + 1 - node.level] if node.level else parts
            source = ".".join([*parts, *filter(None, [node.module])])
            for alias in node.names:
                module = f"{source}.{alias.name}"
                yield module if module in known else source


@cache
def graph() -> dict[str, set[str]]:
    """Return the package's modules, and which others of it each imports."""
    known = modules()
    return {n: {*imports(n, path)} & known.keys() for n, path in known.items()}


def test_no_modules_import_each_other_in_a_circle_even_for_types() -> None:
    found = graph()

    assert "auth0_flask.errors" in found["auth0_flask.stores.session"]
    assert "auth0_flask.stores" in found["auth0_flask.client"]
    TopologicalSorter(found).prepare()  # raises CycleError, which names them


def test_nothing_needs_the_tenant_but_itself() -> None:
    for name, imported in graph().items():
        if not name.startswith(TENANT):
            assert not [other for other in imported if other.startswith(TENANT)], name


def test_stores_are_imported_from_the_package_alone() -> None:
    ours = (path for path in ROOT.rglob("*.py") if ".venv" not in path.parts)
    wrong = re.compile(r"^\s*(from|import) stores\b", re.M)

    assert not [path for path in ours if wrong.search(path.read_text())]


def test_what_is_installed_or_copied_can_be_read_in_an_evening() -> None:
    files = [ROOT / "auth.py", *PACKAGE.glob("*.py"), *STORES.glob("*.py")]
    lines = {file: file.read_text().count("\n") for file in files}

    assert lines[files[0]] <= 80
    assert not {file: count for file, count in lines.items() if count > 400}
    assert len(files) <= 26
