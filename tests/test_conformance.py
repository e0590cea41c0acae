"""The OpenID Foundation's tests of a relying party, told to the local tenant.

Names and expectations come from https://gitlab.com/openid/conformance-suite
(``net.openid.conformance.openid.client``), words and stories are our own. There, a
module plays a provider that does one thing its way and looks whether the client goes
on to userinfo; here the tenant does. `security/conformance.md` has what is left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
from jwt.algorithms import ECAlgorithm

from auth import auth0
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.tenant.backchannel import describe
from auth0_flask.tenant.keys import SigningKey, ec_key, stranger
from shop import copy_of_auth, make_shop
from visitor import Shopper, Visitor, code_of

ACCEPT, REFUSE, EITHER = "accept", "refuse", "accept or refuse"
Story = Callable[..., Awaitable[bool]]


class Row(NamedTuple):
    """A module of the suite, what it expects, and what we do."""

    module: str
    plan: str
    ours: str
    story: Story


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    auth0.verifier.forget()
    yield
    auth0.verifier.forget()  # what a story published is not the tenant's


async def goes_on(alice: Visitor, tenant: Tenant) -> bool:
    """Sign in and ask userinfo, which is where most modules end."""
    page = await alice.login()
    signed_in = await alice.claims() is not None
    told = (200, "") if signed_in else (400, "invalid_token")
    assert (page.status_code, code_of(page)) == told
    answer = await alice.get("/api/userinfo")
    assert answer.status_code == (200 if signed_in else 401)
    return signed_in


async def forged(alice: Visitor, tenant: Tenant, **how: Any) -> bool:
    tenant.forge(**how)
    return await goes_on(alice, tenant)


async def shows(alice: Visitor, tenant: Tenant, path: str, scheme: str) -> bool:
    """Tell whether one request goes there, and authenticates in that way."""
    went_on = await goes_on(alice, tenant)
    seen = [seen.scheme for seen in tenant.requests if seen.path == path]
    return went_on and seen == [scheme]


async def has_claims_of_its_scopes(alice: Visitor, tenant: Tenant) -> bool:
    await goes_on(alice, tenant)
    found: dict[str, Any] = (await alice.get("/api/userinfo")).json()
    return {"name", "email", "email_verified"} <= found.keys()


async def takes_claims_of_another(alice: Visitor, tenant: Tenant) -> bool:
    await alice.login()
    tenant.fail("userinfo", Fault.body({"sub": "auth0|bob"}))
    answer = await alice.get("/api/userinfo")
    if answer.status_code == 200:
        return True
    assert (answer.status_code, answer.json()["code"]) == (502, "invalid_response")
    assert answer.headers["Content-Type"] == "application/problem+json"
    return False


async def publishes(
    alice: Visitor, tenant: Tenant, keys: list[Any], **how: Any
) -> bool:
    """Go on where these keys are published before the one that signs."""
    ours = tenant.keys.current.jwk()
    both = {"keys": [*keys, nameless(ours) if how else ours]}
    tenant.fail("jwks", Fault.body(both), times=2)
    if how:
        tenant.forge(**how)
    return await goes_on(alice, tenant)


def nameless(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in {"kid", "alg"}}


ANOTHER = nameless(SigningKey(stranger(), "").jwk())
ON_A_CURVE = dict(ECAlgorithm.to_jwk(ec_key().public_key(), as_dict=True))
UNUSABLE = [
    {"kty": "AKP", "alg": "ML-DSA-1", "pub": "AAAA", "kid": "later"},
    {"kty": "made up", "kid": "odd"},
    {**ANOTHER, "alg": "RS1024", "kid": "unknown alg"},
    {**ON_A_CURVE, "crv": "P-1", "kid": "unknown curve"},
    {"kty": "RSA", "kid": "neither n nor e"},
]


async def reads_keys_where_discovery_says(alice: Visitor, tenant: Tenant) -> bool:
    document = describe(tenant.issuer, tenant.origin)
    elsewhere = {**document, "jwks_uri": f"{tenant.issuer}api/things"}
    tenant.fail("discovery", Fault.body(elsewhere))
    tenant.fail("api", Fault.body(tenant.keys.jwks()))
    went_on = await goes_on(alice, tenant)
    return went_on and tenant.count("/.well-known/jwks.json") == 0


async def starts_at_another_issuers(alice: Visitor, tenant: Tenant) -> bool:
    document = describe("https://another-tenant.example/", tenant.origin)
    tenant.fail("discovery", Fault.body(document))
    answer = await alice.get("/login")
    assert answer.status_code in {302, 502}
    return answer.status_code == 302


async def keys_rotate(alice: Visitor, tenant: Tenant, during: bool) -> bool:
    assert await goes_on(alice, tenant)  # so they are known before they change
    await alice.logout()
    if not during:
        tenant.rotate_keys()
    page = await alice.start()
    if during:
        tenant.rotate_keys()
    await alice.follow(await alice.choose(page, username="alice"))
    return await alice.claims() is not None


async def logs_out(alice: Visitor, tenant: Tenant, **how: Any) -> bool:
    """Tell whether a logout token ends the session."""
    await alice.login()
    token = tenant.logout_token(sub="auth0|alice", **how)
    url, form = f"{alice.site}/backchannel-logout", {"logout_token": token}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as auth0s:
        answer = await auth0s.post(url, data=form)
    signed_out = await alice.claims() is None
    assert answer.status_code == (200 if signed_out else 400)
    return signed_out


NAME = "oidcc-client-test"
LOGOUT = "-rp-backchannel-rpinitlogout"
OTHER = {"events": {"http://schemas.openid.net/event/another": dict[str, Any]()}}
DISCOVERY = "/.well-known/openid-configuration"
UNNAMED = {"kind": "no_kid"}


def accepts(module: str, story: Story, **how: Any) -> Row:
    return Row(NAME + module, ACCEPT, ACCEPT, partial(story, **how))


def refuses(module: str, story: Story, plan: str = REFUSE, **how: Any) -> Row:
    return Row(NAME + module, plan, REFUSE, partial(story, **how))


BASIC = [
    accepts("", goes_on),
    refuses("-invalid-iss", forged, kind="issuer"),
    refuses("-missing-sub", forged, claims={"sub": None}),
    refuses("-invalid-aud", forged, kind="audience"),
    refuses("-missing-iat", forged, kind="no_iat"),
    accepts("-kid-absent-single-jwks", publishes, keys=[ON_A_CURVE], **UNNAMED),
    refuses("-kid-absent-multiple-jwks", publishes, EITHER, keys=[ANOTHER], **UNNAMED),
    accepts("-idtoken-sig-rs256", goes_on),
    refuses("-idtoken-sig-none", forged, kind="none", plan=EITHER),
    refuses("-invalid-sig-rs256", forged, kind="signature"),
    refuses("-userinfo-invalid-sub", takes_claims_of_another),
    refuses("-nonce-invalid", forged, claims={"nonce": "another"}),
    accepts("-scope-userinfo-claims", has_claims_of_its_scopes),
    accepts("-client-secret-basic", shows, path="/oauth/token", scheme="basic"),
]
CONFIG = [
    accepts("-discovery-openid-config", shows, path=DISCOVERY, scheme=""),
    accepts("-discovery-jwks-uri-keys", reads_keys_where_discovery_says),
    refuses("-discovery-issuer-mismatch", starts_at_another_issuers),
    accepts("-signing-key-rotation-just-before-signing", keys_rotate, during=True),
    accepts("-signing-key-rotation", keys_rotate, during=False),
]
BACK_CHANNEL = [
    accepts(LOGOUT, logs_out),
    refuses(f"{LOGOUT}-alg-none", logs_out, forge="none"),
    refuses(f"{LOGOUT}-no-event", logs_out, claims={"events": None}),
    refuses(f"{LOGOUT}-with-nonce", logs_out, claims={"nonce": "n"}),
    refuses(f"{LOGOUT}-wrong-alg", logs_out, forge="algorithm"),
    refuses(f"{LOGOUT}-wrong-aud", logs_out, forge="audience"),
    refuses(f"{LOGOUT}-wrong-event", logs_out, claims=OTHER),
    refuses(f"{LOGOUT}-wrong-iss", logs_out, forge="issuer"),
]
BEYOND = [
    refuses("-missing-aud", forged, claims={"aud": None}),
    refuses("-invalid-sig-hs256", forged, kind="algorithm"),
    refuses("-invalid-sig-es256", forged, kind="curve"),
    accepts("-ignores-unparseable-key-in-jwks", publishes, keys=UNUSABLE),
    accepts("-userinfo-bearer-header", shows, path="/userinfo", scheme="bearer"),
]


@pytest.mark.parametrize(
    "row", [*BASIC, *CONFIG, *BACK_CHANNEL, *BEYOND], ids=lambda row: row.module
)
async def test_what_the_plan_expects_and_what_we_do(
    row: Row, alice: Visitor, tenant: Tenant
) -> None:
    ours = ACCEPT if await row.story(alice, tenant) else REFUSE

    assert ours == row.ours
    assert ours in row.plan


async def test_a_key_that_cannot_verify_signs_nobody_in(
    alice: Visitor, tenant: Tenant
) -> None:
    for wrong in ({"n": None}, {"n": "AA"}, {"use": "enc"}, {"alg": "RS512"}):
        key = {**tenant.keys.current.jwk(), **wrong}
        published = {name: value for name, value in key.items() if value is not None}
        tenant.fail("jwks", Fault.body({"keys": [published]}), times=2)
        auth0.verifier.forget()
        assert not await goes_on(alice, tenant), wrong
        tenant.clear_faults()


def test_a_pushed_request_carries_no_nonce(tenant: Tenant) -> None:
    """The SDK takes none from us there; PKCE binds the ID token to the login."""
    auth = copy_of_auth({"AUTH0_PUSHED_AUTHORIZATION_REQUESTS": "true"})
    shopper = Shopper(make_shop(auth))
    tenant.forge(claims={"nonce": "another"})

    shopper.login()

    assert shopper.user["sub"] == "auth0|alice"
    assert tenant.count("/oauth/par") == 1


async def test_clocks_too_far_apart_are_told_by_how_much_and_whose(
    alice: Visitor, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    for offset, told in ((3600, "ahead of"), (-39_600, "behind")):
        tenant.clock_offset = offset
        began = time.monotonic()
        page = await alice.login()
        assert (page.status_code, code_of(page)) == (500, "clocks_differ")
        sentence = rf"Auth0(?:'|&#39;)s clock is (\d+) seconds {told} this server"
        [seconds] = re.findall(sentence, page.text)
        assert abs(int(seconds) - abs(offset)) <= 2 + time.monotonic() - began
        line = [r.getMessage() for r in caplog.records if "failed:" in r.msg][-1]
        assert re.search(rf"clocks_differ.*{sentence}", line)
    tenant.clock_offset = 0
    await alice.login()
    assert await alice.claims()
