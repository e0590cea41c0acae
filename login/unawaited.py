"""Finds views that forget to await the SDK: a coroutine is truthy for everybody."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from flask import Flask

from .client import Auth0Client

_COROUTINES = {
    name for name, _ in inspect.getmembers(Auth0Client, inspect.iscoroutinefunction)
}
#: What awaits for a view: of asyncio and anyio, their groups and runners, and Flask.
_AWAITING = {
    *("gather", "wait", "wait_for", "shield", "as_completed", "timeout"),
    *("create_task", "ensure_future", "start_soon", "run", "run_until_complete"),
    *("run_coroutine_threadsafe", "ensure_sync", "async_to_sync"),
}


def unawaited(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield (endpoint, method) of calls that nothing in their view awaits.

    ``if auth0.get_user():`` is always true. What is collected in a list or returned
    may be awaited elsewhere, and is not reported.

    Args:
        app: The app whose views are read.
    """
    for endpoint, view in app.view_functions.items():
        view = inspect.unwrap(view)
        if not _is_of_another_library(view):
            for method in _forgotten(_tree(view)):
                yield endpoint, method


def _forgotten(tree: ast.AST) -> Iterator[str]:
    parents = {c: node for node in ast.walk(tree) for c in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        method = _method_of(node)
        if method and not _is_awaited(node, parents, tree):
            yield method


def _is_awaited(node: ast.AST, parents: dict[ast.AST, ast.AST], tree: ast.AST) -> bool:
    parent = parents[node]
    if isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        targets = getattr(parent, "targets", None) or [getattr(parent, "target", None)]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        return not names or _is_awaited_later(names, tree)
    if isinstance(parent, ast.Call):
        return _name_of(parent.func) in _AWAITING
    elsewhere = ast.List | ast.Tuple | ast.Set | ast.Dict | ast.Return | ast.Lambda
    loops = ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.Starred | ast.Yield
    return isinstance(parent, ast.Await | elsewhere | loops)


def _is_awaited_later(names: set[str], tree: ast.AST) -> bool:
    """Tell whether one of these variables is awaited, or handed to what does that."""
    for node in ast.walk(tree):
        used: list[ast.AST] = []
        if isinstance(node, ast.Await):
            used = [node.value]
        elif isinstance(node, ast.Call) and _name_of(node.func) in _AWAITING:
            used = [*node.args]
        elif isinstance(node, ast.List | ast.Tuple | ast.Return):
            used = [*ast.iter_child_nodes(node)]
        if any(isinstance(u, ast.Name) and u.id in names for u in used):
            return True
    return False


def _is_of_another_library(view: Callable[..., Any]) -> bool:
    """Tell whether what a view knows as ``auth0`` is not this client."""
    found = getattr(view, "__globals__", {}).get("auth0")
    return found is not None and not isinstance(found, Auth0Client | ModuleType)


def _tree(view: Callable[..., Any]) -> ast.AST:
    try:
        source = inspect.getsource(view)
        return ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError):
        return ast.Module(body=[], type_ignores=[])  # made elsewhere than in a file


def _method_of(node: ast.AST) -> str | None:
    """Return the method of a call such as ``auth0.get_user()``, ``auth.auth0...``."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    is_ours = _name_of(node.func.value) == "auth0" and node.func.attr in _COROUTINES
    return node.func.attr if is_ours else None


def _name_of(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))
