"""Logins without a redirect: passwordless, with a passkey, by CIBA."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Blueprint
from werkzeug.wrappers import Response

from . import mfa
from .authorization import DEFAULT_SCOPE, AuthorizationRequest, with_query
from .directory import Approval, Grant, Message, User
from .factors import WRONG, Ceremony, same
from .messages import (
    TokenError,
    bad_request,
    invalid_grant,
    parameters,
    private,
    required,
    structure,
)
from .provider import here
from .tokens import issue
from .verification import authenticate

routes = Blueprint("logins", __name__)


def check_audience(form: Mapping[str, str]) -> None:
    """Refuse tokens for an API that there is not.

    Raises:
        TokenError: If there is none.
    """
    audience = form.get("audience")
    if audience and not here.knows_audience(audience):
        raise TokenError(403, "access_denied", f"Service not found: {audience}")


def log_in(
    form: Mapping[str, str], user: User, act: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the tokens of a login that a request has proved, or ask for more.

    Raises:
        TokenError: If it is refused, for want of a second factor say.
    """
    grant = _asked(form, user, act)
    mfa.demand(grant)
    return issue(here, grant)


def _asked(
    form: Mapping[str, str], user: User, act: Mapping[str, str] | None = None
) -> Grant:
    check_audience(form)
    organization = here.directory.organization(form.get("organization", ""))
    if form.get("organization") and organization is None:
        raise bad_request("the organization was not found")
    session = replace(here.directory.sign_in(user), act=act)
    scope = tuple(dict.fromkeys(form.get("scope", DEFAULT_SCOPE).split()))
    return Grant(session, scope, form.get("audience") or None, None, organization)


@routes.post("/passwordless/start")
def start_passwordless() -> Response:
    """Send a code or a link; the inbox shows it."""
    form = parameters()
    authenticate(form)
    realm = required(form, "connection")
    if realm not in {"email", "sms"}:
        raise TokenError(400, "bad.connection", "Connection does not exist")
    address = required(form, "email" if realm == "email" else "phone_number")
    message = Message(realm, address, f"{secrets.randbelow(10**6):06}")
    if form.get("send") == "link":
        message = replace(message, link=_link(message), asked=_link_request(form))
    here.directory.messages.put(message, key=f"{realm}:{address}")
    return private({"_id": secrets.token_hex(12), realm: address})


def _link(message: Message) -> str:
    shown = {"email": message.to, "verification_code": message.code}
    return with_query(f"{here.origin}/passwordless/verify_redirect", shown)


def _link_request(form: Mapping[str, str]) -> AuthorizationRequest:
    params = structure(form, "authParams", dict)
    url = str(params.get("redirect_uri", ""))
    if not here.knows_callback(url):
        raise bad_request("The redirect_uri is not among the allowed callback URLs")
    return AuthorizationRequest(
        redirect_uri=url,
        code_challenge="",
        scope=tuple(str(params.get("scope", DEFAULT_SCOPE)).split()),
        state=params.get("state"),
        audience=params.get("audience"),
        acr=params.get("acr_values"),
    )


def take_message(realm: str, address: str, code: str) -> Message | None:
    """Return the message that brought a code to an address; it is good once."""
    messages, key = here.directory.messages, f"{realm}:{address}"
    message = messages.get(key)
    if message is None or not same(message.code, code):
        return None
    return messages.take(key)


def passwordless(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code that was sent for tokens."""
    realm, address = required(form, "realm"), required(form, "username")
    if take_message(realm, address, required(form, "otp")) is None:
        raise invalid_grant("Wrong email or verification code.")
    return log_in(form, here.directory.owner(realm, address))


@routes.post("/passkey/register")
def register_passkey() -> Response:
    """Begin the sign-up of somebody new with a passkey."""
    form = _of_client()
    profile = structure(form, "user_profile", dict)
    name, email = str(profile.get("name", "")), str(profile.get("email", ""))
    if email in {user.claims.get("email") for user in here.directory.users()}:
        raise bad_request("The user already exists")
    return private(begin(Ceremony("create", name=name, email=email)))


@routes.post("/passkey/challenge")
def challenge_passkey() -> Response:
    """Begin a login with a passkey."""
    _of_client()
    return private(begin(Ceremony("get")))


def _of_client() -> dict[str, str]:
    # The SDK sends a secret where it has one, and no assertion where it has a key.
    form = parameters()
    if form.get("client_id") != here.client_id:
        raise TokenError(401, "access_denied", "Unauthorized")
    return form


def begin(ceremony: Ceremony) -> dict[str, Any]:
    """Return what the browser needs to make or show a passkey."""
    session = here.directory.ceremonies.put(ceremony)
    return {"auth_session": session, "authn_params_public_key": ceremony.options}


def passkey(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange what a passkey has signed for tokens."""
    ceremony = here.directory.ceremonies.take(required(form, "auth_session"))
    methods = here.directory.methods
    try:
        answer = structure(form, "authn_response", dict)
        if ceremony is None:
            raise ValueError("The auth_session is unknown or has expired")
        if ceremony.kind == "create":
            key = ceremony.key_of(answer)
            user = here.directory.newcomer(ceremony.name, ceremony.email)
            methods.add(user.sub, "passkey", key, confirmed=True).key_id = answer["id"]
        else:
            sub, known = methods.passkey(answer["id"])
            ceremony.check(answer, known.secret)
            user = here.directory.find(sub)
    except WRONG as error:
        raise invalid_grant(f"The passkey is refused: {error}") from error
    return log_in(form, user)


@routes.post("/bc-authorize")
def authorize_backchannel() -> Response:
    """Ask a user elsewhere to approve a login (CIBA Core 1.0, section 7)."""
    form = parameters()
    authenticate(form)
    try:
        user = here.directory.find(structure(form, "login_hint", dict)["sub"])
    except LookupError as error:
        raise TokenError(400, "unknown_user_id", "The user is unknown") from error
    grant = _asked(form, user)
    answer = here.directory.answers.pop(user.sub, None)
    approval = Approval(grant, form.get("binding_message", ""), answer)
    expiry = form.get("requested_expiry", "")
    lifetime = int(expiry) if expiry.isdecimal() else 300
    here.directory.approvals.put(approval, key=approval.id, lifetime=lifetime)
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
