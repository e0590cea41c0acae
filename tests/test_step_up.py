"""Step-up: a view that wants more than a login, and what Auth0 wants of its own."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from auth0_server_python.error import AccessTokenError, Auth0Error, MfaRequiredError
from flask import Flask, request

import auth
from auth import auth0
from auth0_flask.tenant import Fault, Tenant
from conftest import Clock
from shop import copy_of_auth, make_shop
from visitor import Shopper

MFA = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
PROVED, STALE = {"amr": ["pwd", "mfa"]}, {"auth_time": 1_000_000_000}
HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}
VAULTS: dict[str, dict[str, Any]] = {
    "/vault": {"mfa": True},
    "/vault/now": {"mfa": True, "max_age": 300},
    "/vault/gold": {"acr": "gold"},
    "/vault/metal": {"acr": "gold silver"},
    "/vault/api": {"mfa": True, "redirect": False},
}


async def orders() -> str:
    """Ask an API; or catch what the SDK raises."""
    try:
        return await auth0.get_access_token()
    except MfaRequiredError:
        if "catch" in request.args:
            return "caught"
        raise


@pytest.fixture
def alice(shop: Flask, tenant: Tenant) -> Shopper:
    """Alice with her authenticator, at a shop with views that want more."""
    for path, wanted in VAULTS.items():
        guard = auth.login_required(**wanted)
        shop.add_url_rule(path, path, guard(lambda: "open"))
    shop.add_url_rule("/orders", view_func=orders)
    alice = Shopper(shop)
    alice.code = lambda: tenant.otp_for("alice")
    return alice


@pytest.mark.parametrize(
    ("path", "claims", "asked"),
    [
        ("/vault", None, {"acr_values": [MFA]}),
        ("/vault", {"amr": ["pwd"], "acr": "gold"}, {"acr_values": [MFA]}),
        ("/vault", {"amr": "mfa", "acr": [MFA]}, {"acr_values": [MFA]}),
        ("/vault", PROVED, None),
        ("/vault", {"acr": MFA}, None),
        ("/vault/now", {**PROVED, **STALE}, {"acr_values": [MFA], "max_age": ["300"]}),
        ("/vault/gold", {"acr": "silver", **PROVED}, {"acr_values": ["gold"]}),
        ("/vault/gold", {"acr": 7, "amr": {"mfa": 1}}, {"acr_values": ["gold"]}),
        ("/vault/metal", {"acr": "silver"}, None),
        ("/vault/metal", {"acr": "gold silver"}, {"acr_values": ["gold silver"]}),
    ],
)
def test_who_has_not_proved_it_is_asked_for_it(
    alice: Shopper, path: str, claims: dict[str, Any] | None, asked: Any
) -> None:
    client = alice.client
    if claims is not None:
        auth.login_as(client, **claims)

    page, program = client.get(path, headers=HTML), client.get(path, headers=JSON)

    if asked is None:
        assert (page.text, program.text) == ("open", "open")
        return
    login = urlsplit(page.location)
    assert login.path == "/login"
    assert parse_qs(login.query) == {"return_to": [path], **asked}
    assert program.status_code == 401
    code = "signed_out" if claims is None else "insufficient_user_authentication"
    assert (program.json or {})["code"] == code
    challenge = program.www_authenticate
    assert parse_qs(urlsplit(str(challenge["form-action"])).query) == asked
    if claims is not None:
        told = {"error": [code], **asked}
        assert {name: [challenge[name]] for name in told} == told
    with pytest.raises(TypeError, match="not both"):
        auth.login_required(mfa=True, acr="gold")


def test_a_guarded_view_asks_for_a_second_factor_and_opens(alice: Shopper) -> None:
    alice.login()
    api = alice.client.get("/vault/api", headers=HTML)
    assert (api.status_code, api.www_authenticate["acr_values"]) == (401, MFA)
    at_tenant = parse_qs(urlsplit(alice.start("/vault")).query)
    assert at_tenant["acr_values"] == [MFA]

    assert alice.login("/vault").location == "/vault"
    assert alice.client.get("/vault").text == alice.client.get("/vault/api").text


@pytest.mark.parametrize(
    ("path", "claims", "code"),
    [
        ("/vault", {"amr": ["pwd"], "acr": None}, "not_stepped_up"),
        ("/vault/gold", {"acr": MFA}, "not_stepped_up"),
        ("/vault/now", STALE, "not_fresh"),
    ],
)
def test_a_login_without_what_was_asked_for_ends_on_a_page_and_does_not_go_round(
    alice: Shopper, tenant: Tenant, path: str, claims: dict[str, Any], code: str
) -> None:
    alice.login()
    before = alice.client.get("/session").json
    callback = alice.sign_in(path)
    tenant.forge(claims=claims)

    answer = alice.client.get(callback, headers=JSON)

    assert (answer.status_code, (answer.json or {})["code"]) == (400, code)
    assert alice.client.get("/session").json == before
    assert alice.client.get(path).status_code == 302


def ask_for_a_factor(alice: Shopper, tenant: Tenant, clock: Clock) -> None:
    """Sign in, and have Auth0 want a second factor before it refreshes."""
    tenant.access_token_lifetime = 61
    alice.login()
    tenant.require_mfa = True
    clock.forward(56)


def test_where_auth0_wants_one_for_a_token_the_visitor_is_led_there_and_back(
    alice: Shopper, shop: Flask, tenant: Tenant, clock: Clock
) -> None:
    @shop.get("/api/orders")
    @auth.login_required(redirect=False)
    @auth.requires_claim("sub")
    async def api() -> str:
        return await orders()

    ask_for_a_factor(alice, tenant, clock)
    login = parse_qs(urlsplit(alice.client.get("/orders?open=1").location).query)
    assert login == {"return_to": ["/orders?open=1"], "acr_values": [MFA]}
    for path, headers in (("/orders", JSON), ("/api/orders", HTML)):
        answer = alice.client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.www_authenticate["acr_values"] == MFA

    assert alice.login("/orders?open=1").location == "/orders?open=1"
    assert alice.client.get("/orders").status_code == 200
    asked_again = {"error": "mfa_required", "mfa_token": "m" * 40}
    tenant.fail("token", Fault.body(asked_again, status=403), times=2)
    clock.forward(56)
    answer = alice.client.get("/orders", headers=JSON)  # another login would not help
    assert (answer.status_code, (answer.json or {})["code"]) == (403, "mfa_required")
    clock.forward(5)
    assert "acr_values" in alice.client.get("/orders").location


@pytest.mark.parametrize("kind", [MfaRequiredError, Auth0Error, AccessTokenError])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_app_answers_that_itself_by_a_handler_or_in_the_view(
    tenant: Tenant, clock: Clock, kind: type[Exception], is_first: bool
) -> None:
    app = Flask("own")
    handler = partial(app.register_error_handler, kind, lambda error: ("handled", 418))
    steps = [handler, partial(auth.init_app, app)]
    for step in steps if is_first else reversed(steps):
        step()
    app.register_blueprint(auth.routes)
    app.add_url_rule("/orders", view_func=orders)
    alice = Shopper(app)
    seen = [alice.client.get("/orders").status_code]  # which has no token for a guest
    ask_for_a_factor(alice, tenant, clock)
    seen.append(alice.client.get("/orders").status_code)

    assert seen == ([302, 418] if kind is MfaRequiredError else [418, 302])
    assert alice.client.get("/orders?catch=1").text == "caught"


def test_who_has_no_refresh_token_signs_in_for_a_new_access_token(
    tenant: Tenant, clock: Clock
) -> None:
    own = copy_of_auth({**tenant.environ(), "AUTH0_SCOPE": "openid"})
    shop, always = make_shop(own), list[bool]()

    @shop.get("/token")
    async def token() -> str:
        return str(await own.auth0.get_access_token(audience=request.args.get("for")))

    @shop.before_request
    async def ask() -> None:
        if always:
            await token()

    tenant.access_token_lifetime = 600
    shopper = Shopper(shop)
    assert shopper.client.get("/token").location == "/login?return_to=/token"
    shopper.login("/login?remember=0")
    assert shopper.client.get("/token").status_code == 200
    clock.forward(61)
    # an access token for another API is none that a login brings
    assert shopper.client.get("/token?for=https://other.example").status_code == 403

    clock.forward(601)
    assert shopper.client.get("/token", headers=JSON).status_code == 401
    away = shopper.client.get("/token").location
    assert away == "/login?return_to=/token&remember=0"
    always.append(True)  # then nobody could go there
    assert shopper.client.get("/login").status_code == 403
