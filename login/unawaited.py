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


def unawaited(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield (endpoint, method) of calls whose coroutine is used as if it were a value.

    ``if auth0.get_user():`` is always true. What is handed on to be awaited
    elsewhere (``asyncio.gather``, a variable) is not reported.

    Args:
        app: The app whose views are read.
    """
    for endpoint, view in app.view_functions.items():
        view = inspect.unwrap(view)
        if _is_of_another_library(view):
            continue
        for node in ast.walk(_tree(view)):
            for used in _used_as_value(node):
                if method := _method_of(used):
                    yield endpoint, method


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


def _used_as_value(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        return [node.test]
    if isinstance(node, ast.BoolOp):
        return list(node.values)
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Expr | ast.Subscript | ast.Attribute):
        return [node.value]
    return []


def _method_of(node: ast.AST) -> str | None:
    """Return the method of a call such as ``auth0.get_user()``, ``auth.auth0...``."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    owner = node.func.value
    name = getattr(owner, "attr", getattr(owner, "id", ""))
    return node.func.attr if name == "auth0" and node.func.attr in _COROUTINES else None
