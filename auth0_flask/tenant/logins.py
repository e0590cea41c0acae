"""Logins without a redirect: passwordless, by passkey, by CIBA, and second factors."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from flask import Blueprint
from werkzeug.wrappers import Response

from .authorization import DEFAULT_SCOPE, AuthorizationRequest, with_query
from .directory import Approval, Grant, Message, Session, User
from .errors import TokenError, bad_request, invalid_grant, private
from .factors import WRONG, Ceremony, barcode, same
from .messages import app_form, bearer, parameters, required, structure
from .provider import here
from .tokens import issue, token_response

#: What the protocol calls the methods that a user can be asked for.
_AUTHENTICATORS = {"totp": "otp", "recovery-code": "recovery-code"}

routes = Blueprint("logins", __name__)


def check_audience(form: Mapping[str, str]) -> None:
    """Refuse tokens for an API that there is not."""
    audience = form.get("audience")
    if audience and not here.knows_audience(audience):
        raise TokenError(403, "access_denied", f"Service not found: {audience}")


def log_in(
    form: Mapping[str, str], user: User, act: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the tokens of a login that a request has proved, or ask for more."""
    grant = _asked(form, replace(here.directory.sign_in(user), act=act))
    demand_mfa(grant)
    return issue(here, grant)


def _asked(form: Mapping[str, str], session: Session) -> Grant:
    check_audience(form)
    organization = here.directory.organization(form.get("organization", ""))
    if form.get("organization") and organization is None:
        raise bad_request("the organization was not found")
    scope = tuple(dict.fromkeys(form.get("scope", DEFAULT_SCOPE).split()))
    return Grant(session, scope, form.get("audience") or None, None, organization)


@routes.post("/passwordless/start")
def start_passwordless() -> Response:
    """Send a code or a link; the inbox shows it."""
    form = app_form()
    realm = required(form, "connection")
    if realm not in {"email", "sms"}:
        raise TokenError(400, "bad.connection", "Connection does not exist")
    address = required(form, "email" if realm == "email" else "phone_number")
    message = Message(address, f"{secrets.randbelow(10**6):06}")
    if form.get("send") == "link":
        shown = {"email": address, "verification_code": message.code}
        link = with_query(f"{here.origin}/passwordless/verify_redirect", shown)
        message = replace(message, link=link, asked=_link_request(form))
    here.directory.messages.put(message, key=address)
    return private({"_id": secrets.token_hex(12), realm: address})


def _link_request(form: Mapping[str, str]) -> AuthorizationRequest:
    params = structure(form, "authParams", dict)
    url, scope = (str(params.get(n, "")) for n in ("redirect_uri", "scope"))
    if not here.knows_callback(url):
        raise bad_request("The redirect_uri is not among the allowed callback URLs")
    scopes = tuple((scope or DEFAULT_SCOPE).split())
    state, audience, acr = (params.get(n) for n in ("state", "audience", "acr_values"))
    return AuthorizationRequest(url, "", scopes, state, None, audience, acr=acr)


def take_message(address: str, code: str) -> Message | None:
    """Return the message that brought a code to an address; it is good once."""
    messages = here.directory.messages
    message = messages.get(address)
    return messages.take(address) if message and same(message.code, code) else None


