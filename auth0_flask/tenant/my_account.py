"""The My Account API: a user's connected accounts and authentication methods."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jwt
from flask import Blueprint, request
from werkzeug.wrappers import Response

from .authorization import AuthorizationRequest, app_name, redirect_back
from .directory import Question
from .errors import TokenError, as_json, bad_request
from .factors import (
    PASSKEY_ERRORS,
    Ceremony,
    Method,
    barcode,
    pkce_matches,
    safe_equal,
    timestamp,
)
from .messages import bearer_token, json_parameter, parameters, verified_claims
from .provider import tenant

_PASSWORDS = "Username-Password-Authentication"
_FACTORS = {"totp": "secondary", "recovery-code": "secondary", "passkey": "primary"}
_VERBS = {"GET": "read", "PATCH": "update", "DELETE": "delete", "POST": "create"}

routes = Blueprint("my_account", __name__, url_prefix="/me/v1")


@routes.errorhandler(TokenError)
def error_response(error: TokenError) -> Response:
    """Return a problem document (RFC 9457)."""
    code, detail = error.document["error"], error.document["error_description"]
    uri = f"https://auth0.com/api-errors/{code}"
    problem = {"type": uri, "title": code, "status": error.status, "detail": detail}
    return as_json(problem, error.status)


def _authorized_sub(what: str) -> str:
    """Return the access token's ``sub``, or raise a TokenError if scope is missing."""
    scope = f"{_VERBS[request.method]}:me:{what}"
    try:
        claims = verified_claims(bearer_token(), tenant.my_account)
    except jwt.PyJWTError as error:
        raise TokenError(401, "unauthorized", f"Invalid token: {error}") from error
    # The SDK writes some of these scopes with hyphens.
    if scope not in claims.get("scope", "").replace("-", "_").split():
        raise TokenError(403, "insufficient_scope", f"The access token lacks {scope}")
    return str(claims["sub"])


@routes.post("/connected-accounts/connect")
def connect() -> Response:
    """Start to connect an account; the user confirms it at the ``connect_uri``."""
    sub, form = _authorized_sub("connected_accounts"), parameters()
    connection, url = form.get("connection", ""), form.get("redirect_uri", "")
    if connection not in tenant.connections - {_PASSWORDS}:
        raise TokenError(404, "not_found", f"There is no connection {connection}")
    if not tenant.knows_callback(url) or form.get("code_challenge_method") != "S256":
        raise bad_request("redirect_uri or code_challenge_method is invalid")
    json_parameter(form, "scopes", list)
    session, questions = secrets.token_urlsafe(32), tenant.directory.questions
    authz = AuthorizationRequest(url, "", (), form.get("state"))

    def agree() -> Response:
        started = {**form, "sub": sub, "auth_session": session}
        code = tenant.directory.connect_codes.put(started)
        return redirect_back(url, authz.state, {"connect_code": code}, 303)

    text = f"Let {app_name(url)} use your account at {connection}?"
    context = {"title": "Connect an account", "text": text}
    ticket = questions.put(Question("confirm", authz, agree, context))
    document = {"connect_uri": f"{tenant.origin}/u/confirm", "auth_session": session}
    more = {"connect_params": {"ticket": ticket}, "expires_in": int(questions.lifetime)}
    return as_json({**document, **more}, 201)


@routes.post("/connected-accounts/complete")
def complete() -> Response:
    """Connect the account that the user has confirmed, one for each connection."""
    sub, form = _authorized_sub("connected_accounts"), parameters()
    started = tenant.directory.connect_codes.pop(form.get("connect_code", "")) or {}
    same = {name: form.get(name) for name in ("auth_session", "redirect_uri")}
    verifier, challenge = form.get("code_verifier", ""), started.get("code_challenge")
    is_verified = pkce_matches(verifier, challenge or "")
    if not (is_verified and {"sub": sub, **same}.items() <= started.items()):
        raise bad_request("The connect_code does not belong to this request")
    account = {
        "id": f"cac_{secrets.token_hex(8)}",
        "connection": started["connection"],
        "access_type": "offline",
        "scopes": json_parameter(started, "scopes", list),
        "created_at": timestamp(tenant.now()),
    }
    tenant.directory.accounts.setdefault(sub, {})[started["connection"]] = account
    return as_json(account, 201)


@routes.get("/connected-accounts/accounts")
def _accounts() -> Response:
    accounts = tenant.directory.accounts.get(_authorized_sub("connected_accounts"), {})
    name = request.args.get("connection")
    return _page("accounts", [a for n, a in accounts.items() if name in {None, n}])


