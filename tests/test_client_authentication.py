"""The app proves who it is, by secret or by key, and pushes what it asks for."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from auth0_flask.tenant import Tenant
from conftest import SITE
from shop import copy_of_auth, make_shop
from visitor import Shopper

SPKI = PublicFormat.SubjectPublicKeyInfo


@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize("by_key", [False, True])
def test_a_whole_login_refresh_and_logout(
    tenant: Tenant, by_key: bool, pushed: bool
) -> None:
    environment = tenant.environ(f"{SITE}/callback")
    if by_key:
        key = generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, SPKI)
        tenant.client_public_key = public.decode()
        environment["AUTH0_CLIENT_SECRET"] = ""
        environment["AUTH0_CLIENT_ASSERTION_SIGNING_KEY"] = private.decode()
    if pushed:
        tenant.require_pushed_authorization_requests = True
        environment["AUTH0_PUSHED_AUTHORIZATION_REQUESTS"] = "true"
    auth = copy_of_auth(environment)
    shop, auth0 = make_shop(auth), auth.auth0

    async def tokens() -> list[str]:
        found = await auth0.get_access_token(audience="https://api.tenant.example/")
        github = {"connection": "github"}
        await auth0.get_access_token_for_connection(github)
        return [found, auth0.read_session()["refresh_token"]]

    shop.add_url_rule("/tokens", view_func=tokens)
    alice = Shopper(shop)
    assert alice.login("/login?return_to=/tokens").location == "/tokens"
    _, token = alice.client.get("/tokens").json or []
    assert tenant.directory.refresh_tokens.grant(token)
    alice.client.get("/logout")

    assert not alice.client._cookies
    assert tenant.count("/oauth/par") == pushed
    assert tenant.count("/oauth/revoke") == 1
    assert tenant.directory.refresh_tokens.grant(token) is None
