"""Logins without a redirect: passwordless, passkeys, CIBA, second factors."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from flask import Blueprint
from werkzeug.wrappers import Response

from .authorization import DEFAULT_SCOPE, AuthorizationRequest, with_query
from .directory import Approval, Grant, Message, Session, User
from .errors import TokenError, as_json, bad_request, invalid_grant
from .factors import PASSKEY_ERRORS, Ceremony, barcode, safe_equal
from .messages import bearer_token, client_form, json_parameter, parameters, required
from .provider import tenant
from .tokens import issue_tokens, token_response

#: Authenticator types of the MFA API, by method type.
_AUTHENTICATORS = {"totp": "otp", "recovery-code": "recovery-code"}

routes = Blueprint("logins", __name__)


def check_audience(form: Mapping[str, str]) -> None:
    """Reject an audience that is not registered."""
    audience = form.get("audience")
    if audience and not tenant.knows_audience(audience):
        raise TokenError(403, "access_denied", f"Service not found: {audience}")


def log_in(
    form: Mapping[str, str], user: User, act: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the tokens of a login, or reject it until a second factor is used."""
    grant = _new_grant(form, replace(tenant.directory.sign_in(user), act=act))
    check_mfa(grant)
    return issue_tokens(tenant, grant)


def _new_grant(form: Mapping[str, str], session: Session) -> Grant:
    check_audience(form)
    organization = tenant.directory.organization(form.get("organization", ""))
    if form.get("organization") and organization is None:
        raise bad_request("the organization was not found")
    scope = tuple(dict.fromkeys(form.get("scope", DEFAULT_SCOPE).split()))
    return Grant(session, scope, form.get("audience") or None, None, organization)


@routes.post("/passwordless/start")
def start_passwordless() -> Response:
    """Send a code or a link, which the inbox page shows."""
    form = client_form()
    realm = required(form, "connection")
    if realm not in {"email", "sms"}:
        raise TokenError(400, "bad.connection", "Connection does not exist")
    address = required(form, "email" if realm == "email" else "phone_number")
    message = Message(address, f"{secrets.randbelow(10**6):06}")
    if form.get("send") == "link":
        query = {"email": address, "verification_code": message.code}
        link = with_query(f"{tenant.origin}/passwordless/verify_redirect", query)
        message = replace(message, link=link, request=_link_request(form))
    tenant.directory.messages.put(message, key=address)
    return as_json({"_id": secrets.token_hex(12), realm: address})


def _link_request(form: Mapping[str, str]) -> AuthorizationRequest:
    params = json_parameter(form, "authParams", dict)
    url, scope = (str(params.get(n, "")) for n in ("redirect_uri", "scope"))
    if not tenant.knows_callback(url):
        raise bad_request("The redirect_uri is not among the allowed callback URLs")
    scopes = tuple((scope or DEFAULT_SCOPE).split())
    state, audience, acr = (params.get(n) for n in ("state", "audience", "acr_values"))
    return AuthorizationRequest(url, "", scopes, state, None, audience, acr=acr)


def pop_message(address: str, code: str) -> Message | None:
    """Return and delete the message with this code, or return None."""
    messages = tenant.directory.messages
    message = messages.get(address)
    return messages.pop(address) if message and safe_equal(message.code, code) else None


