"""HTTP to Auth0; discovery and keys; what makes an ID or logout token valid."""

from __future__ import annotations

import asyncio
import atexit
import hmac
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from ssl import SSLContext
from threading import Thread, get_native_id
from typing import Any, cast
from urllib.request import getproxies

import httpx
import jwt
from auth0_server_python.auth_types import UserClaims
from auth0_server_python.error import ApiError, BackchannelLogoutError
from authlib.integrations.base_client.errors import OAuthError
from authlib.oauth2.client import OAuth2Client
from pydantic import ValidationError

from .errors import ClocksDiffer
from .settings import Settings
from .stores.cookies import CLOCK_TOLERANCE

#: Bytes of an answer; seconds for all of it, and for one address of a host.
_MAX_BYTES, _SECONDS, _CONNECT_SECONDS = 1_000_000, 8.0, 3.0
#: Idle connections are closed before the other side does so.
_LIMITS = httpx.Limits(max_keepalive_connections=20, keepalive_expiry=20.0)
#: Native ids of threads, the newest ones.
_ended: deque[int] = deque(maxlen=32)
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: Seconds that discovery and keys are used before they are fetched again.
_CACHE_SECONDS = 600
#: Times a minute that keys are fetched for a token whose key is unknown.
_MAX_REFETCHES = 30
#: Seconds that a clock may be wrong by at most; what is older is simply old.
_MAX_CLOCK_ERROR = 86_400
#: Seconds that a logout token may be on its way.
_LOGOUT_TOKEN_SECONDS = 120

#: What `acr_values` asks Auth0 for a second factor, and ``acr`` says of one.
MFA = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"

#: Where it is set, JSON objects that endpoints for tokens answered are collected.
token_responses: ContextVar[list[dict[str, Any]] | None] = ContextVar(
    "token_responses", default=None
)


def http_options() -> dict[str, Any]:
    """Return the options for every ``httpx.AsyncClient`` that talks to Auth0."""
    options = {
        "verify": _tls_context(),
        "headers": {"Accept-Encoding": "identity"},  # what is as long as it looks
        "event_hooks": {"response": [_check]},
    }
    if {"https", "all"} & getproxies().keys():
        return options  # which httpx uses only where it is given no transport
    return {**options, "transport": _KeptConnections()}


class ThreadOfOpenSSL(Thread):
    """A thread that a fork waits for until nothing of it is left, once it has ended.

    After its last Python code it frees what OpenSSL kept for it, under a lock that a
    child forked at that moment would never get.
    """

    def run(self) -> None:
        """See `threading.Thread.run`."""
        try:
            super().run()
        finally:
            _ended.append(get_native_id())


def _before_fork() -> None:
    give_up = time.monotonic() + 1
    for number in tuple(_ended):
        while os.path.exists(f"/proc/self/task/{number}"):  # on Linux
            if time.monotonic() > give_up:
                return
            time.sleep(0.001)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


class _KeptConnections(httpx.AsyncBaseTransport):
    """Sends requests over connections that outlive an event loop, from threads.

    One that the other side has closed is noticed before it is used. A request goes out
    once: where its answer is lost, that is an outage.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        # addresses are tried one after another, where browsers try them side by side
        waits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {**waits, "connect": _CONNECT_SECONDS}
        answer: Future[httpx.Response] = Future()
        answer.set_running_or_notify_cancel()  # whoever waits may be cancelled
        ThreadOfOpenSSL(target=_send, args=(request, answer), daemon=True).start()
        try:
            async with asyncio.timeout(_SECONDS):  # nothing ends a look-up of a name
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise httpx.ConnectTimeout("there is no answer") from None


def _send(request: httpx.Request, answer: Future[httpx.Response]) -> None:
    try:
        give_up, body = time.monotonic() + _SECONDS, bytearray()
        with closing(_pool(os.getpid()).handle_request(request)) as got:
            for chunk in cast(httpx.SyncByteStream, got.stream):
                body += chunk
                if len(body) > _MAX_BYTES or time.monotonic() > give_up:
                    raise httpx.ReadError("the answer does not come to an end")
        whole, headers = httpx.ByteStream(bytes(body)), got.headers
        response = httpx.Response(got.status_code, headers=headers, stream=whole)
        answer.set_result(response)
    except BaseException as error:
        answer.set_exception(error)


@lru_cache(maxsize=1)
def _pool(process: int) -> httpx.HTTPTransport:
    """Make the connections of a process; those of its parent a child leaves alone."""
    pool = httpx.HTTPTransport(verify=_tls_context(), limits=_LIMITS)

    @atexit.register
    def close() -> None:
        if process == os.getpid():
            pool.close()

    return pool


@lru_cache(maxsize=1)
def _tls_context() -> SSLContext:
    """Make the TLS context of this process once; it takes 20 milliseconds."""
    return httpx.create_ssl_context()


async def _check(response: httpx.Response) -> None:
    """Limit the size of an answer; raise where it is an outage, whatever its body."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx.ReadError("the response is compressed, which was not requested")
    stream, body = cast(httpx.AsyncByteStream, response.stream), bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > _MAX_BYTES:
            raise httpx.ReadError("the response is larger than 1 MB")
    await stream.aclose()
    response.stream = httpx.ByteStream(bytes(body))
    if response.status_code == 429 or response.status_code >= 500:
        response.raise_for_status()
    if (collected := token_responses.get()) is not None:
        with suppress(ValueError):
            found = json.loads(body)
            if response.status_code == 200 and isinstance(found, dict):
                collected.append(found)


