"""The OpenID Foundation's tests of a relying party, told to the local tenant.

The names and what is expected come from the conformance suite
(https://gitlab.com/openid/conformance-suite, ``net.openid.conformance.openid.client``),
the words and the stories are our own. There, a module plays a provider that does
one thing its way and looks whether the client goes on to userinfo; here the tenant
does, and a row says what the plan expects, what we do and, where the two differ, why.

- Basic: all of ``oidcc-client-basic-certification-test-plan``.
- Config: all of ``oidcc-client-config-certification-test-plan``.
- Back-channel logout: all of ``oidcc-client-back-channel-logout-rp-basic``.
- Beyond certification: of ``oidcc-client-test-plan`` and
  ``oidcc-client-refreshtoken-test-plan`` what applies to the code flow.

Left out is what the SDK does not do: the implicit and hybrid flows, ``form_post``,
WebFinger, registration and request objects, and RP-initiated logout, in whose
place it uses Auth0's own ``/v2/logout``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from auth0_server_python.auth_types import StartInteractiveLoginOptions
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from jwt.algorithms import ECAlgorithm

from auth import LoginError, auth0
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.tenant.backchannel import describe
from auth0_flask.tenant.keys import SigningKey, stranger
from sdk_calls import Caller
from shop import copy_of_auth
from visitor import Visitor, code_of, http_browser, sign_in

ACCEPT, REFUSE, EITHER = "accept", "refuse", "accept or refuse"


@dataclass(frozen=True)
class World:
    """Whom a story is about."""

    alice: Visitor
    tenant: Tenant


Story = Callable[[World], Awaitable[bool]]


@dataclass(frozen=True)
class Row:
    """A module of the suite: what it expects, what we do, and why if they differ."""

    module: str
    plan: str
    ours: str
    story: Story
    why: str = ""


@pytest.fixture(autouse=True)
def _nothing_known(nothing_discovered: None) -> Iterator[None]:
    yield
    auth0.verifier.forget()  # what a story published is not the tenant's


async def goes_on(world: World) -> bool:
    """Sign in and ask userinfo, which is where most modules end."""
    page = await world.alice.login()
    signed_in = await world.alice.claims() is not None
    told = (200, "") if signed_in else (400, "invalid_token")
    assert (page.status_code, code_of(page)) == told
    answer = await world.alice.get("/api/userinfo")
    assert answer.status_code == (200 if signed_in else 401)
    return signed_in


async def forged(world: World, kind: str | None = None, **claims: Any) -> bool:
    world.tenant.forge(kind, claims=claims)
    return await goes_on(world)


async def shows(world: World, path: str, scheme: str) -> bool:
    """Tell whether a request authenticates in that way (RFC 9110 section 11.1)."""
    went_on = await goes_on(world)
    seen = [seen.scheme for seen in world.tenant.requests if seen.path == path]
    return went_on and seen == [scheme]


async def has_claims_of_its_scopes(world: World) -> bool:
    await goes_on(world)
    found: dict[str, Any] = (await world.alice.get("/api/userinfo")).json()
    return {"name", "email", "email_verified"} <= found.keys()


async def userinfo(world: World, **claims: Any) -> bool:
    """Tell whether an answer of userinfo is taken."""
    await world.alice.login()
    world.tenant.fail("userinfo", Fault.body({"sub": "auth0|alice", **claims}))
    answer = await world.alice.get("/api/userinfo")
    if answer.status_code == 200:
        return claims.items() <= dict(answer.json()).items()
    assert (answer.status_code, answer.json()["code"]) == (502, "invalid_response")
    assert answer.headers["Content-Type"] == "application/problem+json"
    return False


async def asks_where_claims_are(world: World) -> bool:
    """Tell whether distributed claims are fetched (Core section 5.6.2)."""
    source = {"endpoint": f"{world.tenant.issuer}api/things", "access_token": "x"}
    claims = {"_claim_names": {"age": "a"}, "_claim_sources": {"a": source}}
    assert await userinfo(world, **claims)
    return world.tenant.count("/api/things") > 0


async def published(
    world: World, *keys: dict[str, Any], kid: bool = True, forge: str | None = None
) -> bool:
    """Go on where these keys are published before the one that signs."""
    ours = world.tenant.keys.current.jwk()
    both = [*keys, ours if kid else nameless(ours)]
    world.tenant.fail("jwks", Fault.body({"keys": both}), times=2)
    if forge:
        world.tenant.forge(forge)
    return await goes_on(world)


async def unnamed(world: World, key: dict[str, Any]) -> bool:
    """Go on where neither the keys published nor the ID token name one."""
    return await published(world, nameless(key), kid=False, forge="no_kid")


def nameless(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in {"kid", "alg"}}


def on_a_curve(**more: str) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {**ECAlgorithm.to_jwk(key, as_dict=True), **more}


def another() -> dict[str, Any]:
    return nameless(SigningKey(stranger(), "").jwk())


UNUSABLE: list[dict[str, Any]] = [
    {"kty": "AKP", "alg": "ML-DSA-1", "pub": "AAAA", "kid": "later"},
    {"kty": "made up", "kid": "odd"},
    {**another(), "alg": "RS1024", "kid": "unknown alg"},
    on_a_curve(crv="P-1", kid="unknown curve"),
    {"kty": "RSA", "kid": "neither n nor e"},
]


async def reads_discovery(world: World) -> bool:
    went_on = await goes_on(world)
    return went_on and world.tenant.count("/.well-known/openid-configuration") == 1


async def reads_keys_where_discovery_says(world: World) -> bool:
    tenant = world.tenant
    elsewhere = {"jwks_uri": f"{tenant.issuer}api/things"}
    tenant.fail(
        "discovery", Fault.body(describe(tenant.issuer, tenant.origin) | elsewhere)
    )
    tenant.fail("api", Fault.body(tenant.keys.jwks()))
    went_on = await goes_on(world)
    return went_on and tenant.count("/.well-known/jwks.json") == 0


async def starts_at_another_issuers(world: World) -> bool:
    tenant = world.tenant
    document = describe("https://another-tenant.example/", tenant.origin)
    tenant.fail("discovery", Fault.body(document))
    answer = await world.alice.get("/login")
    assert answer.status_code in {302, 502}
    return answer.status_code == 302


async def keys_rotate_before_signing(world: World) -> bool:
    await auth0.verifier.jwks()  # known before they change
    page = await world.alice.start()
    world.tenant.rotate_keys()
    await world.alice.follow(await world.alice.choose(page, username="alice"))
    return await world.alice.claims() is not None


async def keys_rotate_between_logins(world: World) -> bool:
    assert await goes_on(world)
    await world.alice.logout()
    world.tenant.rotate_keys()
    return await goes_on(world)


async def logs_out(world: World, forge: str | None = None, **claims: Any) -> bool:
    """Tell whether a logout token ends the session."""
    await world.alice.login()
    token = world.tenant.logout_token(sub="auth0|alice", forge=forge, claims=claims)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as auth0s:
        url = f"{world.alice.site}/backchannel-logout"
        answer = await auth0s.post(url, data={"logout_token": token})
    signed_out = await world.alice.claims() is None
    assert answer.status_code == (200 if signed_out else 400)
    return signed_out


async def refreshes(world: World, kind: str | None = None, **claims: Any) -> bool:
    """Tell whether the access token of a refresh is used."""
    world.tenant.access_token_lifetime = 0
    await world.alice.login()
    world.tenant.access_token_lifetime = 3600
    if kind or claims:
        world.tenant.forge(kind, claims={"name": "Mallory", **claims})
    answer = await world.alice.get("/api/userinfo")
    assert world.tenant.count("/oauth/token") == 2
    claims_now = await world.alice.claims() or {}
    assert (claims_now["sub"], claims_now["name"]) == ("auth0|alice", "Alice")
    return answer.status_code == 200


NAME = "oidcc-client-test"
LOGOUT = f"{NAME}-rp-backchannel-rpinitlogout"
OTHER_EVENT: dict[str, Any] = {"http://schemas.openid.net/event/another": {}}
AGGREGATED: dict[str, Any] = {"_claim_sources": {"a": {"JWT": "x"}}}


def accepts(module: str, story: Story) -> Row:
    return Row(NAME + module, ACCEPT, ACCEPT, story)


def refuses(module: str, story: Story, *, plan: str = REFUSE) -> Row:
    return Row(NAME + module, plan, REFUSE, story)


def refuses_logout(module: str, **wrong: Any) -> Row:
    return Row(LOGOUT + module, REFUSE, REFUSE, partial(logs_out, **wrong))


BASIC = [
    accepts("", goes_on),
    refuses("-invalid-iss", partial(forged, kind="issuer")),
    refuses("-missing-sub", partial(forged, sub=None)),
    refuses("-invalid-aud", partial(forged, kind="audience")),
    refuses("-missing-iat", partial(forged, kind="no_iat")),
    accepts("-kid-absent-single-jwks", lambda w: unnamed(w, on_a_curve())),
    refuses("-kid-absent-multiple-jwks", lambda w: unnamed(w, another()), plan=EITHER),
    accepts("-idtoken-sig-rs256", goes_on),
    refuses("-idtoken-sig-none", partial(forged, kind="none"), plan=EITHER),
    refuses("-invalid-sig-rs256", partial(forged, kind="signature")),
    refuses("-userinfo-invalid-sub", partial(userinfo, sub="auth0|bob")),
    refuses("-nonce-invalid", partial(forged, nonce="another")),
    accepts("-scope-userinfo-claims", has_claims_of_its_scopes),
    accepts("-client-secret-basic", lambda w: shows(w, "/oauth/token", "basic")),
]
CONFIG = [
    accepts("-discovery-openid-config", reads_discovery),
    accepts("-discovery-jwks-uri-keys", reads_keys_where_discovery_says),
    refuses("-discovery-issuer-mismatch", starts_at_another_issuers),
    accepts("-signing-key-rotation-just-before-signing", keys_rotate_before_signing),
    accepts("-signing-key-rotation", keys_rotate_between_logins),
]
BACK_CHANNEL = [
    accepts("-rp-backchannel-rpinitlogout", logs_out),
    refuses_logout("-alg-none", forge="none"),
    refuses_logout("-no-event", events=None),
    refuses_logout("-with-nonce", nonce="n"),
    refuses_logout("-wrong-alg", forge="algorithm"),
    refuses_logout("-wrong-aud", forge="audience"),
    refuses_logout("-wrong-event", events=OTHER_EVENT),
    refuses_logout("-wrong-iss", forge="issuer"),
]
BEYOND = [
    refuses("-missing-aud", partial(forged, aud=None)),
    refuses("-invalid-sig-hs256", partial(forged, kind="algorithm")),
    refuses("-invalid-sig-es256", partial(forged, kind="curve")),
    accepts("-ignores-unparseable-key-in-jwks", lambda w: published(w, *UNUSABLE)),
    accepts("-userinfo-bearer-header", lambda w: shows(w, "/userinfo", "bearer")),
    accepts("-aggregated-claims", partial(userinfo, **AGGREGATED)),
    Row(
        f"{NAME}-distributed-claims",
        *(ACCEPT, REFUSE, asks_where_claims_are),
        "they are not fetched; Auth0 sends none, and Core section 5.6 makes them "
        "optional",
    ),
    accepts("-refresh-token", refreshes),
    Row(
        f"{NAME}-refresh-token-invalid-issuer",
        *(REFUSE, ACCEPT, partial(refreshes, kind="issuer")),
        "the ID token is rejected and nobody's claims change; the access token "
        "beside it came from Auth0 over TLS and is used",
    ),
    refuses("-refresh-token-invalid-sub", partial(refreshes, sub="auth0|bob")),
]


@pytest.mark.parametrize(
    "row", [*BASIC, *CONFIG, *BACK_CHANNEL, *BEYOND], ids=lambda row: row.module
)
async def test_what_the_plan_expects_and_what_we_do(
    row: Row, alice: Visitor, tenant: Tenant
) -> None:
    ours = ACCEPT if await row.story(World(alice, tenant)) else REFUSE

    assert ours == row.ours
    assert (ours in row.plan) == (not row.why)


@pytest.mark.parametrize(
    "wrong", [{"n": None}, {"n": "AA"}, {"use": "enc"}, {"alg": "RS512"}], ids=str
)
async def test_a_key_that_cannot_verify_signs_nobody_in(
    alice: Visitor, tenant: Tenant, wrong: dict[str, str | None]
) -> None:
    key = {**tenant.keys.current.jwk(), **wrong}
    published = {name: value for name, value in key.items() if value is not None}
    tenant.fail("jwks", Fault.body({"keys": [published]}), times=2)

    assert not await goes_on(World(alice, tenant))


def log_in(caller: Caller, app_state: object = None) -> None:
    """Sign in without the app's routes."""
    options = StartInteractiveLoginOptions(app_state=app_state)
    url = caller.ask(lambda: caller.auth0.start_interactive_login(options))
    with http_browser() as http:
        back = sign_in(http, url, "alice")
    caller.call(lambda: caller.auth0.complete_interactive_login(back))


