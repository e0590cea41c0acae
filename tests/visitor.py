"""A visitor with a browser of their own: cookies, redirects, and verbs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from flask import Flask
from werkzeug.test import TestResponse

#: The pages of the tenant are plain http; httpx would read certificates each time.
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_OPTIONS: Any = {"verify": _TRUSTS_NOBODY, "trust_env": False, "timeout": 60}


class Visitor:
    """Somebody at a browser, who signs in as one of the tenant's users."""

    def __init__(self, site: str, username: str) -> None:
        self.site, self.username = site, username
        self.http = httpx.AsyncClient(**_OPTIONS, headers={"Accept": "text/html"})

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask for a page of the site and stay where it answers."""
        return await self.http.get(urljoin(self.site, path), headers=headers)

    async def follow(self, response: httpx.Response) -> httpx.Response:
        """Go where a response sends us, to the end."""
        while response.has_redirect_location:
            response = await self.http.get(response.next_request.url)  # type: ignore[union-attr]
        return response

    async def go(self, path: str = "/login") -> httpx.Response:
        """Ask for a page of the site and follow it to its end, or the tenant's page."""
        return await self.follow(await self.get(path))

    start = go

    async def choose(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Fill in the tenant's login page; answers with the way back to the site."""
        return await self.http.post(
            urljoin(str(page.url), "/u/login"),
            data={"state": state_of(page), "action": "login", **fields},
        )

    async def login(self, path: str = "/login", **fields: str) -> httpx.Response:
        """Sign in, whatever page that begins at; ends on the site."""
        page = await self.start(path)
        if on_site(page, self.site):
            return page
        back = await self.choose(page, **(fields or {"username": self.username}))
        return await self.follow(back)

    async def claims(self) -> dict[str, Any] | None:
        """Say who the site takes us for, or None if signed out."""
        response = await self.get("/api/me")
        assert response.status_code in {200, 401}, response.text
        return response.json() if response.status_code == 200 else None

    async def logout(self) -> httpx.Response:
        return await self.go("/logout")

    @property
    def cookies(self) -> dict[str, str]:
        """Our cookies for the site, by name."""
        cookies = ((c.name, c.value or "") for c in self.http.cookies.jar)
        return {name: value for name, value in cookies if name != "auth0_local"}


class Shopper:
    """Somebody at a browser of an app in this process; no server is needed."""

    def __init__(self, app: Flask, username: str = "alice") -> None:
        self.client, self.username = app.test_client(), username
        self.code: Callable[[], str] | None = None  # a second factor

    def sign_in(self, path: str = "/login") -> str:
        """Sign in at the tenant; return the path of the callback, with its query."""
        with http_browser() as http:
            back = urlsplit(sign_in(http, self.start(path), self.username, self.code))
        return f"{back.path}?{back.query}"

    def start(self, path: str = "/login") -> str:
        """Start a login; return the address at the tenant."""
        while not path.startswith("http"):
            answer = self.client.get(path)
            assert answer.location, answer.text
            path = answer.location
        return path

    def login(self, path: str = "/login") -> TestResponse:
        """Sign in; ends with what the callback answers."""
        return self.client.get(self.sign_in(path))

    @property
    def user(self) -> Any:
        """The claims of who the shop takes them for; none of nobody."""
        return self.client.get("/me").json

    @property
    def session(self) -> Any:
        return self.client.get("/session").json

    def twin(self, at: Flask | None = None) -> Shopper:
        """Return the same browser as it is now, or one like it at another app."""
        twin = Shopper(at or self.client.application, self.username)
        twin.client._cookies = dict(self.client._cookies or {})
        return twin


def http_browser() -> httpx.Client:
    return httpx.Client(**_OPTIONS)


def sign_in(
    http: httpx.Client, url: str, username: str, code: Callable[[], str] | None = None
) -> str:
    """Sign in at the tenant, in a browser new to it; return the way back."""
    http.cookies.clear()
    answer = _fill_in(http, http.get(url), username=username)
    if code and "/u/factor" in answer.headers["Location"]:
        answer = _fill_in(http, answer, code=code())
    return answer.headers["Location"]


def _fill_in(http: httpx.Client, to: httpx.Response, **fields: str) -> httpx.Response:
    assert to.next_request, to.text
    page = to.next_request.url  # which has all that its form has
    form = {"state": page.params["state"], "action": "login", **fields}
    return http.post(page.copy_with(query=None), data=form)


def state_of(page: httpx.Response) -> str:
    """Return the hidden state of the tenant's login page."""
    state = page.text.partition('name="state" value="')[2].partition('"')[0]
    assert state, page.text
    return unescape(state)


def code_of(page: httpx.Response) -> str:
    """Return the stable code that an error page shows."""
    return page.text.partition("<code>")[2].partition("</code>")[0]


def on_site(response: httpx.Response, site: str) -> bool:
    return urlsplit(str(response.url)).netloc == urlsplit(site).netloc
