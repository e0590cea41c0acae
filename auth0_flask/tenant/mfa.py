"""The second factor at the back channel: authenticators, challenges, grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from flask import Blueprint
from werkzeug.wrappers import Response

from .directory import Grant, Session
from .factors import Method, barcode
from .messages import (
    TokenError,
    bad_request,
    bearer,
    invalid_grant,
    parameters,
    private,
    required,
)
from .provider import here
from .tokens import issue, token_response
from .verification import authenticate

routes = Blueprint("mfa", __name__)

#: How the protocol calls the types of methods that the SDK asks for.
_AUTHENTICATORS = {"totp": "otp", "recovery-code": "recovery-code"}


def demand(grant: Grant, family: str | None = None) -> None:
    """Refuse tokens where a second factor is wanted and there was none.

    ``family`` is the refresh token that asked for them; without, it is a login, which
    asks users who have a second factor for it in any case.

    Raises:
        TokenError: If it is refused, with an ``mfa_token`` to go on with.
    """
    directory, session = here.directory, grant.session
    has = {m.type for m in directory.methods.second_factors(session.user.sub)}
    wanted = here.require_mfa or (family is None and has)
    if not wanted or "mfa" in session.amr:
        return
    ways = [{"type": _AUTHENTICATORS[kind]} for kind in _AUTHENTICATORS if kind in has]
    raise TokenError(
        403,
        "mfa_required",
        "Multifactor authentication required",
        mfa_token=directory.mfa_tokens.put((grant, family)),
        mfa_requirements={"challenge": ways} if ways else {"enroll": [{"type": "otp"}]},
    )


def proved(session: Session, acr: str | None = None) -> Session:
    """Return a session whose user has just shown a second factor."""
    return replace(session, amr=("mfa",), acr=acr, auth_time=here.now())


@routes.get("/mfa/authenticators")
def authenticators() -> Response:
    """List what a user can be asked for."""
    found = here.directory.methods.of(_sub(bearer()), *_AUTHENTICATORS)
    return private([_shown(method) for method in found])


def _shown(method: Method) -> dict[str, Any]:
    kind = _AUTHENTICATORS[method.type]
    return {"id": method.id, "authenticator_type": kind, "active": method.confirmed}


@routes.post("/mfa/associate")
def associate() -> Response:
    """Give a user an authenticator, which is confirmed by its first code."""
    sub, methods = _sub(bearer()), here.directory.methods
    if methods.second_factors(sub):
        raise TokenError(403, "access_denied", "User is already enrolled.")
    if "otp" not in parameters().get("authenticator_types", ""):
        raise bad_request("Unsupported authenticator type")
    made, recovery = methods.add_totp(sub), methods.add_recovery_code(sub)
    return private(
        {
            "authenticator_type": "otp",
            "id": made.id,
            "secret": made.secret,
            "barcode_uri": barcode(made, sub),
            "recovery_codes": [recovery.secret],
        }
    )


@routes.post("/mfa/challenge")
def challenge() -> Response:
    """Ask a user for a code."""
    form = parameters()
    authenticate(form)
    sub = _sub(required(form, "mfa_token"))
    if not here.directory.methods.of(sub, "totp"):
        raise TokenError(403, "association_required", "User is not enrolled.")
    if form.get("challenge_type", "otp") != "otp":
        raise TokenError(400, "unsupported_challenge_type", "Only otp is known here")
    return private({"challenge_type": "otp"})


def verify_otp(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a one-time code for tokens."""
    sub = _sub(required(form, "mfa_token"))
    if not here.directory.methods.takes_otp(sub, required(form, "otp")):
        raise invalid_grant("Invalid otp_code.")
    return _tokens(form)


def verify_recovery_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a recovery code for tokens and the next code."""
    sub, methods = _sub(required(form, "mfa_token")), here.directory.methods
    if not methods.takes_recovery_code(sub, required(form, "recovery_code")):
        raise invalid_grant("MFA Authorization rejected.")
    return {**_tokens(form), "recovery_code": methods.add_recovery_code(sub).secret}


def _tokens(form: Mapping[str, str]) -> dict[str, Any]:
    grant, family = here.directory.mfa_tokens.take(form["mfa_token"]) or _expired()
    grant = replace(grant, session=proved(grant.session))
    if family is None:
        return issue(here, grant)
    # The refresh token stays good, and what it brings from now on is of this proof.
    here.directory.refresh_tokens.prove(family, grant.session)
    return token_response(here, grant, None)


def _sub(mfa_token: str) -> str:
    grant, _ = here.directory.mfa_tokens.get(mfa_token) or _expired()
    return grant.session.user.sub


def _expired() -> NoReturn:
    raise TokenError(401, "expired_token", "mfa_token is expired")
