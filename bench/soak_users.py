"""The users of the soak test: their faults, their actions and their checks."""

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

OUTAGE = "the app's store is down for a second"
KEY_ROTATION = "the signing key is rotated"
#: A weight, and a function from the login's number. The last two affect all users. Keys
#: rotate rarely: workers fetch them up to 30 times a minute, a few times a rotation.
FAULTS: dict[str, tuple[int, Callable[[int], Fault] | None]] = {
    "the token endpoint responds with 5xx": (12, lambda n: Fault.status(500 + n % 5)),
    "its connection is reset": (12, lambda _: Fault.reset()),
    "its JSON is invalid": (10, lambda _: Fault.broken_json()),
    "its response comes too late": (3, lambda _: Fault.slow(8.0)),
    KEY_ROTATION: (1, None),
    OUTAGE: (2, None),
}
ENDINGS = LOGOUT, EVERYWHERE, NOTHING = "logout", "logout everywhere", "nothing"
# the statuses and codes of error pages
_LOGIN_ERRORS = {"502 provider_unreachable", "502 invalid_response"}
_STORE_DOWN = {f"503 {s}_unavailable" for s in ("revocations", "sessions", "refreshes")}
_CODE = re.compile(r'(?:Error \d+ · <code>|"code": ?")(\w+)')
# All URLs are plain http. Open connections would count as resources of a worker.
_NO_CA = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_NO_KEEP_ALIVE = httpx.Limits(max_keepalive_connections=0)
_USERNAME = re.compile(r"user\d{4}", re.IGNORECASE)
#: The pages that show who is signed in; the last one uses the access token.
PAGES = ("/", "/profile", "/api/me", "/api/userinfo")


class Failure(Exception):
    """A check of the soak test has failed."""


class Login(NamedTuple):
    """One login of one user, with a fault or "", and the user's last action."""

    number: int
    user: int
    browser: int
    fault: str
    ending: str


class Run:
    """The state that all users share; ``switch`` turns the app's store on and off."""

    def __init__(
        self, site: str, tenant: Tenant, switch: Callable[[bool], object]
    ) -> None:
        self.site, self.tenant, self._switch = site, tenant, switch
        self.counted, self.failures = list[str](), list[str]()
        self.faults: dict[str, Fault] = {}  # by authorization code
        self.rotated_at = self._outage_end = 0.0  # inf during an outage
        self._outage_lock, self.rotation_lock = threading.Lock(), threading.Lock()
        tenant.fail("token", Fault(self._apply_fault), times=1_000_000)

    def new_browsers(self, user: int) -> list[Browser]:
        """Return two new browsers of a user."""
        self.tenant.add_user(name := f"user{user:04}")
        return [Browser(self, name), Browser(self, name)]

    def had_outage(self, since: float) -> bool:
        """Return whether there is an outage, or was one since then."""
        return self._outage_end > since

    def failed_by_outage(self, response: httpx.Response, since: float) -> bool:
        """Return whether an outage caused this response; wait until it is over."""
        if is_outage := _error(response) in _STORE_DOWN and self.had_outage(since):
            with self._outage_lock:
                pass
        return is_outage

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Turn the app's store off during the block and one second more."""
        with self._outage_lock:
            self._outage_end = math.inf
            self._switch(False)
            try:
                yield
                time.sleep(1)
            finally:
                self._switch(True)
                self._outage_end = time.monotonic()

    def rotate(self, *_: object) -> None:
        """Rotate the tenant's signing key."""
        self.tenant.rotate_keys()
        self.rotated_at = time.monotonic()

    def _apply_fault(self, environ: Any, stopping: threading.Event) -> Response | None:
        form = dict(parse_qsl(environ["wsgi.input"].getvalue().decode()))
        fault = self.faults.pop(form.get("code", ""), None)
        return fault.act(environ, stopping) if fault else None


def perform(login: Login, browsers: list[Browser], run: Run) -> None:
    """Run one login with its fault, check pages, and do the last action."""
    browser = browsers[login.browser]
    before = browser.copy()
    if login.fault not in {"", KEY_ROTATION}:
        browser.fail_to_log_in(login)
    since = time.monotonic()
    browser.log_in(rotates=login.fault == KEY_ROTATION)
    if not run.had_outage(since):
        before.check_signed_out("after another login")
    browser.check_pages(*PAGES)
    if login.ending != NOTHING:
        browser.log_out(everywhere=login.ending == EVERYWHERE)
    for browser in browsers:
        browser.is_signed_in &= login.ending != EVERYWHERE
        browser.check_pages("/api/me")
    run.counted += ["logins", login.ending, *filter(None, [login.fault])]