@routes.delete("/connected-accounts/accounts/<name>")
def _disconnect(name: str) -> Response:
    accounts = tenant.directory.accounts.get(_authorized_sub("connected_accounts"), {})
    for connection, account in list(accounts.items()):
        if account["id"] == name:
            del accounts[connection]
            return Response(status=204)
    raise TokenError(404, "not_found", "There is no such account")


@routes.get("/connected-accounts/connections")
def _connections() -> Response:
    _authorized_sub("connected_accounts")
    names = sorted(tenant.connections - {_PASSWORDS})
    return _page("connections", [{"name": n, "strategy": n} for n in names])


def _page(name: str, items: list[dict[str, Any]]) -> Response:
    """Return the requested page of items, and where the next one starts."""
    start, take = (request.args.get(n, d) for n, d in (("from", "0"), ("take", "50")))
    if not (start.isdecimal() and take.isdecimal()):
        raise bad_request("from or take is not a number")
    end = int(start) + int(take)
    more = {"next": str(end)} if end < len(items) else {}
    return as_json({name: items[int(start) : end], **more})


@routes.get("/factors")
def _factors() -> Response:
    _authorized_sub("factors")
    return as_json([{"type": t, "usage": [usage]} for t, usage in _FACTORS.items()])


@routes.get("/authentication-methods")
def _methods() -> Response:
    sub, kind = _authorized_sub("authentication_methods"), request.args.get("type")
    methods = tenant.directory.methods.for_user(sub, *([kind] if kind else []))
    return as_json({"authentication_methods": [_as_dict(m) for m in methods]})


@routes.route("/authentication-methods/<name>", methods=["GET", "PATCH", "DELETE"])
def method(name: str) -> Response:
    """Show, rename or delete a method."""
    sub, found = _find(name)
    if request.method == "DELETE":
        tenant.directory.methods.remove(sub, found)
        return Response(status=204)
    if request.method == "PATCH":
        found.name = parameters().get("name", found.name)
    return as_json(_as_dict(found))


@routes.post("/authentication-methods")
def enroll() -> Response:
    """Start to enroll a method; it is usable once it is verified."""
    sub, kind = _authorized_sub("authentication_methods"), parameters().get("type")
    methods, ceremony = tenant.directory.methods, Ceremony("create", name=sub)
    more: dict[str, Any]
    if kind == "totp":
        new = methods.add_totp(sub)
        more = {"barcode_uri": barcode(new, sub), "manual_input_code": new.secret}
    elif kind == "recovery-code":
        new = methods.add_recovery_code(sub)
        more = {"recovery_code": new.secret}
    elif kind == "passkey":
        new = methods.add(sub, kind, "", confirmed=False)
        more = {"authn_params_public_key": ceremony.options}
    else:
        raise bad_request(f"Unsupported type: {kind}")
    session = tenant.directory.enrolments.put((new, ceremony))
    response = as_json({"id": new.id, "auth_session": session, **more}, 202)
    response.location = f"{tenant.my_account}v1/authentication-methods/{quote(new.id)}"
    return response


@routes.post("/authentication-methods/<name>/verify")
def verify(name: str) -> Response:
    """Complete the enrollment of a method."""
    form, (_, found) = parameters(), _find(name)
    enrolments, session = tenant.directory.enrolments, form.get("auth_session", "")
    added, ceremony = enrolments.get(session) or (None, None)
    if added is not found or ceremony is None or not _verify(form, added, ceremony):
        raise TokenError(403, "forbidden", "The response is invalid or has expired")
    enrolments.pop(session)
    found.confirmed = True
    return as_json(_as_dict(found), 201)


def _verify(form: Mapping[str, str], added: Method, ceremony: Ceremony) -> bool:
    if added.type == "totp":
        return tenant.directory.methods.totp_matches(added, form.get("otp_code", ""))
    if added.type == "recovery-code":
        return safe_equal(added.secret, form.get("recovery_code", ""))
    try:
        credential = json_parameter(form, "authn_response", dict)
        added.secret, added.key_id = ceremony.public_key(credential), credential["id"]
    except PASSKEY_ERRORS:
        return False
    return True


def _find(name: str) -> tuple[str, Method]:
    sub = _authorized_sub("authentication_methods")
    for found in tenant.directory.methods.for_user(sub):
        if found.id == name:
            return sub, found
    raise TokenError(404, "not_found", "There is no such authentication method")


def _as_dict(found: Method) -> dict[str, Any]:
    names = ("id", "type", "created_at", "confirmed", "name", "key_id")
    values = {n: value for n in names if (value := getattr(found, n)) != ""}
    return {**values, "usage": [_FACTORS[found.type]]}
