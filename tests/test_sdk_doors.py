"""Every way in that the SDK has goes through one door; what it refuses is a page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from auth0_server_python import auth_types as types
from auth0_server_python import error as sdk
from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface

import auth
import auth0_flask
from auth import auth0
from auth0_flask import Auth0Client
from auth0_flask.tenant import Tenant
from auth0_flask.tenant.faults import Fault
from conftest import Clock
from passkey import Passkey
from sdk_calls import WAYS, Caller, exchange, hint, proof
from shop import make_shop
from test_tokens import flasks_own, in_redis

WRONG = (("refused", {403}), ("bug", {500}), ("own", {418}), ("absent", {400, 403}))


@pytest.mark.sdk("login_backchannel", "login_with_custom_token_exchange")
@pytest.mark.sdk("passkey_signup_challenge", "passkey_login_challenge")
@pytest.mark.sdk("signin_with_passkey", "passwordless.start", "passwordless.verify")
@pytest.mark.sdk("mfa.verify")
@pytest.mark.parametrize("way", [*WAYS, "by_link"])
def test_whichever_way_somebody_comes_in(
    way: str, caller: Caller, shop: Flask, tenant: Tenant
) -> None:
    heard: list[tuple[str, str]] = []
    wrong: set[str] = set()
    shop.register_error_handler(LookupError, lambda _: ("no seat", 418))

    def logged_in(sender: Flask, user: Any) -> None:
        heard.append(("in", user["sub"]))
        if "refused" in wrong:
            raise auth.LoginRefused("Not <you>.")
        if "bug" in wrong:
            raise ZeroDivisionError
        if "own" in wrong:  # which the app has a page for
            raise LookupError

    def logged_out(sender: Flask, user: Any) -> None:
        heard.append(("out", user["sub"]))

    with (
        auth.user_logged_in.connected_to(logged_in, shop),
        auth.user_logged_out.connected_to(logged_out, shop),
    ):
        assert caller.come_in(way, "alice").status_code < 400, caller.raised
        alice, first = caller.user["sub"], caller.session["session"]["id"]
        assert heard == [("in", alice)]
        copied = caller.twin()
        assert caller.come_in(way, "alice").status_code < 400, caller.raised
        own = caller.session
        if way != "by_second_factor":  # which makes more of the session there is
            assert heard == [("in", alice)] * 2
            assert own["session"]["id"] != first
            assert copied.client.get("/me").json == {}
        caller.client.get("/cart")

        for what, status in WRONG:
            wrong.add(what)
            if what == "absent":
                tenant.forge("absent")  # there is no ID token in the answer
            answer = caller.come_in(way, "bob")
            wrong.clear()
            assert answer.status_code in status, (what, answer.text)
            assert ("Not &lt;you&gt;." in answer.text) == (what == "refused")
            assert caller.session == own, what
            assert caller.client.get("/cart").text == "full"

        heard.clear()
        ceiling = int(time.time()) + 600
        tenant.forge(claims={"session_expiry": ceiling, "sid": way})
        assert caller.come_in(way, "bob").status_code < 400, caller.raised
        bob = caller.session
        assert heard == [("in", bob["user"]["sub"]), ("out", alice)]
        assert bob["user"]["sub"] != alice
        assert bob["session"]["ends_at"] == ceiling - 30
        assert caller.client.get("/cart").text == "new"
        token = tenant.logout_token(sub=None, sid=way)
        shop.test_client().post("/backchannel-logout", data={"logout_token": token})
        assert caller.user == {}


@pytest.mark.parametrize("kind", [flasks_own, in_redis])
def test_a_copied_session_has_no_part_in_a_second_factor(
    tenant: Tenant, kind: Any, request: pytest.FixtureRequest
) -> None:
    shop = make_shop(auth, **kind(Flask("none"), request))
    shop.add_url_rule("/vault", "vault", auth.login_required(mfa=True)(lambda: "open"))
    caller = Caller(shop, tenant)
    caller.login()
    copied = caller.twin()
    tenant.forge(claims={"amr": ["mfa"]})
    caller.come_in("by_second_factor", "alice")

    assert caller.client.get("/vault").text == "open"
    assert copied.client.get("/vault").status_code == 302


def test_who_has_no_sub_comes_in_no_way(caller: Caller, tenant: Tenant) -> None:
    for way in WAYS:
        tenant.forge(claims={"sub": ""})
        assert caller.come_in(way, "alice").status_code >= 400, way
        assert caller.user == {}, way
        tenant.require_mfa = False


def test_a_sub_in_another_case_is_another_user(caller: Caller, tenant: Tenant) -> None:
    caller.login()
    first = caller.session["session"]["id"]
    tenant.forge(claims={"sub": "auth0|Alice"})

    assert caller.come_in("by_second_factor", "alice").status_code < 400, caller.raised
    assert caller.user["sub"] == "auth0|Alice"
    assert caller.session["session"]["id"] != first


def test_what_came_for_a_session_that_was_replaced_is_dropped(
    caller: Caller, tenant: Tenant
) -> None:
    async def both() -> None:
        asked = tenant.count("/oauth/token")
        tenant.fail("token", Fault.slow(0.5))
        late = asyncio.create_task(auth0.get_access_token_for_connection(OF_GITHUB))
        while tenant.count("/oauth/token") == asked:  # noqa: ASYNC110 - it has threads
            await asyncio.sleep(0.01)
        await caller.by_exchange("bob")
        await late

    caller.login()
    caller.ask(both)

    assert caller.user["sub"] == "auth0|bob"


def test_who_replaces_somebody_has_none_of_their_tokens(
    caller: Caller, tenant: Tenant
) -> None:
    def tokens() -> set[str]:
        own = caller.session
        sets = {tokens["access_token"] for tokens in own["token_sets"]}
        return {own["id_token"], own.get("refresh_token"), *sets} - {None}

    caller.login()
    caller.ask(partial(auth0.get_access_token, audience="https://a.example/"))
    alices = tokens()
    tenant.token_response_extra = {"refresh_token": None}
    caller.come_in("by_second_factor", "bob")

    assert len(alices) == 4
    assert "bob" in caller.user["sub"]
    assert tokens().isdisjoint(alices)


def test_an_organization_is_checked_whichever_way_somebody_comes_in(
    tenant: Tenant,
) -> None:
    acme = tenant.add_organization("acme")
    settings = auth.settings.model_copy(update={"organization": acme.org_id})
    client = Auth0Client(
        settings, state_store=auth0.sessions, transaction_store=auth0.transactions
    )
    shop = auth0_flask.init_app(Flask("shop"), client)
    shop.register_blueprint(auth0_flask.create_blueprint())
    shop.add_url_rule("/me", "me", lambda: dict(auth.auth_user))
    caller = Caller(shop, tenant, client)

    for way in ("by_code", "by_exchange", "by_approval"):
        answer = caller.come_in(way, "alice")
        assert (answer.status_code, caller.user) == (400, {}), way
        assert "wrong_organization" in answer.text, way
    caller.login()
    assert caller.user["org_id"] == acme.org_id


@pytest.mark.sdk("start_link_user", "complete_link_user")
@pytest.mark.sdk("start_unlink_user", "complete_unlink_user")
@pytest.mark.parametrize("way", ["link", "unlink"])
def test_who_links_an_account_keeps_the_session(
    way: str, caller: Caller, tenant: Tenant
) -> None:
    start = getattr(auth0, f"start_{way}_user")
    options = {"connection": "github", "app_state": {"return_to": "/cart"}}
    caller.login()
    own = caller.session

    back = caller.confirm(caller.ask(lambda: start(options)))
    assert caller.client.get(back).location == "/cart"
    assert caller.session == own
    back = caller.confirm(caller.ask(lambda: start(options)))
    complete = getattr(auth0, f"complete_{way}_user")
    found = caller.ask(lambda: complete(f"http://localhost{back}"))
    assert found == {"app_state": {"return_to": "/cart"}}
    assert caller.session == own

    back = caller.confirm(caller.ask(lambda: start(options)))
    caller.username = "bob"
    caller.login()
    answer = caller.client.get(back)
    assert (answer.status_code, caller.user["sub"]) == (400, "auth0|bob")
    assert "another_user" in answer.text
    back = caller.confirm(caller.ask(lambda: start(options)), "deny")
    assert "access_denied" in caller.client.get(back).text


def test_an_account_that_is_linked_brings_no_replaced_refresh_token_back(
    caller: Caller, shop: Flask, tenant: Tenant, clock: Clock
) -> None:
    """Where the app's own interface writes all of its session anew."""
    shop.session_interface = type("Theirs", (SecureCookieSessionInterface,), {})()
    caller.login()
    link = partial(auth0.start_link_user, {"connection": "github"})
    back = caller.confirm(caller.ask(link))
    twin, token = Caller(shop, tenant), partial(auth0.get_access_token, audience="x")
    twin.client = caller.twin().client

    async def callback() -> str:
        await auth0.complete_interactive_login(request.url)
        await asyncio.to_thread(twin.ask, token)  # another tab, at the same moment
        return "linked"

    shop.view_functions["auth0.callback"] = callback
    assert caller.client.get(back).text == "linked"
    clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert caller.ask(partial(auth0.get_access_token, audience="https://b.example/"))
    assert tenant.reuse_detected == 0


