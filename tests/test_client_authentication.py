"""The app proves who it is, by secret or by key, and pushes what it asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flask import Flask

from auth0_flask.tenant import Tenant
from servers import free_port, serving
from test_tokens import API, OFFLINE, WITH_TOKENS, refresh_token_of
from visitor import Visitor

Visitors = Callable[..., Visitor]


def key_pair() -> tuple[str, str]:
    """Make a private and a public key (PEM)."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return private, public.decode()


@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize("by_key", [False, True])
async def test_a_whole_login_refresh_and_logout(
    tenant: Tenant, visitors: Visitors, app: Flask, by_key: bool, pushed: bool
) -> None:
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    if by_key:
        private, tenant.client_public_key = key_pair()
        environment.pop("AUTH0_CLIENT_SECRET")
        environment["AUTH0_CLIENT_ASSERTION_SIGNING_KEY"] = private
    if pushed:
        tenant.require_pushed_authorization_requests = True
        environment["AUTH0_PUSHED_AUTHORIZATION_REQUESTS"] = "true"
    with serving(WITH_TOKENS, {**environment, **OFFLINE}, port) as server:
        alice = visitors("alice", at=server.site)

        profile = await alice.login("/profile")
        assert "alice@example.com" in profile.text
        assert (await alice.get(f"/token?audience={API}")).status_code == 200
        assert (await alice.get("/token-of/github")).status_code == 200
        token = refresh_token_of(alice, app)
        assert tenant.directory.refresh_tokens.grant(token)
        await alice.logout()

    assert alice.cookies == {}
    assert tenant.count("/oauth/par") == pushed
    assert tenant.count("/oauth/revoke") == 1
    assert tenant.directory.refresh_tokens.grant(token) is None
