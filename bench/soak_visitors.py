"""The users of a soak, their browsers, and what each of them has to see."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tenant import Tenant

from .soak_plan import BROWSERS, Ending, Trouble, Turn
from .soak_trouble import Aim, Outage

#: By trouble: how the error page has to answer; a key that changes is no error.
ANSWERS = {
    Trouble.SERVER_ERROR: {(502, "provider_unreachable")},
    Trouble.CUT: {(502, "provider_unreachable")},
    Trouble.BROKEN_JSON: {(502, "unexpected_answer")},
    Trouble.SLOW: {(502, "provider_unreachable")},
    Trouble.OUTAGE: {(503, "revocations_unavailable"), (503, "sessions_unavailable")},
}
_OUTAGES = ANSWERS[Trouble.OUTAGE]
_OLD_KEY = (400, "invalid_token")
_MOST_TRIES = 10
_SUB = re.compile(r'<code>sub</code></dt><dd dir="auto">([^<]*)</dd>')
_CODE = re.compile(r"Error \d+ · <code>(\w+)</code>")
_HERE_ONLY = "signed_out_here_only"


class Wrong(Exception):
    """Something happened that must not."""


class Connections(httpx.AsyncBaseTransport):
    """The connections that all browsers share, as they would behind a proxy."""

    def __init__(self) -> None:
        self._pool = httpx.AsyncHTTPTransport(limits=_LIMITS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; called by httpx."""
        return await self._pool.handle_async_request(request)

    async def begin_anew(self) -> None:
        """Close all that are open."""
        old, self._pool = self._pool, httpx.AsyncHTTPTransport(limits=_LIMITS)
        await old.aclose()


# less than the 2 seconds after which gunicorn closes, or a request could meet that
_LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=1)


@dataclass
class Scene:
    """What all users meet.

    Attributes:
        site: The app's address.
        seen: How often what happened.
    """

    site: str
    tenant: Tenant
    aim: Aim
    outage: Outage
    connections: Connections = field(default_factory=Connections)
    seen: Counter[str] = field(default_factory=Counter)

    def marks(self) -> tuple[int, int]:
        """Return what `excuses` takes later."""
        return self.outage.moments.mark(), self.aim.rotations.mark()

    def excuses(self, answer: httpx.Response, marks: tuple[int, int]) -> bool:
        """Tell whether a login failed for what happened to others since then."""
        outages, rotations = self.outage.moments, self.aim.rotations
        told = _told(answer)
        is_excused = (outages.since(marks[0]) and told in _OUTAGES) or (
            rotations.since(marks[1]) and told == _OLD_KEY
        )
        self.seen["logins that met the trouble of others"] += is_excused
        return is_excused