class HttpxOAuthClient(OAuth2Client):
    """Authlib's client over httpx, also where Authlib itself would take httpx2.

    Its ``session`` opens an ``httpx.AsyncClient``.
    """

    oauth_error_class = OAuthError  # type: ignore[assignment]  # as Authlib's own do

    async def _fetch_token(  # type: ignore[override]  # likewise
        self, url: str, body: str, headers: dict[str, str], auth: Any, method: str
    ) -> dict[str, Any]:
        url, headers, body = auth.prepare(method, url, headers, body)
        async with self.session() as http:
            response = await http.post(url, content=body, headers=headers)
        return dict(self.parse_response_token(response))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Discovery:
    """What was discovered; it is swapped as a whole, so threads see one state."""

    metadata: dict[str, Any]
    jwks: dict[str, Any] | None
    expires_at: float


class Verifier:
    """Discovers a tenant and verifies what it has signed."""

    def __init__(
        self, settings: Settings, open_client: Callable[[], httpx.AsyncClient]
    ) -> None:
        self._domain, self._client_id = settings.domain, settings.client_id
        self._open_client = open_client
        self._found: _Discovery | None = None
        self._refetched_at: deque[float] = deque(maxlen=_MAX_REFETCHES)

    async def metadata(self) -> dict[str, Any]:
        """Return the discovery document (OpenID Connect Discovery section 4).

        That of another issuer is an `ApiError`: nothing may be sent to where it says.
        """
        return (await self._discovered()).metadata

    async def jwks(self) -> dict[str, Any]:
        """Return the keys of the tenant (RFC 7517 section 5)."""
        found = await self._discovered()
        if found.jwks is None:
            url = found.metadata.get("jwks_uri")
            if not isinstance(url, str):
                raise ApiError("missing_jwks_uri", "discovery names no jwks_uri")
            try:
                jwks = await self._fetch(url)
            except httpx.HTTPError as error:
                raise ApiError("jwks_fetch_error", "no keys", error) from error
            found = self._found = replace(found, jwks=jwks)
        return found.jwks or {}

    def forget(self) -> None:
        """Discover anew next time: what is wrong there is not kept for ten minutes."""
        self._found = None

    async def verify(self, token: str) -> dict[str, Any]:
        """Verify an ID token or logout token, and return its claims.

        OpenID Connect Core section 3.1.3.7, but for the nonce (step 11) and
        ``auth_time`` (step 13), which are for the caller. ``iat`` is required, and
        clocks may differ by a minute.

        Raises:
            jwt.InvalidTokenError: It is not valid.
            ClocksDiffer: It would be, if the clocks agreed.
            ApiError: Discovery or keys cannot be had.
        """
        claims = _decode(token, await self._key_of(token), self._client_id)
        if not self._is_our_issuer(claims["iss"]):
            raise jwt.InvalidIssuerError("issued by another domain than AUTH0_DOMAIN")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self._client_id) != self._client_id:
            raise jwt.InvalidAudienceError("issued to another client")
        return claims

    async def verify_logout_token(self, token: str) -> dict[str, Any]:
        """Verify a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.6).

        The steps have the specification's numbers; 2 to 4 are those of `verify`.
        Encryption (1) is not in use; whether a ``jti`` was seen (8) is for the store.
        """
        typ = jwt.get_unverified_header(token).get("typ")
        if typ is not None and str(typ).lower() != "logout+jwt":
            raise BackchannelLogoutError("The token has another typ.")
        claims = await self.verify(token)
        if time.time() - claims["iat"] > _LOGOUT_TOKEN_SECONDS:  # 4
            raise BackchannelLogoutError("The token is older than two minutes.")
        named = claims.get("sub"), claims.get("sid")
        if not any(named) or not all(isinstance(n, str | None) for n in named):  # 5
            raise BackchannelLogoutError("The token names neither a sub nor a sid.")
        events, jti = claims.get("events"), claims.get("jti")
        event = events.get(_LOGOUT_EVENT) if isinstance(events, dict) else None
        if not isinstance(event, dict):  # 6
            raise BackchannelLogoutError("The token has no logout event.")
        if "nonce" in claims:  # 7
            raise BackchannelLogoutError("The token has a nonce, so it is an ID token.")
        if not isinstance(jti, str) or not jti:  # 8
            raise BackchannelLogoutError("The token has no jti.")
        return claims

    async def _discovered(self) -> _Discovery:
        found = self._found
        if found is None or found.expires_at <= time.monotonic():
            url = f"https://{self._domain}/.well-known/openid-configuration"
            metadata = await self._fetch(url)
            if not self._is_our_issuer(metadata.get("issuer")):
                raise ApiError(
                    "metadata_error", "the discovery document has another issuer"
                )
            expires_at = time.monotonic() + _CACHE_SECONDS
            found = self._found = _Discovery(metadata, None, expires_at)
        return found

    async def _fetch(self, url: str) -> dict[str, Any]:
        async with self._open_client() as client:
            response = await client.get(url)
        found: Any = response.raise_for_status().content
        with suppress(ValueError):  # the SDK takes one for a key that is not there
            found = json.loads(found)
        if not isinstance(found, dict):
            raise ApiError("metadata_error", "the response is not a JSON object")
        return found

    async def _key_of(self, token: str) -> jwt.PyJWK:
        """Find the key of a token by its id (RFC 7517 section 4.5).

        The keys are fetched anew where it is not among them. A token without an id is
        taken where there is no choice (OpenID Connect Core section 10.1).
        """
        kid = jwt.get_unverified_header(token).get("kid")
        keys = rs256_keys(await self.jwks(), kid)
        now, times = time.monotonic(), self._refetched_at
        # bounds what a flood of tokens with made-up keys can make us fetch
        if len(keys) != 1 and (len(times) < _MAX_REFETCHES or now - times[0] > 60):
            times.append(now)
            self.forget()
            keys = rs256_keys(await self.jwks(), kid)
        if len(keys) != 1:
            raise jwt.InvalidTokenError("it is not clear which key has signed it")
        return keys[0]

    def _is_our_issuer(self, issuer: object) -> bool:
        ours = f"https://{self._domain}"
        return isinstance(issuer, str) and issuer.removesuffix("/") == ours


