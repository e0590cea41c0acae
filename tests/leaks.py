"""Nothing secret is said: what a run issues is held against what it says.

A plugin of pytest. It notes every code, token and verifier that a tenant issues or is
sent, every cookie that is set and the secrets that an app is set up with; and it reads
along what is logged, raised, warned and printed, also by programs, and the app's pages
and redirects. If one of the former is found in the latter, the run has failed.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
import warnings
from functools import wraps
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, Response, has_request_context, request, request_finished

from watch import watch

_SENT = {
    *("code_verifier", "refresh_token", "subject_token", "token"),
    *("client_secret", "client_assertion"),
}
_ISSUED = {"access_token", "refresh_token", "id_token", "mfa_token"}
_SET_COOKIE = re.compile(r"b'set-cookie', b'([^;']+)", re.I)


class _Ear(logging.Handler):
    """Takes in all that is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.name.partition(".")[0]
        refreshes = threading.current_thread().name == "auth0-refresh"
        if name in {"httpx", "httpcore"} and not (refreshes or has_request_context()):
            # the browser of a test, which is told what others must not be
            for cookie in _SET_COOKIE.findall(record.getMessage()):
                _note_cookie(cookie)
            return
        hear = watch.hear_server if name == "werkzeug" else watch.hear
        hear(f"the log of {name}", self.format(record))
        if record.exc_info and record.exc_info[1]:
            watch.hear_exception(record.exc_info[1])


_found: set[str] = set()


def pytest_configure(config: pytest.Config) -> None:
    """Listen to every logger; what ``caplog`` has stays what it was."""
    config.option.log_level = config.option.log_level or "WARNING"
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(_Ear())
    request_finished.connect(_answered)
    _overhear(Flask, "handle_user_exception")
    _overhear(pytest.RaisesExc, "__exit__")
    _overhear(subprocess.Popen, "communicate")


def _overhear(owner: type, name: str) -> None:
    """Take in the errors that a method is given, but for a tenant's, and its texts."""
    method = getattr(owner, name)

    @wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        for error in args:
            if isinstance(error, BaseException) and not _is_a_tenant(args[0]):
                watch.hear_exception(error)
        returned = method(*args, **options)
        for text in returned if name == "communicate" else ():
            watch.hear_server("what a program said", text)
        return returned

    setattr(owner, name, call)


def _is_a_tenant(app: object) -> bool:
    return getattr(app, "import_name", "").startswith("auth0_flask.tenant")


def pytest_runtest_logstart(nodeid: str) -> None:
    watch.test = nodeid


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take in what a test printed, and what was printed during it."""
    for name, text in report.sections:
        if "std" in name:
            watch.hear("what was printed", text)


def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    watch.hear("a warning", str(warning_message.message))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where a secret was said."""
    for name in ("AUTH0_SECRET", "AUTH0_CLIENT_SECRET"):
        watch.note(name, os.environ.get(name))
    _found.update(watch.leaks())
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["said"] = sorted(_found)
    if _found and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist found that is through."""
    _found.update(getattr(node, "workeroutput", {}).get("said", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was said, and not the secret itself."""
    if _found:
        terminalreporter.section("secrets that were said", red=True)
    for line in sorted(_found):
        terminalreporter.line(line, red=True)


def _answered(sender: Flask, response: Response, **_: Any) -> None:
    form = vars(request).get("form") or {}  # not where nobody has read it
    if _is_a_tenant(sender):
        for name in _SENT & form.keys():
            watch.note(name, form[name])
        credentials = request.headers.get("Authorization", "")
        watch.note("credentials", credentials.partition(" ")[2])
        query = parse_qs(urlsplit(response.headers.get("Location", "")).query)
        watch.note("code", query.get("code", [""])[0])
        answer = response.get_json(silent=True) if response.is_json else None
        if isinstance(answer, dict):
            for name in _ISSUED & answer.keys():
                watch.note(name, answer[name])
        return
    if "eyJ" in (token := form.get("logout_token", "")):  # and not what a fuzz made up
        watch.note("logout_token", token)
    for cookie in response.headers.getlist("Set-Cookie"):
        _note_cookie(cookie.partition(";")[0])
    _note_settings(sender)
    # pages and redirects of the app, not those that a test adds to it
    view = sender.view_functions.get(request.endpoint or "")
    if response.status_code >= 400 or getattr(view, "__module__", "") == "app":
        watch.hear("a redirect", response.headers.get("Location", ""))
        if not response.is_streamed:
            watch.hear("a page", response.get_data(as_text=True))


def _note_settings(app: Flask) -> None:
    for key in (app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ())):
        watch.note("SECRET_KEY", key if isinstance(key, str) else repr(key))
    if installed := app.extensions.get("auth0"):
        settings = installed.client.settings
        for secret in settings.secrets:
            watch.note("AUTH0_SECRET", secret)
        watch.note("AUTH0_CLIENT_SECRET", settings.client_secret)
        watch.note("signing key", settings.client_assertion_signing_key)


def _note_cookie(cookie: str) -> None:
    """Note what is secret of a cookie: a transaction's begins with its ``state``."""
    name, _, value = cookie.partition("=")
    watch.note("cookie", value.partition(".")[2] if "_auth0_tx" in name else value)