def passwordless(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code from a message for tokens."""
    address = required(form, "username")
    if pop_message(address, required(form, "otp")) is None:
        raise invalid_grant("Wrong email or verification code.")
    return log_in(form, tenant.directory.user_with_address(address))


@routes.post("/passkey/<any(register, challenge):step>")
def begin_passkey(step: str) -> Response:
    """Start a sign-up or a login with a passkey."""
    # No client authentication: the SDK sends a secret here, but never an assertion.
    form = parameters()
    if form.get("client_id") != tenant.client_id:
        raise TokenError(401, "access_denied", "Unauthorized")
    ceremony, profile = Ceremony("get"), json_parameter(form, "user_profile", dict)
    if step == "register":
        name, email = (str(profile.get(claim, "")) for claim in ("name", "email"))
        if email in {user.claims.get("email") for user in tenant.directory.users()}:
            raise bad_request("The user already exists")
        ceremony = Ceremony("create", name=name, email=email)
    session = tenant.directory.ceremonies.put(ceremony)
    options = {"authn_params_public_key": ceremony.options}
    return as_json({"auth_session": session, **options})


def passkey(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a passkey's response for tokens."""
    directory, methods = tenant.directory, tenant.directory.methods
    ceremony = directory.ceremonies.pop(required(form, "auth_session"))
    try:
        credential = json_parameter(form, "authn_response", dict)
        if ceremony is None:
            raise ValueError("The auth_session is unknown or has expired")
        if ceremony.kind == "create":
            key = ceremony.public_key(credential)
            user = directory.new_user(ceremony.name, ceremony.email)
            added = methods.add(user.sub, "passkey", key, confirmed=True)
            added.key_id = credential["id"]
        else:
            sub, known = methods.passkey(credential["id"])
            ceremony.verify(credential, known.secret)
            user = directory.find(sub)
    except PASSKEY_ERRORS as error:
        raise invalid_grant(f"The passkey was rejected: {error}") from error
    return log_in(form, user)


@routes.post("/bc-authorize")
def authorize_backchannel() -> Response:
    """Ask a user to approve a login (CIBA Core 1.0, section 7)."""
    form, directory = client_form(), tenant.directory
    try:
        user = directory.find(json_parameter(form, "login_hint", dict)["sub"])
    except LookupError as error:
        raise TokenError(400, "unknown_user_id", "The user is unknown") from error
    grant = _new_grant(form, directory.sign_in(user))
    decision = directory.decisions.pop(user.sub, None)
    approval = Approval(grant, form.get("binding_message", ""), decision)
    expiry = form.get("requested_expiry", "")[:6]
    lifetime = int(expiry) if expiry.isdecimal() else 300
    directory.approvals.put(approval, key=approval.id, lifetime=lifetime)
    return as_json({"auth_req_id": approval.id, "expires_in": lifetime, "interval": 1})


def backchannel(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``auth_req_id`` for tokens after approval (CIBA Core 1.0, 10)."""
    request_id = required(form, "auth_req_id")
    approval = tenant.directory.approvals.get(request_id)
    if approval is None:
        raise TokenError(400, "expired_token", "The request is unknown or has expired")
    if approval.answer is None:
        raise TokenError(400, "authorization_pending", "The user has not answered yet")
    tenant.directory.approvals.pop(request_id)
    if not approval.answer:
        raise TokenError(400, "access_denied", "The user did not authorize the request")
    return issue_tokens(tenant, approval.grant)


def check_mfa(grant: Grant, refresh_token: str | None = None) -> None:
    """Reject a login or a refresh that requires a second factor and has none.

    Logins, which have no ``refresh_token``, also require it of users who have one.
    """
    directory, session = tenant.directory, grant.session
    kinds = {m.type for m in directory.methods.second_factors(session.user.sub)}
    is_required = tenant.require_mfa or (refresh_token is None and kinds)
    if not is_required or "mfa" in session.amr:
        return
    factors = [{"type": t} for kind, t in _AUTHENTICATORS.items() if kind in kinds]
    requirements = {"challenge": factors} if factors else {"enroll": [{"type": "otp"}]}
    token = directory.mfa_tokens.put((grant, refresh_token))
    more: dict[str, Any] = {"mfa_token": token, "mfa_requirements": requirements}
    raise TokenError(403, "mfa_required", "Multifactor authentication required", **more)


def with_mfa(session: Session, acr: str | None = None) -> Session:
    """Return the session after a second factor."""
    return replace(session, amr=("mfa",), acr=acr, auth_time=tenant.now())


@routes.get("/mfa/authenticators")
def authenticators() -> Response:
    """List a user's authenticators."""
    sub, types = _mfa_sub(bearer_token()), _AUTHENTICATORS
    methods = tenant.directory.methods.for_user(sub, *types)
    found = [(types[m.type], {"id": m.id, "active": m.confirmed}) for m in methods]
    return as_json([{"authenticator_type": kind, **state} for kind, state in found])


@routes.post("/mfa/associate")
def associate() -> Response:
    """Add an authenticator app to a user; its first code confirms it."""
    sub, methods = _mfa_sub(bearer_token()), tenant.directory.methods
    if methods.second_factors(sub):
        raise TokenError(403, "access_denied", "User is already enrolled.")
    if "otp" not in parameters().get("authenticator_types", ""):
        raise bad_request("Unsupported authenticator type")
    totp, recovery = methods.add_totp(sub), methods.add_recovery_code(sub)
    secret = {"secret": totp.secret, "barcode_uri": barcode(totp, sub)}
    codes = {"recovery_codes": [recovery.secret]}
    return as_json({"authenticator_type": "otp", "id": totp.id, **secret, **codes})


@routes.post("/mfa/challenge")
def challenge() -> Response:
    """Ask a user for a one-time code."""
    form = client_form()
    sub = _mfa_sub(required(form, "mfa_token"))
    if not tenant.directory.methods.for_user(sub, "totp"):
        raise TokenError(403, "association_required", "User is not enrolled.")
    if form.get("challenge_type", "otp") != "otp":
        raise TokenError(400, "unsupported_challenge_type", "Only otp is supported")
    return as_json({"challenge_type": "otp"})


def otp(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a one-time code for tokens."""
    sub = _mfa_sub(required(form, "mfa_token"))
    if not tenant.directory.methods.accept_code(sub, required(form, "otp"), "totp"):
        raise invalid_grant("Invalid otp_code.")
    return _mfa_tokens(form)


def recovery_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange an ``mfa_token`` and a recovery code for tokens and the next code."""
    sub, methods = _mfa_sub(required(form, "mfa_token")), tenant.directory.methods
    if not methods.accept_code(sub, required(form, "recovery_code"), "recovery-code"):
        raise invalid_grant("MFA Authorization rejected.")
    tokens = _mfa_tokens(form)
    return {**tokens, "recovery_code": methods.add_recovery_code(sub).secret}


def _mfa_tokens(form: Mapping[str, str]) -> dict[str, Any]:
    grant, refresh = tenant.directory.mfa_tokens.pop(form["mfa_token"]) or _expired()
    grant = replace(grant, session=with_mfa(grant.session))
    if refresh is None:
        return issue_tokens(tenant, grant)
    # The refresh token stays valid, and later refreshes count as multi-factor, too.
    tenant.directory.refresh_tokens.set_session(refresh, grant.session)
    return token_response(tenant, grant, None)


def _mfa_sub(mfa_token: str) -> str:
    grant, _ = tenant.directory.mfa_tokens.get(mfa_token) or _expired()
    return grant.session.user.sub


def _expired() -> NoReturn:
    raise TokenError(401, "expired_token", "mfa_token is expired")
