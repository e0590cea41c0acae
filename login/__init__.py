"""What ``auth.py`` is made of, one idea a module; copied along with it."""

from .client import Auth0Client
from .errors import LoginError, LoginRefused, explain, prefers_json, problem
from .extension import KEY, Installed
from .guards import login_required, public, requires_claim, signed_out
from .logout import receive_logout_token, refuse_cross_site
from .loops import kept_loops
from .revoke import auth0_commands
from .routes import (
    answer_early,
    failed_callback,
    login_options,
    logout_options,
    remember,
    return_to,
)
from .settings import Settings, SetupError, check_certificates
from .signals import (
    login_failed,
    session_revoked,
    tokens_refreshed,
    user_logged_in,
    user_logged_out,
)
from .testing import login_as
from .user import auth_user

__all__ = [
    "KEY",
    "Auth0Client",
    "Installed",
    "LoginError",
    "LoginRefused",
    "Settings",
    "SetupError",
    "answer_early",
    "auth0_commands",
    "auth_user",
    "check_certificates",
    "explain",
    "failed_callback",
    "kept_loops",
    "login_as",
    "login_failed",
    "login_options",
    "login_required",
    "logout_options",
    "prefers_json",
    "problem",
    "public",
    "receive_logout_token",
    "refuse_cross_site",
    "remember",
    "requires_claim",
    "return_to",
    "session_revoked",
    "signed_out",
    "tokens_refreshed",
    "user_logged_in",
    "user_logged_out",
]
