"""The users of a soak: what disturbs them, what they do, and what they have to see.

Whatever happens that must not raises `Wrong`.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
from werkzeug.wrappers import Response

from auth0_flask.tenant import Fault, Tenant

OUTAGE = "what the app keeps is gone for a second"
ROTATED = "the signing key is another one"
#: What disturbs an exchange: how often one among others, and what it does to the login
#: of a number. The last two disturb everybody. A key is looked for anew thirty times a
#: minute at most, and each rotation takes a few of these in every worker.
TROUBLES: dict[str, tuple[int, Callable[[int], Fault] | None]] = {
    "the token endpoint answers 5xx": (12, lambda n: Fault.status(500 + n % 5)),
    "its connection is cut": (12, lambda _: Fault.reset()),
    "its JSON is broken": (10, lambda _: Fault.broken_json()),
    "its answer comes too late": (3, lambda _: Fault.slow(8.0)),
    ROTATED: (1, None),
    OUTAGE: (2, None),
}
LOGOUT, EVERYWHERE, NOTHING = "logout", "logout everywhere", "nothing"
# status and code of an error page
_FAILED = {(502, "provider_unreachable"), (502, "invalid_response")}
_STORES = ("revocations", "sessions", "refreshes")
_AWAY = {(503, f"{store}_unavailable") for store in _STORES}
_OLD_KEY = (400, "invalid_token")
_CODE = re.compile(r"Error \d+ · <code>(\w+)</code>")
_NAME = re.compile(r"user\d{4}", re.IGNORECASE)
#: The pages that tell who is signed in; the last one by the access token.
PAGES = {
    "/": re.compile(r'dir="auto">Hello, (\w+)<'),
    "/profile": re.compile(r'<code>sub</code></dt><dd dir="auto">auth0\|(\w+)<'),
    "/api/me": re.compile(r'"sub": ?"auth0\|(\w+)"'),
    "/api/userinfo": re.compile(r'"sub": ?"auth0\|(\w+)"'),
}


class Wrong(Exception):
    """Something happened that must not."""


class Turn(NamedTuple):
    """One login of one user, what disturbs it (or ""), and what the user does then."""

    number: int
    user: int
    browser: int
    trouble: str
    ending: str


class _Connections(httpx.BaseTransport):
    """One pool for each thread: in one for all, they close what another has taken."""

    def __init__(self) -> None:
        self._local, self._tls = threading.local(), ssl.create_default_context()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not hasattr(self._local, "pool"):
            limits = httpx.Limits(max_keepalive_connections=0)
            self._local.pool = httpx.HTTPTransport(verify=self._tls, limits=limits)
        answer: httpx.Response = self._local.pool.handle_request(request)
        return answer


class Scene:
    """What all users meet: a site, a tenant, and a switch for what the app keeps."""

    def __init__(
        self, site: str, tenant: Tenant, switch: Callable[[bool], object]
    ) -> None:
        self.site, self.tenant, self._switch = site, tenant, switch
        self.seen: list[str] = []
        self.faults: dict[str, Fault] = {}  # by the code that they meet
        self.outages = self.rotations = 0  # an odd number of outages: there is one now
        self._away, self.rotating = threading.Lock(), threading.Lock()
        self._connections = _Connections()
        tenant.fail("token", Fault(self._disturb), times=1_000_000)

    def browsers_of(self, user: int) -> list[Browser]:
        """Return two new browsers of a user."""
        self.tenant.add_user(name := f"user{user:04}")
        return [Browser(self, name) for _ in range(2)]

    def client(self, name: str, cookies: dict[str, str] | None = None) -> httpx.Client:
        """Return a client of a user, whom the site must tell of nobody else."""
        hooks: dict[str, list[Callable[..., Any]]] = {}
        hooks["response"] = [partial(self._must_be_of, name)]
        client = httpx.Client(
            transport=self._connections, event_hooks=hooks, timeout=30, trust_env=False
        )
        client.headers["Accept"] = "text/html"
        client.cookies.update(cookies)
        return client

    def ask(
        self, http: httpx.Client, path: str, method: str = "GET", **more: Any
    ) -> httpx.Response:
        """Ask the site; once more, where an outage was in the way."""
        while True:
            mark = self.outages
            answer = http.request(method, f"{self.site}{path}", **more)
            if not self.met_outage(answer, mark):
                return answer
            self.seen.append("requests during an outage")

    def had_outage(self, mark: int) -> bool:
        """Tell whether there is an outage, or was one since ``outages`` was so many."""
        return self.outages != mark or self.outages % 2 == 1

    def met_outage(self, answer: httpx.Response, mark: int) -> bool:
        """Tell whether an answer is due to an outage since then; wait for its end."""
        if is_excused := _told(answer) in _AWAY and self.had_outage(mark):
            with self._away:
                pass
        return is_excused

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Have what the app keeps away in the block, and for a second at least."""
        with self._away:
            self.outages += 1
            self._switch(False)
            ends_at = time.monotonic() + 1
            try:
                yield
                time.sleep(max(0, ends_at - time.monotonic()))
            finally:
                self._switch(True)
                self.outages += 1

    def rotate(self, *_: object) -> None:
        """Sign by another key from now on."""
        self.tenant.rotate_keys()
        self.rotations += 1

    def _disturb(self, environ: Any, stopping: threading.Event) -> Response | None:
        body = environ["wsgi.input"]
        code = parse_qs(body.read().decode()).get("code", [""])[0]
        body.seek(0)
        fault = self.faults.pop(code, None)
        return fault.act(environ, stopping) if fault else None

    def _must_be_of(self, name: str, answer: httpx.Response) -> None:
        if str(answer.url).startswith(f"{self.site}/"):  # the tenant offers everybody
            names = {n.lower() for n in _NAME.findall(answer.read().decode())}
            if others := ", ".join(sorted(names - {name})):
                raise Wrong(f"{answer.url.path} tells {name} of {others}")


