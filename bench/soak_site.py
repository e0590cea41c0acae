"""The site as the users of a soak meet it: how it answers, and how it has to."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from auth0_flask.tenant import Tenant

from .soak_trouble import Aim, Outage, Trouble

#: How often somebody tries again who meets the trouble of others.
MOST_TRIES = 10
#: What is counted then.
OF_OTHERS = "logins that met the trouble of others"
#: By trouble: status and code of the error page; a key that changes is no error.
ANSWERS = {
    Trouble.SERVER_ERROR: {(502, "provider_unreachable")},
    Trouble.CUT: {(502, "provider_unreachable")},
    Trouble.BROKEN_JSON: {(502, "invalid_response")},
    Trouble.SLOW: {(502, "provider_unreachable")},
    Trouble.OUTAGE: {
        (503, "revocations_unavailable"),
        (503, "sessions_unavailable"),
        (503, "refreshes_unavailable"),
    },
}
# what a token is told that was signed with the key before
_OLD_KEY = (400, "invalid_token")
# idle connections are closed here, and never by a server that a request may meet
_LIMITS = httpx.Limits(max_connections=None, keepalive_expiry=1)
_CODE = re.compile(r"Error \d+ · <code>(\w+)</code>")
_NAME = re.compile(r"user\d{4}", re.IGNORECASE)
_SHOWN = {
    "/": re.compile(r'dir="auto">Hello, (\w+)<'),
    "/profile": re.compile(r'<code>sub</code></dt><dd dir="auto">auth0\|(\w+)<'),
    "/api/me": re.compile(r'"sub": ?"auth0\|(\w+)"'),
    "/api/userinfo": re.compile(r'"sub": ?"auth0\|(\w+)"'),
}
#: The pages that tell who is signed in; the last one by the access token.
PAGES = tuple(_SHOWN)


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


@dataclass
class Scene:
    """What all users meet.

    Attributes:
        site: The app's address.
        tenant: Where they prove who they are.
        aim: Disturbs one login.
        outage: Disturbs everybody.
        rotating: Held while the signing key is replaced, one time after the other.
        seen: How often what happened.
    """

    site: str
    tenant: Tenant
    aim: Aim
    outage: Outage
    connections: Connections = field(default_factory=Connections)
    rotating: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: Counter[str] = field(default_factory=Counter)

    def client(
        self, name: str, cookies: dict[str, str] | None = None
    ) -> httpx.AsyncClient:
        """Return a client of one user, whom the site must tell of nobody else."""
        return httpx.AsyncClient(
            transport=self.connections,
            headers={"Accept": "text/html"},
            cookies=cookies,
            event_hooks={"response": [partial(self._must_be_of, name)]},
            timeout=30,
            trust_env=False,
        )

    async def ask(
        self, http: httpx.AsyncClient, method: str, path: str, **options: Any
    ) -> httpx.Response:
        """Ask the site; once more, where an outage was in the way.

        Raises:
            Wrong: It is in the way again and again.
        """
        for _ in range(MOST_TRIES):
            marks = self.marks()
            answer = await http.request(method, f"{self.site}{path}", **options)
            if not self.met_outage(answer, marks):
                return answer
            self.seen["requests during an outage"] += 1
            await self.outage.over()
        raise Wrong(f"{path} met {MOST_TRIES} outages in a row")

    def marks(self) -> tuple[int, int]:
        """Return what the two methods below take later."""
        return self.outage.moments.mark(), self.aim.rotations.mark()

    def met_outage(self, answer: httpx.Response, marks: tuple[int, int]) -> bool:
        """Tell whether an answer tells of an outage since then."""
        is_told = told(answer) in ANSWERS[Trouble.OUTAGE]
        return is_told and self.outage.moments.since(marks[0])

    def excuses(self, answer: httpx.Response, marks: tuple[int, int]) -> bool:
        """Tell whether a login failed for what happened to others since then."""
        has_old_key = told(answer) == _OLD_KEY and self.aim.rotations.since(marks[1])
        is_excused = has_old_key or self.met_outage(answer, marks)
        self.seen[OF_OTHERS] += is_excused
        return is_excused

    async def _must_be_of(self, name: str, answer: httpx.Response) -> None:
        if not str(answer.url).startswith(f"{self.site}/"):
            return  # the tenant's login page offers everybody
        await answer.aread()
        names = {found.lower() for found in _NAME.findall(answer.text)}
        if others := names - {name}:
            path = answer.url.path
            raise Wrong(f"{path} tells {name} of {', '.join(sorted(others))}")


def told(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an error, in whichever form."""
    if answer.headers.get("Content-Type") == "application/problem+json":
        return answer.status_code, answer.json().get("code", "")
    found = _CODE.search(answer.text)
    return answer.status_code, found[1] if found else ""


def words(answer: httpx.Response) -> str:
    """Return what to say of an answer that is not what it should be."""
    status, code = told(answer)
    return f"{answer.url.path} answers {status} {code or answer.text[:200]!r}"


def location(answer: httpx.Response, status: int = 302) -> str:
    """Return where an answer leads.

    Raises:
        Wrong: It is of another status.
    """
    if answer.status_code != status:
        raise Wrong(f"{words(answer)}, not {status}")
    return str(answer.headers["Location"])


def who(answer: httpx.Response) -> str | None:
    """Return whom one of the pages takes for signed in, or None for nobody.

    Raises:
        Wrong: It is neither such a page nor what a page is without a login.
    """
    path = answer.url.path
    if answer.status_code == 200 and (found := _SHOWN[path].search(answer.text)):
        return found[1].lower()
    is_signed_out = {
        "/": answer.status_code == 200,
        "/profile": answer.headers.get("Location", "").startswith("/login?"),
    }.get(path, told(answer) == (401, "signed_out"))
    if not is_signed_out:
        raise Wrong(words(answer))
    return None