@pytest.mark.parametrize("app_state", [None, {}, {"return_to": "/x"}, "x"], ids=repr)
def test_what_an_app_keeps_with_a_login_comes_back_also_when_that_fails(
    caller: Caller, tenant: Tenant, app_state: object
) -> None:
    tenant.forge("signature")
    log_in(caller, app_state)
    assert isinstance(caller.raised, LoginError)
    assert (caller.raised.app_state or None) == (app_state or None)
    log_in(caller, app_state)

    assert caller.found.get("app_state") == (app_state or None)


def test_a_pushed_request_carries_no_nonce(shop: Flask, tenant: Tenant) -> None:
    """The SDK takes none from us there; PKCE binds the ID token to the login."""
    pushed = {"AUTH0_PUSHED_AUTHORIZATION_REQUESTS": "true"}
    caller = Caller(shop, tenant, copy_of_auth(pushed).auth0)
    tenant.forge(claims={"nonce": "another"})

    log_in(caller)

    assert caller.found["state_data"]["user"]["sub"] == "auth0|alice"
    assert tenant.count("/oauth/par") == 1


@pytest.mark.parametrize(("offset", "told"), [(3600, "ahead of"), (-39_600, "behind")])
async def test_clocks_too_far_apart_are_told_by_how_much_and_whose(
    alice: Visitor,
    tenant: Tenant,
    offset: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tenant.clock_offset = offset
    began = time.monotonic()

    page = await alice.login()

    assert (page.status_code, code_of(page)) == (500, "clocks_differ")
    sentence = rf"Auth0(?:'|&#39;)s clock is (\d+) seconds {told} this server"
    shown = re.search(sentence, page.text)
    assert shown
    assert abs(int(shown[1]) - abs(offset)) <= 2 + time.monotonic() - began
    (line,) = [seen.getMessage() for seen in caplog.records if "failed:" in seen.msg]
    assert "clocks_differ" in line
    assert re.search(sentence, line)
    tenant.clock_offset = 0
    await alice.login()
    assert await alice.claims()
