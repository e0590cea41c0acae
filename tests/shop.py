"""An app as the README has it: three lines, Flask's defaults, a copy of `auth.py`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
from flask import Flask

from servers import ROOT


def copy_of_auth(environment: Mapping[str, str]) -> Any:
    """Import `auth.py` as an app imports its own copy, with these settings added."""
    spec = spec_from_file_location("auth_of_the_shop", ROOT / "auth.py")
    assert spec
    assert spec.loader
    auth = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        spec.loader.exec_module(auth)
    return auth


def make_shop(auth: Any, **options: Any) -> Flask:
    """Make the app; the options are those of `init_app`."""
    shop = Flask("shop")
    auth.init_app(shop, **options)
    shop.register_blueprint(auth.routes)
    return shop
