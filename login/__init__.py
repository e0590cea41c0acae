"""What ``auth.py`` is made of, one idea a module; copied along with it."""

from .client import Auth0Client
from .errors import LoginError, explain, prefers_json, problem
from .extension import KEY, Installed
from .guards import login_required, signed_out
from .loops import kept_loops
from .routes import (
    answer_early,
    failed_callback,
    login_options,
    logout_options,
    remember,
    return_to,
)
from .settings import Settings, SetupError

__all__ = [
    "KEY",
    "Auth0Client",
    "Installed",
    "LoginError",
    "Settings",
    "SetupError",
    "answer_early",
    "explain",
    "failed_callback",
    "kept_loops",
    "login_options",
    "login_required",
    "logout_options",
    "prefers_json",
    "problem",
    "remember",
    "return_to",
    "signed_out",
]