def passwordless(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code that was sent for tokens."""
    address = required(form, "username")
    if take_message(address, required(form, "otp")) is None:
        raise invalid_grant("Wrong email or verification code.")
    return log_in(form, here.directory.owner(address))


@routes.post("/passkey/<any(register, challenge):step>")
def begin_passkey(step: str) -> Response:
    """Begin the sign-up of somebody new with a passkey, or a login."""
    # The SDK sends a secret where it has one, and no assertion where it has a key.
    form = parameters()
    if form.get("client_id") != here.client_id:
        raise TokenError(401, "access_denied", "Unauthorized")
    ceremony, profile = Ceremony("get"), structure(form, "user_profile", dict)
    if step == "register":
        name, email = (str(profile.get(claim, "")) for claim in ("name", "email"))
        if email in {user.claims.get("email") for user in here.directory.users()}:
            raise bad_request("The user already exists")
        ceremony = Ceremony("create", name=name, email=email)
    session = here.directory.ceremonies.put(ceremony)
    options = {"authn_params_public_key": ceremony.options}
    return private({"auth_session": session, **options})


def passkey(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange what a passkey has signed for tokens."""
    directory, methods = here.directory, here.directory.methods
    ceremony = directory.ceremonies.take(required(form, "auth_session"))
    try:
        answer = structure(form, "authn_response", dict)
        if ceremony is None:
            raise ValueError("The auth_session is unknown or has expired")
        if ceremony.kind == "create":
            key = ceremony.key_of(answer)
            user = directory.newcomer(ceremony.name, ceremony.email)
            methods.add(user.sub, "passkey", key, confirmed=True).key_id = answer["id"]
        else:
            sub, known = methods.passkey(answer["id"])
            ceremony.check(answer, known.secret)
            user = directory.find(sub)
    except WRONG as error:
        raise invalid_grant(f"The passkey is refused: {error}") from error
    return log_in(form, user)


@routes.post("/bc-authorize")
def authorize_backchannel() -> Response:
    """Ask a user elsewhere to approve a login (CIBA Core 1.0, section 7)."""
    form, directory = app_form(), here.directory
    try:
        user = directory.find(structure(form, "login_hint", dict)["sub"])
    except LookupError as error:
        raise TokenError(400, "unknown_user_id", "The user is unknown") from error
    grant, answer = _asked(form, directory.sign_in(user)), directory.answers
    answered = answer.pop(user.sub, None)
    approval = Approval(grant, form.get("binding_message", ""), answered)
    expiry = form.get("requested_expiry", "")[:6]
    lifetime = int(expiry) if expiry.isdecimal() else 300
    directory.approvals.put(approval, key=approval.id, lifetime=lifetime)
    return private({"auth_req_id": approval.id, "expires_in": lifetime, "interval": 1})


def backchannel(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an approval for tokens, once it is there (CIBA Core 1.0, section 10)."""
    name = required(form, "auth_req_id")
    approval = here.directory.approvals.get(name)
    if approval is None:
        raise TokenError(400, "expired_token", "The request is unknown or has expired")
    if approval.answer is None:
        raise TokenError(400, "authorization_pending", "The user has yet to answer")
    here.directory.approvals.take(name)
    if not approval.answer:
        raise TokenError(400, "access_denied", "The user did not authorize the request")
    return issue(here, approval.grant)


def demand_mfa(grant: Grant, family: str | None = None) -> None:
    """Refuse tokens where a second factor is wanted and there was none.

    ``family`` is the refresh token that asked for them; without, it is a login, which
    asks users who have a second factor for it in any case.
    """
    directory, session = here.directory, grant.session
    has = {m.type for m in directory.methods.second_factors(session.user.sub)}
    wanted = here.require_mfa or (family is None and has)
    if not wanted or "mfa" in session.amr:
        return
    ways = [{"type": name} for kind, name in _AUTHENTICATORS.items() if kind in has]
    needs = {"challenge": ways} if ways else {"enroll": [{"type": "otp"}]}
    token = directory.mfa_tokens.put((grant, family))
    more: dict[str, Any] = {"mfa_token": token, "mfa_requirements": needs}
    raise TokenError(403, "mfa_required", "Multifactor authentication required", **more)


def proved(session: Session, acr: str | None = None) -> Session:
    """Return a session whose user has just shown a second factor."""
    return replace(session, amr=("mfa",), acr=acr, auth_time=here.now())


@routes.get("/mfa/authenticators")
def authenticators() -> Response:
    """List what a user can be asked for."""
    found = here.directory.methods.of(_sub(bearer()), *_AUTHENTICATORS)
    kinds = [{"authenticator_type": _AUTHENTICATORS[method.type]} for method in found]
    states = [{"id": method.id, "active": method.confirmed} for method in found]
    return private([{**k, **s} for k, s in zip(kinds, states, strict=True)])


@routes.post("/mfa/associate")
def associate() -> Response:
    """Give a user an authenticator, which is confirmed by its first code."""
    sub, methods = _sub(bearer()), here.directory.methods
    if methods.second_factors(sub):
        raise TokenError(403, "access_denied", "User is already enrolled.")
    if "otp" not in parameters().get("authenticator_types", ""):
        raise bad_request("Unsupported authenticator type")
    made, recovery = methods.add_totp(sub), methods.add_recovery_code(sub)
    shown = {"secret": made.secret, "barcode_uri": barcode(made, sub)}
    codes = {"recovery_codes": [recovery.secret]}
    return private({"authenticator_type": "otp", "id": made.id, **shown, **codes})


@routes.post("/mfa/challenge")
def challenge() -> Response:
    """Ask a user for a code."""
    form = app_form()
    if not here.directory.methods.of(_sub(required(form, "mfa_token")), "totp"):
        raise TokenError(403, "association_required", "User is not enrolled.")
    if form.get("challenge_type", "otp") != "otp":
        raise TokenError(400, "unsupported_challenge_type", "Only otp is known here")
    return private({"challenge_type": "otp"})


def otp(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a one-time code for tokens."""
    sub = _sub(required(form, "mfa_token"))
    if not here.directory.methods.takes(sub, required(form, "otp"), "totp"):
        raise invalid_grant("Invalid otp_code.")
    return _tokens(form)


def recovery_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a recovery code for tokens and the next code."""
    sub, methods = _sub(required(form, "mfa_token")), here.directory.methods
    if not methods.takes(sub, required(form, "recovery_code"), "recovery-code"):
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
