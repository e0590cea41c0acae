"""The users of a soak: what they do in their browsers, and what they have to see."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from .soak_site import (
    ANSWERS,
    MOST_TRIES,
    OF_OTHERS,
    PAGES,
    Scene,
    Wrong,
    location,
    told,
    who,
    words,
)
from .soak_trouble import BROWSERS, Ending, Trouble, Turn

_HERE_ONLY = "signed_out_here_only"


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
        await browser.look_at(*PAGES)
        await self._end(browser, turn.ending)
        self._scene.seen["logins"] += 1

    async def come_again(self) -> None:
        """Look at what our access token tells, in the first browser.

        Raises:
            Wrong: It tells of somebody else, or of nobody.
        """
        await self._browsers[0].look_at(PAGES[-1])

    async def take_new_browsers(self) -> None:
        """Go on as somebody whom the site has never seen."""
        await self.close()
        self._browsers = [Browser(self._scene, self.name) for _ in range(BROWSERS)]

    async def close(self) -> None:
        """Let go of the browsers."""
        for browser in self._browsers:
            await browser.http.aclose()

    async def _log_in(self, browser: Browser) -> None:
        """Log in; once more where the trouble of others was in the way."""
        for _ in range(MOST_TRIES):
            marks = self._scene.marks()
            answer = await browser.http.get(await browser.come_back())
            if not self._scene.excuses(answer, marks):
                browser.must_be_in(answer)
                return
            await self._scene.outage.over()
        raise Wrong(f"{MOST_TRIES} logins in a row met the trouble of others")

    async def _log_in_disturbed(
        self, browser: Browser, trouble: Trouble, number: int
    ) -> None:
        if trouble is Trouble.ROTATED:
            async with self._scene.rotating:
                browser.must_be_in(await self._meet(browser, trouble, number))
        elif trouble is Trouble.OUTAGE:
            _must_tell_of(trouble, await self._meet_outage(browser))
        else:
            _must_tell_of(trouble, await self._meet(browser, trouble, number))
        self._scene.seen[trouble] += 1
        await browser.look_at("/api/me")

    async def _meet_outage(self, browser: Browser) -> httpx.Response:
        url = await browser.come_back()
        async with self._scene.outage.happening():
            return await browser.http.get(url)

    async def _meet(
        self, browser: Browser, trouble: Trouble, number: int
    ) -> httpx.Response:
        """Meet trouble of one's own; once more where an outage came first."""
        aim = self._scene.aim
        for _ in range(MOST_TRIES):
            marks = self._scene.marks()
            url = await browser.come_back()
            code = parse_qs(urlsplit(url).query)["code"][0]
            aim.at(code, trouble, number)
            answer = await browser.http.get(url)
            has_hit = aim.has_hit(code)
            if not self._scene.met_outage(answer, marks):
                if not has_hit:
                    raise Wrong(f"{trouble} met nobody: {words(answer)}")
                return answer
            self._scene.seen[OF_OTHERS] += 1
            await self._scene.outage.over()
        raise Wrong(f"{MOST_TRIES} logins in a row met an outage before: {trouble}")

    async def _end(self, browser: Browser, ending: Ending) -> None:
        self._scene.seen[ending] += 1
        if ending is Ending.LOGOUT:
            await browser.log_out()
        elif ending is Ending.EVERYWHERE:
            await browser.log_out_everywhere()
            for each in self._browsers:
                each.is_signed_in = False
        for each in self._browsers:
            await each.look_at("/api/me")


class Browser:
    """One browser of one user: its cookies, and whether it is signed in."""

    def __init__(self, scene: Scene, username: str) -> None:
        self._scene = scene
        self._username = username
        self.is_signed_in = False
        self.http = scene.client(username)

    def cookies(self) -> dict[str, str]:
        """Return a copy of the cookies that are the site's."""
        jar = self.http.cookies.jar
        return {c.name: c.value or "" for c in jar if c.name != "auth0_local"}

    async def come_back(self) -> str:
        """Go the way to the tenant; return the address that it sends us back to."""
        form_page = f"{self._scene.tenant.origin}/u/login"
        start = await self._ask("GET", "/login?return_to=/profile")
        where = location(await self.http.get(location(start)))
        if where.startswith(form_page):
            state = parse_qs(urlsplit(where).query)["state"][0]
            form = {"action": "login", "state": state, "username": self._username}
            where = location(await self.http.post(form_page, data=form), 303)
        return where

    async def look_at(self, *paths: str) -> None:
        """Look at pages that tell who is signed in.

        Raises:
            Wrong: One takes us for somebody else, or for signed in or out.
        """
        expected = self._username if self.is_signed_in else None
        for path in paths:
            if (told := who(await self._ask("GET", path))) != expected:
                raise Wrong(f"{path} tells of {told}, not {expected}")

    def must_be_in(self, answer: httpx.Response) -> None:
        """Note that we are signed in.

        Raises:
            Wrong: The answer to a callback does not say so.
        """
        if (where := location(answer)) != "/profile":
            raise Wrong(f"the login leads to {where}, not to /profile")
        self.is_signed_in = True

    async def must_be_out(self, cookies: dict[str, str], why: str) -> None:
        """Show a copy of cookies that are to be worth nothing.

        Raises:
            Wrong: They are.
        """
        async with self._scene.client(self._username, cookies) as other:
            told = who(await self._scene.ask(other, "GET", "/api/me"))
        if told:
            raise Wrong(f"a copy of the cookie is {told} {why}")

    async def log_out(self) -> None:
        """Press the button; the copy of the cookie has to be worth nothing, too.

        Raises:
            Wrong: It is, or the way out is not as it should be.
        """
        scene, held = self._scene, self.cookies()
        mark = scene.outage.moments.mark()
        answer = await self._ask("GET", "/logout")
        during_outage = scene.outage.moments.since(mark)
        await self._leave_tenant(location(answer))
        if not answer.cookies.get(_HERE_ONLY):
            await self.must_be_out(held, "after a logout")
        elif during_outage:
            scene.seen["logouts of this browser only, during an outage"] += 1
        else:
            raise Wrong("a logout ended the session here only, without an outage")

    async def log_out_everywhere(self) -> None:
        """Press the other button.

        Raises:
            Wrong: As for `log_out`.
        """
        held, origin = self.cookies(), {"Origin": self._scene.site}
        answer = await self._ask("POST", "/logout/everywhere", headers=origin)
        await self._leave_tenant(location(answer, 303))
        await self.must_be_out(held, "after a logout everywhere")

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._scene.ask(self.http, method, path, **options)

    async def _leave_tenant(self, away: str) -> None:
        tenant = self._scene.tenant
        # the other port is the same tenant, and spares everybody the handshake
        plain = away.replace(tenant.issuer, f"{tenant.origin}/")
        home = location(await self.http.get(plain), 302)
        if home != f"{self._scene.site}/":
            raise Wrong(f"the logout leads to {home}")
        self.is_signed_in = False


def _must_tell_of(trouble: Trouble, answer: httpx.Response) -> None:
    if told(answer) not in ANSWERS[trouble]:
        raise Wrong(f"{trouble}: {words(answer)}")