class Browser:
    """One browser of one user; the site must not show it any other user's name."""

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name, self.is_signed_in = run, name, False
        self._http = httpx.Client(
            base_url=run.site, limits=_NO_KEEP_ALIVE, timeout=30, verify=_NO_CA
        )
        self._http.headers["Accept"] = "text/html"
        self._http.event_hooks["response"].append(self._check_names)

    def copy(self) -> Browser:
        """Return a browser with the present cookies."""
        copy = Browser(self._run, self._name)
        copy._http.cookies.update(self._http.cookies)
        return copy

    def request(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """Send a request; repeat it if it failed by an outage."""
        while True:
            since = time.monotonic()
            response = self._http.request(method, path, headers=headers)
            if not self._run.failed_by_outage(response, since):
                return response
            self._run.counted.append("requests during an outage")

    def log_in(self, *, rotates: bool) -> None:
        """Log in, possibly with a key rotation before the token response."""
        run = self._run
        with run.rotation_lock if rotates else nullcontext():
            response = self._try_login(Fault(run.rotate) if rotates else None)
        if (url := _location(response)) != "/profile":
            raise Failure(f"the login redirects to {url}, not to /profile")
        self.is_signed_in = True

    def fail_to_log_in(self, login: Login) -> None:
        """Try to log in with a fault, and check the error page."""
        if fault := FAULTS[login.fault][1]:
            response, expected = self._try_login(fault(login.number)), _LOGIN_ERRORS
        else:
            url, expected = self._callback_url(), _STORE_DOWN
            with self._run.outage():
                response = self._http.get(url)
        if _error(response) not in expected:
            raise Failure(f"{login.fault}: {_describe(response)}")
        self.check_pages("/api/me")

    def check_pages(self, *paths: str) -> None:
        """Check that pages show this user if signed in, and nobody otherwise."""
        expected = self._name if self.is_signed_in else None
        for path in paths:
            if (found := _signed_in_user(self.request(path))) != expected:
                raise Failure(f"{path} shows {found}, not {expected}")

    def check_signed_out(self, why: str) -> None:
        """Check that this copy of a browser is not signed in."""
        if found := _signed_in_user(self.request("/api/me")):
            raise Failure(f"a copy of the cookie is still {found} {why}")

    def log_out(self, *, everywhere: bool) -> None:
        """Log out, and check that a copy of the cookie is signed out, too."""
        run, copy, since = self._run, self.copy(), time.monotonic()
        if everywhere:
            response = self.request("/logout/everywhere", "POST", Origin=run.site)
        else:
            response = self.request("/logout")
        had_outage = run.had_outage(since)
        if (home := self._follow_to_tenant(response)) != f"{run.site}/":
            raise Failure(f"the logout redirects to {home}")
        self.is_signed_in = False
        if not response.cookies.get("signed_out_here_only"):
            copy.check_signed_out("after a logout")
        elif had_outage:
            run.counted.append("logouts of this browser only, during an outage")
        else:
            raise Failure("a logout was incomplete without an outage")

    def _try_login(self, fault: Fault | None) -> httpx.Response:
        """Log in and return the callback's response; retry after others' faults."""
        run = self._run
        while True:
            since, url = time.monotonic(), self._callback_url()
            code = httpx.URL(url).params["code"]
            if fault:
                run.faults[code] = fault
            response = self._http.get(url)
            if run.faults.pop(code, None) and not run.had_outage(since):
                raise Failure(f"a fault was not used: {_describe(response)}")
            old_key = _error(response) == "400 invalid_token" and run.rotated_at > since
            if (fault or not old_key) and not run.failed_by_outage(response, since):
                return response
            run.counted.append("logins that failed by another login's fault")

    def _callback_url(self) -> str:
        """Start a login, sign in at the tenant, and return the callback URL."""
        url = self._follow_to_tenant(self.request("/login?return_to=/profile"))
        if "/u/login?" in url:
            form = {"username": self._name, "action": "login"}
            url = _location(self._http.post(url, data=form))
        return url

    def _follow_to_tenant(self, response: httpx.Response) -> str:
        """Follow a redirect to the tenant; return the URL that it redirects to."""
        tenant = self._run.tenant
        # the plain http port saves TLS handshakes
        url = _location(response).replace(tenant.issuer, f"{tenant.origin}/")
        return _location(self._http.get(url))

    def _check_names(self, response: httpx.Response) -> None:
        if str(response.url).startswith(f"{self._run.site}/"):  # the tenant shows all
            names = {n.lower() for n in _USERNAME.findall(response.read().decode())}
            if others := ", ".join(sorted(names - {self._name})):
                raise Failure(f"{response.url.path} shows {others} to {self._name}")


def _error(response: httpx.Response) -> str:
    """Return the status, and the error code or else the start of the body."""
    match = _CODE.search(response.text)
    return f"{response.status_code} {match[1] if match else repr(response.text[:200])}"


def _describe(response: httpx.Response) -> str:
    return f"{response.url.path} answers {_error(response)}"


def _location(response: httpx.Response) -> str:
    if response.status_code not in {302, 303}:
        raise Failure(f"{_describe(response)}, not 302")
    return str(response.headers["Location"])


def _signed_in_user(response: httpx.Response) -> str | None:
    """Return the user that a page shows, or None if nobody is signed in."""
    if response.is_success and (match := _USERNAME.search(response.text)):
        return match[0].lower()
    is_home = response.is_success and response.url.path == "/"
    needs_login = response.headers.get("Location", "").startswith("/login?")
    if not (is_home or needs_login or _error(response) == "401 signed_out"):
        raise Failure(_describe(response))
    return None