@pytest.mark.sdk("start_connect_account", "list_connected_accounts")
@pytest.mark.sdk("delete_connected_account", "complete_interactive_login")
@pytest.mark.parametrize("cookies", ["ours", "theirs"])
def test_accounts_are_connected_listed_and_taken_away_within_one_cookie(
    cookies: str, caller: Caller, shop: Flask, tenant: Tenant
) -> None:
    if cookies == "theirs":
        shop.session_interface = type("Theirs", (SecureCookieSessionInterface,), {})()
    google = types.ConnectAccountOptions(connection="google-oauth2")
    google.app_state = {"return_to": "/cart"}
    caller.login()
    for _ in range(2):
        back = caller.confirm(caller.ask(lambda: auth0.start_connect_account(google)))
        twin = caller.twin()
        assert caller.client.get(back).location == "/cart"
        assert twin.client.get(back).location == "/cart"  # at the same moment
        assert caller.client.get(back).location == "/"  # later: it is used up
        (account,) = caller.ask(auth0.list_connected_accounts).accounts
        caller.ask(partial(auth0.delete_connected_account, account.id))
        assert tenant.accounts("alice") == []
    kept = [tokens["audience"] for tokens in caller.session["token_sets"]]
    assert kept == ["default", tenant.my_account]
    (cookie,) = (caller.client._cookies or {}).values()
    assert len(cookie.value) < 4000


