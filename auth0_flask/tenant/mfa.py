"""The second factor at the back channel: authenticators, challenges, grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Blueprint
from werkzeug.wrappers import Response

from .directory import Grant, PendingFactor, Session
from .factors import Method, enrolment
from .messages import (
    TokenError,
    bearer,
    invalid_grant,
    invalid_request,
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

    Args:
        grant: What they would be for.
        family: The refresh token that asked for them; None at a login, where users
            who have a second factor are asked for it.

    Raises:
        TokenError: If it is refused, with an ``mfa_token`` to go on with.
    """
    session = grant.session
    directory = here.directory
    has = {m.type for m in directory.methods.second_factors(session.user.sub)}
    wanted = here.require_mfa or (family is None and has)
    if not wanted or "mfa" in session.amr:
        return
    ways = sorted(_AUTHENTICATORS[kind] for kind in has)
    raise TokenError(
        403,
        "mfa_required",
        "Multifactor authentication required",
        mfa_token=directory.mfa_tokens.put(PendingFactor(grant, family)),
        mfa_requirements={
            "challenge" if ways else "enroll": [{"type": w} for w in ways or ["otp"]]
        },
    )


def proved(session: Session, acr: str | None = None) -> Session:
    """Return a session whose user has just shown a second factor."""
    return replace(session, amr=("mfa",), acr=acr, auth_time=here.now())


@routes.get("/mfa/authenticators")
def authenticators() -> Response:
    """List what a user can be asked for."""
    sub = _pending(bearer()).sub
    found = here.directory.methods.of(sub, *_AUTHENTICATORS)
    return private([_shown(method) for method in found])


@routes.post("/mfa/associate")
def associate() -> Response:
    """Give a user an authenticator, which is confirmed by its first code."""
    sub = _pending(bearer()).sub
    form = parameters()
    methods = here.directory.methods
    if methods.second_factors(sub):
        raise TokenError(403, "access_denied", "User is already enrolled.")
    if "otp" not in form.get("authenticator_types", ""):
        raise invalid_request("Unsupported authenticator type")
    made = methods.add_totp(sub)
    return private(
        {
            "authenticator_type": "otp",
            "id": made.id,
            "secret": made.secret,
            "barcode_uri": enrolment(made, sub),
            "recovery_codes": [methods.add_recovery_code(sub).secret],
        }
    )


@routes.post("/mfa/challenge")
def challenge() -> Response:
    """Ask a user for a code."""
    form = parameters()
    authenticate(form)
    sub = _pending(required(form, "mfa_token")).sub
    if not here.directory.methods.of(sub, "totp"):
        raise TokenError(403, "association_required", "User is not enrolled.")
    if form.get("challenge_type", "otp") != "otp":
        raise TokenError(400, "unsupported_challenge_type", "Only otp is known here")
    return private({"challenge_type": "otp"})


def verify_otp(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a one-time code for tokens."""
    pending = _pending(required(form, "mfa_token"))
    if not here.directory.methods.takes_otp(pending.sub, required(form, "otp")):
        raise invalid_grant("Invalid otp_code.")
    return _tokens(form, pending)


def verify_recovery_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a recovery code for tokens and the next code."""
    pending = _pending(required(form, "mfa_token"))
    methods = here.directory.methods
    if not methods.takes_recovery_code(pending.sub, required(form, "recovery_code")):
        raise invalid_grant("MFA Authorization rejected.")
    code = methods.add_recovery_code(pending.sub).secret
    return {**_tokens(form, pending), "recovery_code": code}


def _tokens(form: Mapping[str, str], pending: PendingFactor) -> dict[str, Any]:
    here.directory.mfa_tokens.take(form["mfa_token"])
    grant = replace(pending.grant, session=proved(pending.grant.session))
    if pending.family is None:
        return issue(here, grant)
    # The refresh token stays good, and what it brings from now on is of this proof.
    here.directory.refresh_tokens.prove(pending.family, grant.session)
    return token_response(here, grant, None)


def _pending(mfa_token: str) -> PendingFactor:
    pending = here.directory.mfa_tokens.get(mfa_token)
    if pending is None:
        raise TokenError(401, "expired_token", "mfa_token is expired")
    return pending


def _shown(method: Method) -> dict[str, Any]:
    kind = _AUTHENTICATORS[method.type]
    return {"id": method.id, "authenticator_type": kind, "active": method.confirmed}
