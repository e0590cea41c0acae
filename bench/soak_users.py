"""The users of a soak: what disturbs them, what they do, and what they have to see."""

from __future__ import annotations

import math
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

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
ENDINGS = LOGOUT, EVERYWHERE, NOTHING = "logout", "logout everywhere", "nothing"
# what error pages tell
_FAILED = {"502 provider_unreachable", "502 invalid_response"}
_AWAY = {f"503 {it}_unavailable" for it in ("revocations", "sessions", "refreshes")}
_CODE = re.compile(r'(?:Error \d+ · <code>|"code": ?")(\w+)')
# all addresses are plain http, and open connections would disturb the measures
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_NONE_KEPT = httpx.Limits(max_keepalive_connections=0)
_NAME = re.compile(r"user\d{4}", re.IGNORECASE)
#: The pages that tell who is signed in; the last one by the access token.
PAGES = ("/", "/profile", "/api/me", "/api/userinfo")


class Wrong(Exception):
    """Something happened that must not."""


class Turn(NamedTuple):
    """One login of one user, what disturbs it (or ""), and what the user does then."""

    number: int
    user: int
    browser: int
    trouble: str
    ending: str


class Scene:
    """What all users meet: a site, a tenant, and a switch for what the app keeps."""

    def __init__(
        self, site: str, tenant: Tenant, switch: Callable[[bool], object]
    ) -> None:
        self.site, self.tenant, self._switch = site, tenant, switch
        self.seen, self.wrong = list[str](), list[str]()
        self.faults: dict[str, Fault] = {}  # by the code that they meet
        self.rotated_at = self._back_at = 0.0  # during an outage, that is infinity
        self._away, self.rotating = threading.Lock(), threading.Lock()
        tenant.fail("token", Fault(self._disturb), times=1_000_000)

    def browsers_of(self, user: int) -> list[Browser]:
        """Return two new browsers of a user."""
        self.tenant.add_user(name := f"user{user:04}")
        return [Browser(self, name), Browser(self, name)]

    def had_outage(self, since: float) -> bool:
        """Tell whether there is an outage, or was one since then."""
        return self._back_at > since

    def met_outage(self, answer: httpx.Response, since: float) -> bool:
        """Tell whether an answer is due to an outage since then; wait for its end."""
        if is_excused := _told(answer) in _AWAY and self.had_outage(since):
            with self._away:
                pass
        return is_excused

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Have what the app keeps away in the block, and for a second more."""
        with self._away:
            self._back_at = math.inf
            self._switch(False)
            try:
                yield
                time.sleep(1)
            finally:
                self._switch(True)
                self._back_at = time.monotonic()

    def rotate(self, *_: object) -> None:
        """Sign by another key from now on."""
        self.tenant.rotate_keys()
        self.rotated_at = time.monotonic()

    def _disturb(self, environ: Any, stopping: threading.Event) -> Response | None:
        form = dict(parse_qsl(environ["wsgi.input"].getvalue().decode()))
        fault = self.faults.pop(form.get("code", ""), None)
        return fault.act(environ, stopping) if fault else None


def take(turn: Turn, browsers: list[Browser], scene: Scene) -> None:
    """Log in, disturbed or not, look around and do what comes then."""
    browser = browsers[turn.browser]
    before = browser.copy()
    if turn.trouble not in {"", ROTATED}:
        browser.fail_to_log_in(turn)
    since = time.monotonic()
    browser.log_in(rotates=turn.trouble == ROTATED)
    if not scene.had_outage(since):
        before.must_be_out("after another login")
    browser.look_at(*PAGES)
    if turn.ending != NOTHING:
        browser.log_out(everywhere=turn.ending == EVERYWHERE)
    for each in browsers:
        each.is_signed_in &= turn.ending != EVERYWHERE
        each.look_at("/api/me")
    scene.seen += ["logins", turn.ending, *filter(None, [turn.trouble])]


class Browser:
    """One browser of one user, whom the site must tell of nobody else."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name, self.is_signed_in = scene, name, False
        self._http = httpx.Client(
            base_url=scene.site, limits=_NONE_KEPT, timeout=30, verify=_TRUSTS_NOBODY
        )
        self._http.headers["Accept"] = "text/html"
        self._http.event_hooks["response"].append(self._must_be_ours)

    def copy(self) -> Browser:
        """Return a browser with the cookies as they are now."""
        copy = Browser(self._scene, self._name)
        copy._http.cookies.update(self._http.cookies)
        return copy

    def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """Ask the site; once more, where an outage was in the way."""
        while True:
            since = time.monotonic()
            answer = self._http.request(method, path, headers=headers)
            if not self._scene.met_outage(answer, since):
                return answer
            self._scene.seen.append("requests during an outage")

    def log_in(self, *, rotates: bool) -> None:
        """Log in, disturbed by nobody but others, or with another key from then on."""
        scene = self._scene
        with scene.rotating if rotates else nullcontext():
            answer = self._come_back(Fault(scene.rotate) if rotates else None)
        if (where := _location(answer)) != "/profile":
            raise Wrong(f"the login leads to {where}, not to /profile")
        self.is_signed_in = True

    def fail_to_log_in(self, turn: Turn) -> None:
        """Fail, with the page for that."""
        if fault := TROUBLES[turn.trouble][1]:
            answer, expected = self._come_back(fault(turn.number)), _FAILED
        else:
            url, expected = self._way_back(), _AWAY
            with self._scene.outage():
                answer = self._http.get(url)
        if _told(answer) not in expected:
            raise Wrong(f"{turn.trouble}: {_words(answer)}")
        self.look_at("/api/me")

    def look_at(self, *paths: str) -> None:
        """Look at pages that tell who is signed in: us, if we are."""
        expected = self._name if self.is_signed_in else None
        for path in paths:
            if (found := _who(self.ask(path))) != expected:
                raise Wrong(f"{path} tells of {found}, not {expected}")

    def must_be_out(self, why: str) -> None:
        """See that this copy of a browser is worth nothing."""
        if found := _who(self.ask("/api/me")):
            raise Wrong(f"a copy of the cookie is {found} {why}")

    def log_out(self, *, everywhere: bool) -> None:
        """Press a button; a copy of the cookie has to be worth nothing, too."""
        scene, copy, since = self._scene, self.copy(), time.monotonic()
        if everywhere:
            answer = self.ask("/logout/everywhere", "POST", Origin=scene.site)
        else:
            answer = self.ask("/logout")
        had_outage = scene.had_outage(since)
        if (home := self._at_tenant(answer)) != f"{scene.site}/":
            raise Wrong(f"the logout leads to {home}")
        self.is_signed_in = False
        if not answer.cookies.get("signed_out_here_only"):
            copy.must_be_out("after a logout")
        elif had_outage:
            scene.seen.append("logouts of this browser only, during an outage")
        else:
            raise Wrong("a logout ended the session here only, without an outage")

    def _come_back(self, fault: Fault | None) -> httpx.Response:
        """Come back with a code that meets a fault; again if others' came first."""
        scene = self._scene
        while True:
            since, url = time.monotonic(), self._way_back()
            code = httpx.URL(url).params["code"]
            if fault:
                scene.faults[code] = fault
            answer = self._http.get(url)
            if scene.faults.pop(code, None) and not scene.had_outage(since):
                raise Wrong(f"a fault met nobody: {_words(answer)}")
            old_key = _told(answer) == "400 invalid_token" and scene.rotated_at > since
            if (fault or not old_key) and not scene.met_outage(answer, since):
                return answer
            scene.seen.append("logins that met the trouble of others")

    def _way_back(self) -> str:
        """Go the way to the tenant; return the address that it sends us back to."""
        where = self._at_tenant(self.ask("/login?return_to=/profile"))
        if "/u/login?" in where:
            form = {"username": self._name, "action": "login"}
            where = _location(self._http.post(where, data=form))
        return where

    def _at_tenant(self, answer: httpx.Response) -> str:
        """Go where an answer sends us; return where the tenant sends us then."""
        tenant = self._scene.tenant
        # the other port is the same tenant, and spares everybody the handshake
        plain = _location(answer).replace(tenant.issuer, f"{tenant.origin}/")
        return _location(self._http.get(plain))

    def _must_be_ours(self, answer: httpx.Response) -> None:
        if str(answer.url).startswith(f"{self._scene.site}/"):  # the tenant offers all
            names = {n.lower() for n in _NAME.findall(answer.read().decode())}
            if others := ", ".join(sorted(names - {self._name})):
                raise Wrong(f"{answer.url.path} tells {self._name} of {others}")


def _told(answer: httpx.Response) -> str:
    """Return the status and the code of an error, or what is told instead."""
    found = _CODE.search(answer.text)
    return f"{answer.status_code} {found[1] if found else repr(answer.text[:200])}"


def _words(answer: httpx.Response) -> str:
    return f"{answer.url.path} answers {_told(answer)}"


def _location(answer: httpx.Response) -> str:
    if answer.status_code not in {302, 303}:
        raise Wrong(f"{_words(answer)}, not 302")
    return str(answer.headers["Location"])


def _who(answer: httpx.Response) -> str | None:
    """Return whom a page takes for signed in, or None where it is as without login."""
    if answer.is_success and (found := _NAME.search(answer.text)):
        return found[0].lower()
    is_home = answer.is_success and answer.url.path == "/"
    is_sent_away = answer.headers.get("Location", "").startswith("/login?")
    if not (is_home or is_sent_away or _told(answer) == "401 signed_out"):
        raise Wrong(_words(answer))
    return None
