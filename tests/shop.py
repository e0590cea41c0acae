"""Apps with a copy of `auth.py` each: a shop as the README has it, and the demo."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest
from flask import Flask

from servers import ROOT


def copy_of_auth(environment: Mapping[str, str]) -> Any:
    """Import `auth.py` as an app imports its own copy, with these settings added."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return _imported("auth", "shop", patch)


def make_shop(
    auth: Any,
    prepare: Callable[[Flask], dict[str, Any]] = lambda _: {},
    /,
    **options: Any,
) -> Flask:
    """Make the shop, and views that tell who is there.

    `init_app` gets the options, and those that are returned where the app is prepared.
    """
    shop = Flask("shop")
    auth.init_app(shop, **prepare(shop), **options)
    shop.register_blueprint(auth.routes)
    shop.add_url_rule("/me", "me", lambda: dict(auth.auth_user))
    shop.add_url_rule("/session", "session", lambda: auth.auth0.read_session() or {})
    return shop


def load(name: str, auth: Any) -> ModuleType:
    """Import a module of the demo, where ``import auth`` finds this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "auth", auth)
        if name == "app":
            patch.setitem(sys.modules, "languages", load("languages", auth))
        return _imported(name, "demo", patch)


def _imported(name: str, of: str, patch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location(f"{name}_of_the_{of}", ROOT / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    patch.setitem(sys.modules, spec.name, module)  # Flask looks for its folder
    spec.loader.exec_module(module)
    return module