def take(turn: Turn, browsers: list[Browser], scene: Scene) -> None:
    """Log in, disturbed or not, look around and do what comes then."""
    browser = browsers[turn.browser]
    before = browser.cookies()
    if turn.trouble:
        browser.log_in_disturbed(turn)
    mark = scene.outages
    if turn.trouble != ROTATED:
        browser.log_in()
    if before and not scene.had_outage(mark):
        browser.must_be_out(before, "after another login")
    browser.look_at(*PAGES)
    if turn.ending != NOTHING:
        browser.log_out(everywhere=turn.ending == EVERYWHERE)
    for each in browsers:
        each.is_signed_in &= turn.ending != EVERYWHERE
        each.look_at("/api/me")
    scene.seen += ["logins", turn.ending, *filter(None, [turn.trouble])]


class Browser:
    """One browser of one user: its cookies, and whether it is signed in."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name, self.is_signed_in = scene, name, False
        self._http = scene.client(name)
        self._ask = partial(scene.ask, self._http)

    def cookies(self) -> dict[str, str]:
        """Return a copy of the cookies that are the site's."""
        jar = self._http.cookies.jar
        return {c.name: c.value or "" for c in jar if c.name != "auth0_local"}

    def log_in(self) -> None:
        """Log in, disturbed by nobody but others."""
        self._must_be_in(self._meet(None))

    def log_in_disturbed(self, turn: Turn) -> None:
        """Fail to log in, with the page for that; another key is no failure."""
        scene, fault = self._scene, TROUBLES[turn.trouble][1]
        if turn.trouble == ROTATED:
            with scene.rotating:
                return self._must_be_in(self._meet(Fault(scene.rotate)))
        if fault:
            answer, expected = self._meet(fault(turn.number)), _FAILED
        else:
            url, expected = self._come_back(), _AWAY
            with scene.outage():
                answer = self._http.get(url)
        if _told(answer) not in expected:
            raise Wrong(f"{turn.trouble}: {_words(answer)}")
        return self.look_at("/api/me")

    def look_at(self, *paths: str) -> None:
        """Look at pages that tell who is signed in: us, if we are."""
        expected = self._name if self.is_signed_in else None
        for path in paths:
            if (found := _who(self._ask(path))) != expected:
                raise Wrong(f"{path} tells of {found}, not {expected}")

    def must_be_out(self, cookies: dict[str, str], why: str) -> None:
        """Show a copy of cookies that are to be worth nothing."""
        http = self._scene.client(self._name, cookies)
        if found := _who(self._scene.ask(http, "/api/me")):
            raise Wrong(f"a copy of the cookie is {found} {why}")

    def log_out(self, *, everywhere: bool) -> None:
        """Press a button; the copy of the cookie has to be worth nothing, too."""
        scene, held, mark = self._scene, self.cookies(), self._scene.outages
        if everywhere:
            origin = {"Origin": scene.site}
            answer = self._ask("/logout/everywhere", "POST", headers=origin)
        else:
            answer = self._ask("/logout")
        had_outage, tenant = scene.had_outage(mark), scene.tenant
        # the other port is the same tenant, and spares everybody the handshake
        plain = _location(answer).replace(tenant.issuer, f"{tenant.origin}/")
        if (home := _location(self._http.get(plain))) != f"{scene.site}/":
            raise Wrong(f"the logout leads to {home}")
        self.is_signed_in = False
        if not answer.cookies.get("signed_out_here_only"):
            return self.must_be_out(held, "after a logout")
        if not had_outage:
            raise Wrong("a logout ended the session here only, without an outage")
        return scene.seen.append("logouts of this browser only, during an outage")

    def _come_back(self) -> str:
        """Go the way to the tenant; return the address that it sends us back to."""
        form_page = f"{self._scene.tenant.origin}/u/login"
        start = self._ask("/login?return_to=/profile")
        where = _location(self._http.get(_location(start)))
        if where.startswith(form_page):
            state = parse_qs(urlsplit(where).query)["state"][0]
            form = {"action": "login", "state": state, "username": self._name}
            where = _location(self._http.post(form_page, data=form))
        return where

    def _meet(self, fault: Fault | None) -> httpx.Response:
        """Come back with a code that meets a fault; again if others' came first."""
        scene = self._scene
        while True:
            mark, rotations, url = scene.outages, scene.rotations, self._come_back()
            code = parse_qs(urlsplit(url).query)["code"][0]
            if fault:
                scene.faults[code] = fault
            answer = self._http.get(url)
            if scene.faults.pop(code, None) and not scene.had_outage(mark):
                raise Wrong(f"a fault met nobody: {_words(answer)}")
            has_old_key = _told(answer) == _OLD_KEY and scene.rotations != rotations
            if not (has_old_key and not fault) and not scene.met_outage(answer, mark):
                return answer
            scene.seen.append("logins that met the trouble of others")

    def _must_be_in(self, answer: httpx.Response) -> None:
        if (where := _location(answer)) != "/profile":
            raise Wrong(f"the login leads to {where}, not to /profile")
        self.is_signed_in = True


def _told(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an error, in whichever form."""
    if answer.headers.get("Content-Type") == "application/problem+json":
        return answer.status_code, answer.json().get("code", "")
    found = _CODE.search(answer.text)
    return answer.status_code, found[1] if found else ""


def _words(answer: httpx.Response) -> str:
    status, code = _told(answer)
    return f"{answer.url.path} answers {status} {code or answer.text[:200]!r}"


def _location(answer: httpx.Response) -> str:
    if answer.status_code not in {302, 303}:
        raise Wrong(f"{_words(answer)}, not 302")
    return str(answer.headers["Location"])


def _who(answer: httpx.Response) -> str | None:
    """Return whom a page takes for signed in, or None where it is as without login."""
    path, status = answer.url.path, answer.status_code
    if status == 200 and (found := PAGES[path].search(answer.text)):
        return found[1].lower()
    is_home = path == "/" and status == 200
    is_sent_away = answer.headers.get("Location", "").startswith("/login?")
    if not (is_home or is_sent_away or _told(answer) == (401, "signed_out")):
        raise Wrong(_words(answer))
    return None