@pytest.mark.sdk("complete_connect_account")
def test_an_account_is_connected_when_auth0_answers_and_by_its_own_transaction(
    caller: Caller, tenant: Tenant
) -> None:
    caller.login()
    google = types.ConnectAccountOptions(connection="google-oauth2", app_state="kept")
    back = caller.confirm(caller.ask(lambda: auth0.start_connect_account(google)))
    caller.ask(auth0.list_connected_accounts)  # whose token takes that one's place
    begun = parse_qs(urlsplit(caller.start()).query)["state"][0]

    wrong = f"/callback?connect_code=x&state={begun}"  # that of a login
    for path in (wrong, back.replace("connect_code", "code")):
        answer = caller.client.get(path)
        assert (answer.status_code, "incomplete_callback" in answer.text) == (400, True)
    tenant.fail("token", Fault.status(503))
    assert caller.client.get(back).status_code == 502
    url = f"http://localhost{back}"
    done = caller.ask(lambda: auth0.complete_connect_account(url))
    assert (done.connection, done.app_state) == ("google-oauth2", "kept")
    assert tenant.accounts("alice") == ["google-oauth2"]
    assert caller.client.get(back).location == "/"  # it is used up


@pytest.mark.sdk("get_access_token", "get_access_token_for_connection")
def test_a_session_with_tokens_of_many_apis_keeps_the_newest(
    caller: Caller, tenant: Tenant
) -> None:
    caller.login()
    apis = [f"https://{number}.example/" for number in range(16)]
    for api in apis:
        caller.ask(partial(auth0.get_access_token, audience=api))
    caller.ask(partial(auth0.get_access_token, None, apis[-1], "openid read"))

    kept = [tokens["audience"] for tokens in caller.session["token_sets"]]
    assert 4 < len(kept) < 16
    assert kept == apis[-len(kept) :]
    assert "id_token" in caller.session
    caller.ask(auth0.get_access_token)  # it is asked for anew
    github = {"connection": "github"}
    assert "github" in caller.ask(lambda: auth0.get_access_token_for_connection(github))


async def wrong_code(caller: Caller) -> None:
    await auth0.passwordless.verify(proof("alice@example.com", "x"))