def check_nonce(claims: Mapping[str, Any], expected: str) -> None:
    """Compare a nonce with the one sent (OpenID Connect Core 3.1.3.7, step 11)."""
    given = str(claims.get("nonce")).encode(errors="replace")
    if not hmac.compare_digest(given, expected.encode()):
        raise jwt.InvalidTokenError("issued for another login: its nonce differs")


def unproved(user: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return the code of what is wanted of a login and its user has not proved.

    OpenID Connect Core section 3.1.3.7, steps 12 and 13: one of ``acr_values``, and
    ``max_age`` seconds ago at most; clocks may differ.
    """
    if acr_values := wanted.get("acr_values"):
        reached, methods = [user.get("acr")], user.get("amr")
        if isinstance(methods, list) and "mfa" in methods:  # RFC 8176 section 2
            reached.append(MFA)
        if not any(value in reached for value in acr_values.split()):
            return "not_stepped_up"
    if (max_age := wanted.get("max_age")) is not None:
        proved, limit = user.get("auth_time"), max_age + CLOCK_TOLERANCE
        if not isinstance(proved, int | float) or time.time() - proved > limit:
            return "not_fresh"
    return None


def claims_for_sdk(claims: dict[str, Any]) -> dict[str, Any]:
    """Return claims as the SDK's model takes them: others than text are left out."""
    try:
        UserClaims.model_validate(claims)
    except ValidationError as error:
        odd = {problem["loc"][0] for problem in error.errors(include_input=False)}
        return {name: value for name, value in claims.items() if name not in odd}
    return claims


def _decode(token: str, key: jwt.PyJWK, audience: str) -> dict[str, Any]:
    try:
        return jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience=audience,
            leeway=CLOCK_TOLERANCE,
            options={"require": ["iss", "aud", "exp", "iat"], "verify_iss": False},
        )
    except (jwt.ImmatureSignatureError, jwt.ExpiredSignatureError) as error:
        # by then the signature was found to be valid
        found = jwt.decode(token, options={"verify_signature": False})
        ahead = round(float(found["iat"]) - time.time())
        if CLOCK_TOLERANCE < abs(ahead) <= _MAX_CLOCK_ERROR:
            raise ClocksDiffer(ahead) from error
        raise


def rs256_keys(jwks: Mapping[str, Any], kid: str | None = None) -> list[jwt.PyJWK]:
    """Return the keys that verify RS256: all, or those of an id (RFC 7517)."""
    keys, usable = jwks.get("keys"), []
    for key in keys if isinstance(keys, list) else []:
        with suppress(jwt.PyJWTError, ValueError, TypeError, AttributeError):
            kind = key.get("kty"), key.get("use", "sig"), key.get("alg", "RS256")
            if kind == ("RSA", "sig", "RS256") and kid in {None, key.get("kid")}:
                usable.append(jwt.PyJWK.from_dict(key, algorithm="RS256"))
    return usable
