"""Finds views whose guard stands above the route, where it guards nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from flask import Flask

from . import guards


def unguarded(app: Flask) -> Iterator[str]:
    """Yield the endpoints of views that are registered without the guard they wear.

    Only views of a module are seen, not those made within a function.

    Args:
        app: The app whose views are looked at.
    """
    for endpoint, view in app.view_functions.items():
        plain = inspect.unwrap(view)
        known = getattr(plain, "__globals__", {}).get(getattr(plain, "__name__", ""))
        if known is not view and _is_guard_of(plain, known):
            yield endpoint


def _is_guard_of(view: object, found: Any) -> bool:
    is_guard = getattr(found, "__globals__", None) is vars(guards)
    return is_guard and inspect.unwrap(found) is view