async def unknown_passkey(caller: Caller) -> None:
    caller.passkeys["alice"] = Passkey()
    await caller.by_passkey("alice")


async def wrong_factor(caller: Caller, **shown: str) -> None:
    caller.tenant.require_mfa = True
    caller.tenant.enroll("alice")
    try:
        await caller.by_code("alice")
    except sdk.MfaRequiredError as error:
        await auth0.mfa.verify({"mfa_token": error.mfa_token, "otp": "x", **shown})


def fails(error: str) -> Callable[[Caller], Awaitable[Any]]:
    async def work(caller: Caller) -> None:
        caller.tenant.fail("token", Fault.body({"error": error}, status=400))
        await caller.by_code("alice")

    return work


async def declined(caller: Caller) -> None:
    caller.tenant.approve_backchannel("bob", allow=False)
    await auth0.login_backchannel(hint("bob"))


async def without_its_scope(caller: Caller) -> None:
    caller.tenant.my_account_scopes.clear()
    await auth0.list_connected_accounts()


async def unknown_api(caller: Caller) -> None:
    caller.tenant.audiences = {"known"}
    await auth0.get_access_token(audience="unknown")


def a(name: str, *args: Any, **options: Any) -> Callable[[Caller], Awaitable[Any]]:
    """Call a method of the client."""
    return lambda caller: getattr(auth0, name)(*args, **options)


OF_GITHUB, OF_NOBODY = {"connection": "github"}, {"connection": "nobody's"}
EXCHANGE = a("login_with_custom_token_exchange", exchange("unknown"))
MADE_UP = partial(wrong_factor, mfa_token="x")
TAKE_NONE = a("list_connected_accounts", take=0)
NO_ID = a("delete_connected_account", "")
AT_GITHUB = a("get_access_token_for_connection", OF_GITHUB)
AT_NOBODYS = a("get_access_token_for_connection", OF_NOBODY)
NotMailed, NotShared = sdk.PasswordlessVerifyError, sdk.AccessTokenForConnectionError
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "wrong code": (wrong_code, NotMailed, "passwordless_refused"),
    "denied": (fails("access_denied"), NotMailed, "passwordless_refused"),
    "no client": (fails("invalid_client"), NotMailed, "client_refused"),
    "not ours": (fails("unauthorized_client"), NotMailed, "client_refused"),
    "down": (fails("server_error"), NotMailed, "invalid_response"),
    "unknown passkey": (unknown_passkey, sdk.PasskeyError, "passkey_refused"),
    "wrong factor": (wrong_factor, sdk.MfaVerifyError, "mfa_refused"),
    "made-up mfa_token": (MADE_UP, sdk.MfaTokenInvalidError, "mfa_refused"),
    "declined": (declined, sdk.ApiError, "login_refused"),
    "unknown user": (a("login_backchannel", hint("x")), sdk.ApiError, "login_refused"),
    "unknown token": (EXCHANGE, sdk.CustomTokenExchangeError, "exchange_refused"),
    "a guest links": (a("start_link_user", {}), sdk.StartLinkUserError, "signed_out"),
    "a guest shares": (AT_GITHUB, NotShared, "signed_out"),
    "no scope": (without_its_scope, sdk.MyAccountApiError, "my_account_refused"),
    "unknown api": (unknown_api, sdk.AccessTokenError, "token_refused"),
    "unknown connection": (AT_NOBODYS, NotShared, "token_refused"),
    "none to take": (TAKE_NONE, sdk.InvalidArgumentError, "request_refused"),
    "no id": (NO_ID, sdk.MissingRequiredArgumentError, "incomplete_callback"),
}
#: What the app or Auth0 does wrong is no refusal.
FAULTS = {"client_refused": 500, "invalid_response": 502}
BY_A_USER = ("no scope", "unknown api", "unknown connection", "none to take", "no id")


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_reaches_the_app_by_the_sdks_type_and_visitors_as_a_page(
    case: str, caller: Caller
) -> None:
    if case in BY_A_USER:
        caller.login()
    work, kind, code = REFUSED[case]

    answer = caller.call(lambda: work(caller))

    assert type(caller.raised) is kind
    least = FAULTS.get(code, 400)
    assert least <= answer.status_code < max(least + 1, 500), answer.text
    assert code in answer.text
    assert bool(caller.user) == (case in BY_A_USER)
