"""The package's own order: who imports whom, and how much there is to read."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from importlib.util import resolve_name
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from servers import ROOT

PACKAGE = ROOT / "auth0_flask"


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield what a module imports, in functions and for types alone as well."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                module = f"{source}.{alias.name}"
                yield module if module in known else source


@cache
def imported() -> dict[str, set[str]]:
    """Return the package's modules, and what each imports."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "stores").glob("*.py")]  # a link
    parts = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    known = {p.removesuffix(".__init__"): f for p, f in zip(parts, files, strict=True)}
    return {name: {*imports(name, path, known)} for name, path in known.items()}


def test_no_modules_import_each_other_in_a_circle_and_none_needs_the_tenant() -> None:
    found = {name: others & imported().keys() for name, others in imported().items()}
    assert "auth0_flask.errors" in found["auth0_flask.stores.session"]
    assert "auth0_flask.stores" in found["auth0_flask.client"]
    TopologicalSorter(found).prepare()  # raises CycleError, which names them

    tenant = {name for name in found if name.startswith("auth0_flask.tenant")}
    assert [name for name in found.keys() - tenant if found[name] & tenant] == []


def test_every_import_is_of_a_dependency_that_is_declared() -> None:
    """Else it is there only as long as something else needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {canonicalize_name(Requirement(each).name) for each in declared}
    # who has the plugin has pytest; pydantic needs one version of its core; and the
    # last is of type checkers
    given = {"auth0_flask", "app", "pytest", "pydantic_core", "_typeshed"}
    by = packages_distributions()
    for module, others in imported().items():
        tops = {name.partition(".")[0] for name in others}
        for top in tops - given - sys.stdlib_module_names:
            assert {*map(canonicalize_name, by[top])} & names, f"{module}: {top}"


def test_what_is_installed_or_copied_can_be_read_in_an_evening() -> None:
    files = [ROOT / "auth.py", *PACKAGE.glob("*.py"), *(ROOT / "stores").glob("*.py")]
    lines = {file.name: file.read_text().count("\n") for file in files}
    assert lines["auth.py"] <= 80
    assert not {name: count for name, count in lines.items() if count > 400}
    assert len(files) <= 26
