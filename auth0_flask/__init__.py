"""Login, profile and logout through Auth0 for async Flask apps.

An app copies ``auth.py``, which builds the client from these names.
"""

from __future__ import annotations

import os
import warnings

if not os.path.isdir(os.path.join(os.path.dirname(__file__), "stores")):
    raise ImportError(
        "auth0_flask/stores is a symbolic link to stores/, which this checkout has "
        "not made: git config core.symlinks true, then git checkout -- auth0_flask"
    )

with warnings.catch_warnings():
    import authlib.deprecate  # noqa: F401 - it has its own warnings shown always

    # the SDK declares its models the way of pydantic 1, and Authlib deprecates httpx:
    # nothing that a user of either could do about
    warnings.simplefilter("ignore")
    import auth0_server_python.auth_server.server_client  # noqa: F401

from .client import Auth0Client
from .errors import (
    LoginError,
    LoginRefused,
    StoreUnavailable,
    prefers_json,
    problem,
)
from .extension import auth_user, init_app
from .guards import login_required, login_silently, passive, public, requires_claim
from .redirects import return_to, signed_out
from .routes import (
    create_blueprint,
    login_options,
    logout_options,
    receive_logout_token,
    refuse_cross_site,
)
from .settings import Settings, SetupError
from .signals import (
    login_failed,
    session_revoked,
    tokens_refreshed,
    user_logged_in,
    user_logged_out,
)
from .testing import login_as

__version__ = "2.0.0"

# fmt: off
__all__ = [
    "Auth0Client", "LoginError", "LoginRefused", "Settings", "SetupError",
    "StoreUnavailable", "auth_user", "create_blueprint", "init_app", "login_as",
    "login_failed", "login_options", "login_required", "login_silently",
    "logout_options", "passive", "prefers_json", "problem", "public",
    "receive_logout_token", "refuse_cross_site", "requires_claim", "return_to",
    "session_revoked", "signed_out", "tokens_refreshed", "user_logged_in",
    "user_logged_out",
]
