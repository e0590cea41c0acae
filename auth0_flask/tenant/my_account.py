"""The My Account API: a user's connected accounts and authentication methods."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import jwt
from flask import Blueprint, request
from werkzeug.wrappers import Response

from .authorization import AuthorizationRequest, send_back, site
from .directory import Question
from .errors import TokenError, bad_request, private
from .factors import WRONG, Ceremony, Method, barcode, proves, same, timestamp
from .messages import bearer, own_claims, parameters, structure
from .provider import here

_PASSWORDS = "Username-Password-Authentication"
_FACTORS = {"totp": "secondary", "recovery-code": "secondary", "passkey": "primary"}
_VERBS = {"GET": "read", "PATCH": "update", "DELETE": "delete", "POST": "create"}

routes = Blueprint("my_account", __name__, url_prefix="/me/v1")


@routes.errorhandler(TokenError)
def refuse(error: TokenError) -> Response:
    """Answer with a problem document (RFC 9457)."""
    code, detail = error.document["error"], error.document["error_description"]
    kind = f"https://auth0.com/api-errors/{code}"
    problem = {"type": kind, "title": code, "status": error.status, "detail": detail}
    return private(problem, error.status)


def _sub(what: str) -> str:
    """Return whose access token the request shows, if it is good for this."""
    scope = f"{_VERBS[request.method]}:me:{what}"
    try:
        claims = own_claims(bearer(), here.my_account)
    except jwt.PyJWTError as error:
        raise TokenError(401, "unauthorized", f"The token is wrong: {error}") from error
    # The SDK writes some of these scopes with hyphens.
    if scope not in claims.get("scope", "").replace("-", "_").split():
        raise TokenError(403, "insufficient_scope", f"The access token lacks {scope}")
    return str(claims["sub"])


@routes.post("/connected-accounts/connect")
def connect() -> Response:
    """Begin to connect an account; the user is asked at the address returned."""
    sub, form = _sub("connected_accounts"), parameters()
    connection, url = form.get("connection", ""), form.get("redirect_uri", "")
    if connection not in here.connections - {_PASSWORDS}:
        raise TokenError(404, "not_found", f"There is no connection {connection}")
    if not here.knows_callback(url) or form.get("code_challenge_method") != "S256":
        raise bad_request("redirect_uri or code_challenge is wrong")
    structure(form, "scopes", list)
    session, questions = secrets.token_urlsafe(32), here.directory.questions
    back = AuthorizationRequest(url, "", (), form.get("state"))

    def agree() -> Response:
        asked = {**form, "sub": sub, "auth_session": session}
        code = here.directory.connects.put(asked)
        return send_back(url, back.state, {"connect_code": code}, 303)

    text = f"Let {site(url)} use your account at {connection}?"
    shown = {"title": "Connect an account", "text": text}
    ticket = questions.put(Question("confirm", back, agree, shown))
    answer = {"connect_uri": f"{here.origin}/u/confirm", "auth_session": session}
    more = {"connect_params": {"ticket": ticket}, "expires_in": int(questions.lifetime)}
    return private({**answer, **more}, 201)


@routes.post("/connected-accounts/complete")
def complete() -> Response:
    """Connect the account that the user has agreed to, one at each connection."""
    sub, form = _sub("connected_accounts"), parameters()
    asked = here.directory.connects.take(form.get("connect_code", "")) or {}
    shown = {name: form.get(name) for name in ("auth_session", "redirect_uri")}
    proved = proves(form.get("code_verifier", ""), asked.get("code_challenge", ""))
    if not (proved and {"sub": sub, **shown}.items() <= asked.items()):
        raise bad_request("The connect_code is not of this request")
    made = {
        "id": f"cac_{secrets.token_hex(8)}",
        "connection": asked["connection"],
        "access_type": "offline",
        "scopes": structure(asked, "scopes", list),
        "created_at": timestamp(here.now()),
    }
    here.directory.accounts.setdefault(sub, {})[asked["connection"]] = made
    return private(made, 201)


@routes.get("/connected-accounts/accounts")
def _accounts() -> Response:
    found = here.directory.accounts.get(_sub("connected_accounts"), {})
    wanted = request.args.get("connection")
    return _part("accounts", [a for n, a in found.items() if wanted in {None, n}])


@routes.delete("/connected-accounts/accounts/<name>")
def _disconnect(name: str) -> Response:
    found = here.directory.accounts.get(_sub("connected_accounts"), {})
    for connection, account in list(found.items()):
        if account["id"] == name:
            del found[connection]
            return Response(status=204)
    raise TokenError(404, "not_found", "There is no such account")


@routes.get("/connected-accounts/connections")
def _connections() -> Response:
    _sub("connected_accounts")
    found = sorted(here.connections - {_PASSWORDS})
    return _part("connections", [{"name": n, "strategy": n} for n in found])


def _part(name: str, items: list[dict[str, Any]]) -> Response:
    """Answer with some of the items, and where to go on."""
    start, take = (request.args.get(n, d) for n, d in (("from", "0"), ("take", "50")))
    if not (start.isdecimal() and take.isdecimal()):
        raise bad_request("from or take is no number")
    end = int(start) + int(take)
    more = {"next": str(end)} if end < len(items) else {}
    return private({name: items[int(start) : end], **more})


@routes.get("/factors")
def _factors() -> Response:
    _sub("factors")
    return private([{"type": t, "usage": [usage]} for t, usage in _FACTORS.items()])


@routes.get("/authentication-methods")
def _methods() -> Response:
    sub, kind = _sub("authentication_methods"), request.args.get("type")
    found = here.directory.methods.of(sub, *([kind] if kind else []))
    return private({"authentication_methods": [_shown(method) for method in found]})


@routes.route("/authentication-methods/<name>", methods=["GET", "PATCH", "DELETE"])
def method(name: str) -> Response:
    """Show a method, call it by another name, or take it away."""
    sub, found = _find(name)
    if request.method == "DELETE":
        here.directory.methods.remove(sub, found)
        return Response(status=204)
    if request.method == "PATCH":
        found.name = parameters().get("name", found.name)
    return private(_shown(found))


@routes.post("/authentication-methods")
def enroll() -> Response:
    """Begin to enroll a method; it counts once it is verified."""
    sub, kind = _sub("authentication_methods"), parameters().get("type")
    known, ceremony = here.directory.methods, Ceremony("create", name=sub)
    more: dict[str, Any]
    if kind == "totp":
        made = known.add_totp(sub)
        more = {"barcode_uri": barcode(made, sub), "manual_input_code": made.secret}
    elif kind == "recovery-code":
        made = known.add_recovery_code(sub)
        more = {"recovery_code": made.secret}
    elif kind == "passkey":
        made = known.add(sub, kind, "", confirmed=False)
        more = {"authn_params_public_key": ceremony.options}
    else:
        raise bad_request(f"The type {kind} is not known here")
    session = here.directory.enrolments.put((made, ceremony))
    answer = private({"id": made.id, "auth_session": session, **more}, 202)
    answer.location = f"{here.my_account}v1/authentication-methods/{quote(made.id)}"
    return answer


@routes.post("/authentication-methods/<name>/verify")
def verify(name: str) -> Response:
    """Enroll a method for good."""
    form, (_, found) = parameters(), _find(name)
    enrolments, session = here.directory.enrolments, form.get("auth_session", "")
    made, ceremony = enrolments.get(session) or (None, None)
    if made is not found or ceremony is None or not _verified(form, made, ceremony):
        raise TokenError(403, "forbidden", "The answer is wrong, or it comes too late")
    enrolments.take(session)
    found.confirmed = True
    return private(_shown(found), 201)


def _verified(form: Mapping[str, str], made: Method, ceremony: Ceremony) -> bool:
    if made.type == "totp":
        return here.directory.methods.shows(made, form.get("otp_code", ""))
    if made.type == "recovery-code":
        return same(made.secret, form.get("recovery_code", ""))
    try:
        answer = structure(form, "authn_response", dict)
        made.secret, made.key_id = ceremony.key_of(answer), answer["id"]
    except WRONG:
        return False
    return True


def _find(name: str) -> tuple[str, Method]:
    sub = _sub("authentication_methods")
    for found in here.directory.methods.of(sub):
        if found.id == name:
            return sub, found
    raise TokenError(404, "not_found", "There is no such authentication method")


def _shown(found: Method) -> dict[str, Any]:
    names = ("id", "type", "created_at", "confirmed", "name", "key_id")
    shown = {name: getattr(found, name) for name in names}
    usage = {"usage": [_FACTORS[found.type]]}
    return {**{n: v for n, v in shown.items() if v != ""}, **usage}