class Browser:
    """One browser of one user: its cookies, and whether it is signed in."""

    def __init__(self, scene: Scene, username: str) -> None:
        self._scene = scene
        self._username = username
        self._sub = f"auth0|{username}"
        self.is_signed_in = False
        self.http = _client(scene)

    def cookies(self) -> dict[str, str]:
        """Return a copy of the cookies that are the site's."""
        jar = self.http.cookies.jar
        return {c.name: c.value or "" for c in jar if c.name != "auth0_local"}

    async def come_back(self) -> str:
        """Go the way to the tenant; return the address that it sends us back to."""
        scene = self._scene
        start = await self.ask("GET", "/login?return_to=/profile")
        away = _location(start, 302)
        answer = await self.http.get(away)
        where = _location(answer, 302)
        if where.startswith(f"{scene.tenant.origin}/u/login"):
            state = parse_qs(urlsplit(where).query)["state"][0]
            form = {"action": "login", "state": state, "username": self._username}
            page = f"{scene.tenant.origin}/u/login"
            where = _location(await self.http.post(page, data=form), 303)
        return where

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask the site; once more, where an outage was in the way."""
        return await ask(self._scene, self.http, method, path, **options)

    async def look_around(self) -> None:
        """Ask who we are, in both places that tell.

        Raises:
            Wrong: The site takes us for somebody else, or for signed in or out.
        """
        await self.look()
        self._must_be_us("/profile", _sub_on(await self.ask("GET", "/profile")))

    async def look(self) -> None:
        """Ask who we are.

        Raises:
            Wrong: As for `look_around`.
        """
        mine = await self.ask("GET", "/api/me", headers=_JSON)
        self._must_be_us("/api/me", _sub_of(mine))

    def _must_be_us(self, path: str, told: str | None) -> None:
        expected = self._sub if self.is_signed_in else None
        if told != expected:
            raise Wrong(f"{path} tells {told}, not {expected}")

    async def must_be_out(self, cookies: dict[str, str], why: str) -> None:
        """Show a copy of cookies that are to be worth nothing.

        Raises:
            Wrong: They are.
        """
        async with _client(self._scene, cookies) as other:
            answer = await ask(self._scene, other, "GET", "/api/me", headers=_JSON)
        if (sub := _sub_of(answer)) is not None:
            raise Wrong(f"a copy of the cookie is {sub} {why}")

    async def log_out(self) -> None:
        """Press the button; the copy of the cookie has to be worth nothing, too."""
        scene, held = self._scene, self.cookies()
        mark = scene.outage.moments.mark()
        answer = await self.ask("GET", "/logout")
        during_outage = scene.outage.moments.since(mark)
        await self._leave_tenant(_location(answer, 302))
        is_here_only = bool(answer.cookies.get(_HERE_ONLY))
        if is_here_only and not during_outage:
            raise Wrong("a logout ended the session here only, without an outage")
        if is_here_only:
            scene.seen["logouts during an outage"] += 1
        elif not during_outage:
            await self.must_be_out(held, "after a logout")

    async def log_out_everywhere(self) -> None:
        """Press the other button."""
        held, origin = self.cookies(), {"Origin": self._scene.site}
        answer = await self.ask("POST", "/logout/everywhere", headers=origin)
        await self._leave_tenant(_location(answer, 303))
        await self.must_be_out(held, "after a logout everywhere")

    async def _leave_tenant(self, away: str) -> None:
        tenant = self._scene.tenant
        # the other port is the same tenant, and spares everybody the handshake
        plain = away.replace(tenant.issuer, f"{tenant.origin}/")
        home = _location(await self.http.get(plain), 302)
        if home != f"{self._scene.site}/":
            raise Wrong(f"the logout leads to {home}")
        self.is_signed_in = False


class User:
    """Somebody who logs in and out, again and again, in browsers of their own."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.name = f"user{number:04}"
        self._scene = scene
        self._browsers = [Browser(scene, self.name) for _ in range(BROWSERS)]
        scene.tenant.add_user(self.name)

    async def take(self, turn: Turn) -> None:
        """Log in, disturbed or not, look around and do what comes then.

        Raises:
            Wrong: Something happened that must not.
        """
        browser, outage = self._browsers[turn.browser], self._scene.outage
        before = browser.cookies()
        if turn.trouble:
            await self._log_in_disturbed(browser, turn.trouble, turn.number)
        mark = outage.moments.mark()
        if turn.trouble is not Trouble.ROTATED:
            await self._log_in(browser)
        if before and not outage.moments.since(mark):
            await browser.must_be_out(before, "after another login")
        await browser.look_around()
        await self._end(browser, turn.ending)
        self._scene.seen["logins"] += 1

    def take_new_browsers(self) -> None:
        """Go on as somebody whom the site has never seen."""
        self._browsers = [Browser(self._scene, self.name) for _ in range(BROWSERS)]

    async def close(self) -> None:
        """Let go of the browsers."""
        for browser in self._browsers:
            await browser.http.aclose()

    async def _log_in(self, browser: Browser) -> None:
        """Log in; once more where the trouble of others was in the way."""
        for _ in range(_MOST_TRIES):
            marks = self._scene.marks()
            answer = await browser.http.get(await browser.come_back())
            if not self._scene.excuses(answer, marks):
                _expect_in(browser, answer)
                return
            await self._scene.outage.over()
        raise Wrong(f"{_MOST_TRIES} logins in a row met the trouble of others")

    async def _log_in_disturbed(
        self, browser: Browser, trouble: Trouble, number: int
    ) -> None:
        """Log in and be told why not; once more where others met it first."""
        for _ in range(_MOST_TRIES):
            marks = self._scene.marks()
            url = await browser.come_back()
            answer, was_hit = await self._meet(browser, url, trouble, number)
            if was_hit:
                break
            if not self._scene.excuses(answer, marks):
                raise Wrong(f"{trouble} met nobody: {_words(answer)}")
            await self._scene.outage.over()
        if trouble is Trouble.ROTATED:
            _expect_in(browser, answer)
        elif _told(answer) not in ANSWERS[trouble]:
            raise Wrong(f"{trouble}: {_words(answer)}")
        self._scene.seen[trouble] += 1
        await browser.look()

    async def _meet(
        self, browser: Browser, url: str, trouble: Trouble, number: int
    ) -> tuple[httpx.Response, bool]:
        if trouble is Trouble.OUTAGE:
            async with self._scene.outage.happening():
                return await browser.http.get(url), True
        code = parse_qs(urlsplit(url).query)["code"][0]
        self._scene.aim.at(code, trouble, number)
        answer = await browser.http.get(url)
        return answer, self._scene.aim.has_hit(code)

    async def _end(self, browser: Browser, ending: Ending) -> None:
        self._scene.seen[ending] += 1
        if ending is Ending.LOGOUT:
            await browser.log_out()
        elif ending is Ending.EVERYWHERE:
            await browser.log_out_everywhere()
            for each in self._browsers:
                each.is_signed_in = False
        for each in self._browsers:
            await each.look()


_JSON = {"Accept": "application/json"}


async def ask(
    scene: Scene, http: httpx.AsyncClient, method: str, path: str, **options: Any
) -> httpx.Response:
    """Ask the site; once more, where an outage was in the way."""
    for _ in range(_MOST_TRIES):
        mark = scene.outage.moments.mark()
        answer = await http.request(method, f"{scene.site}{path}", **options)
        was_away = scene.outage.moments.since(mark)
        if not (was_away and _told(answer) in _OUTAGES):
            return answer
        scene.seen["requests during an outage"] += 1
        await scene.outage.over()
    raise Wrong(f"{path} met {_MOST_TRIES} outages in a row")


def _client(scene: Scene, cookies: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=scene.connections,
        headers={"Accept": "text/html"},
        cookies=cookies,
        timeout=30,
        trust_env=False,
    )


def _told(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an error, in whichever form."""
    if answer.headers.get("Content-Type") == "application/problem+json":
        return answer.status_code, answer.json().get("code", "")
    found = _CODE.search(answer.text)
    return answer.status_code, found[1] if found else ""


def _words(answer: httpx.Response) -> str:
    status, code = _told(answer)
    path = answer.request.url.path
    return f"{path} answers {status} {code or answer.text[:200]!r}"


def _location(answer: httpx.Response, status: int) -> str:
    if answer.status_code != status:
        raise Wrong(f"{_words(answer)}, not {status}")
    return str(answer.headers["Location"])


def _expect_in(browser: Browser, answer: httpx.Response) -> None:
    if (where := _location(answer, 302)) != "/profile":
        raise Wrong(f"the login leads to {where}, not to /profile")
    browser.is_signed_in = True


def _sub_of(answer: httpx.Response) -> str | None:
    if answer.status_code == 200:
        return str(answer.json()["sub"])
    if _told(answer) != (401, "signed_out"):
        raise Wrong(_words(answer))
    return None


def _sub_on(page: httpx.Response) -> str | None:
    if page.status_code == 200:
        found = _SUB.search(page.text)
        return found[1] if found else "nobody"
    if not _location(page, 302).startswith("/login?"):
        raise Wrong(_words(page))
    return None
