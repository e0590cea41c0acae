"""Whatever is sent to whichever route: the answer is no bug, and does nobody harm."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import auth
from auth0_flask.stores.cookies import TOTAL_BYTES
from auth0_flask.tenant import Tenant
from wsgi import KEPT, Answer, Sent, send, shipped

#: What breaks out of HTML, were it shown as it is, and a translation or a template;
#: and out of a header.
MARK = "mk<zq9\"zq9'zq9&zq9 % %(mk)s {{ mk.mk.mk }}"
BREAK = "mk\r\nX-Mk: zq9\r\n\r\n<zq9"
EVIL = "https://evil.example/"

Jars = dict[str, tuple[str, dict[str, str]]]
HOST = auth.auth0.settings.callback.netloc
numbers = itertools.count()
words = [
    *(MARK, BREAK, EVIL, EVIL + MARK, "//evil.example", "/\\evil.example", f"/{MARK}"),
    *(f"/profile?{MARK}#{MARK}", "/%0d%0aX-Mk:zq9", "javascript:mk()", "/login", "["),
    *("", "x", "x" * 9000, "字" * 300, "%00", "\u202e", "\x00", "9" * 400, "-1", "٣"),
    *("none", "server_error", "access_denied", "a.b.c", "prefetch", "fr", "zh_Hant-x"),
    *("application/json", "text/html", "*/*;q=-1", "bytes=0-1", "Bearer x", "chunked"),
    *("same-origin", "cross-site", "XMLHttpRequest", "multipart/form-data; boundary="),
]
#: Sent as logout tokens only, which are secret: no other parameter may say the same.
tokens = [
    *("", "tk<zq9.tk\"zq9.tk'zq9", "eyJ" * 3000),
    # for Alice with alg none, and of odd types; not spelled as the tenant's are
    "eyJhbGciOiJub25lIn0=.eyJzdWIiOiJcdTAwNjF1dGgwfGFsaWNlIn0=.",
    "eyJhbGciOlsiUlMyNTYiXSwia2lkIjp7IngiOjF9LCJ0eXAiOjd9.W10=.eA==",
]
parameters = [
    *("return_to", "screen_hint", "connection", "organization", "invitation", "iss"),
    *("login_hint", "prompt", "ui_locales", "max_age", "remember", "federated", MARK),
    *("state", "code", "error", "error_description", "acr_values", "lang", "here"),
]
headers = [
    *("HTTP_ACCEPT", "HTTP_ACCEPT_LANGUAGE", "HTTP_HOST", "HTTP_ORIGIN", "HTTP_RANGE"),
    *("HTTP_REFERER", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_PURPOSE", "HTTP_AUTHORIZATION"),
    *("HTTP_X_REQUESTED_WITH", "HTTP_X_FORWARDED_HOST", "CONTENT_TYPE"),
]
methods = [
    *(("of the route",) * 30),
    *("GET", "POST", "HEAD", "OPTIONS", "PUT", "TRACE", "", "GET\r\nX-Mk: zq9", MARK),
]
endings = [*((b"",) * 40), b"/", b"//evil.example", b"/..", b"\r\nX-Mk: zq9", b"/<zq9"]
#: What becomes of a cookie on its way, by name and value.
changes: list[Callable[[str, str], str]] = [
    *((lambda n, v: f"{n}={v}",) * 40),
    *((lambda n, v: "",) * 3),
    lambda n, v: f"{n}={v[: len(v) // 2]}",
    lambda n, v: f"{n}={v[:-9]}{'B' if v[-9:-8] == 'A' else 'A'}{v[-8:]}",
    lambda n, v: f"{n}={v}; {n}={v[::-1]}",
    lambda n, v: f"{n}={v * 9}",
    lambda n, v: f"session_auth0={v}; session_auth0_tx0={v}; session={v}",
    lambda n, v: f"{n}=2~{v}; {n}.1={v}; {n}.1=x",
    lambda n, v: f"{n}={v}\r\nX-Mk: zq9",
    lambda n, v: f"session_a0_tx.\r\nX-Mk: zq9={v}; session_auth0_tx0=\x00字.{v}\xff",
    lambda n, v: f'{n}="{v}\\015\\012X-Mk: zq9\\"',
    lambda n, v: f"{n}={MARK}; session_auth0_tx0={MARK}.{MARK}; {MARK}={MARK}",
    lambda n, v: "; ".join(f"session_auth0_tx{i % 9}={i}.{v[:90]}" for i in range(60)),
]


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


texts = (st.sampled_from(words) | st.text(max_size=30)).map(as_bytes)
encoded = texts | texts.map(lambda text: quote(text).encode())
names = st.sampled_from(parameters).map(lambda name: quote(name).encode())
logout_tokens = st.sampled_from(tokens).map(lambda token: quote(token).encode())
pairs = st.tuples(names, encoded) | st.tuples(st.just(b"logout_token"), logout_tokens)
forms = st.lists(pairs.map(b"=".join), max_size=4).map(b"&".join)
#: Whose cookies, and what becomes of the first of them and of the others.
whose = st.sampled_from(["alice", "bob", "under way"])
cookies = st.tuples(whose, st.sampled_from(changes), st.sampled_from(changes))
#: A request, but for the cookies there are only when it is sent.
drafts = st.builds(
    SimpleNamespace,
    rule=st.integers(0, 99),
    ending=st.sampled_from(endings),
    method=st.sampled_from(methods),
    query=forms,
    headers=st.lists(st.tuples(st.sampled_from(headers), texts), max_size=4),
    body=forms | st.binary(max_size=50),
    cookies=st.lists(cookies, max_size=3),
    long=st.booleans(),
    returns=st.booleans(),
    refused=st.just(b"") | encoded,
)


@pytest.fixture(params=KEPT)
def fuzzed(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The app as it ships."""
    with shipped(request) as app:
        yield app


def test_whatever_is_sent_does_no_harm(fuzzed: Flask, tenant: Tenant) -> None:
    reached: Counter[object] = Counter()

    @settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
    @given(draft=drafts)
    def one(draft: Any) -> None:
        jars, state = jars_for(fuzzed, draft)
        answer = send(fuzzed, finished(fuzzed, draft, jars, state), HOST)

        check_headers(answer, tenant)
        check_body(answer)
        shown = check_who_is_shown(answer, jars)
        reached.update([answer.code, *shown])

    one()
    assert reached.keys() >= {200, 302, 400, 401, 403, 404, 405}
    assert reached.keys() & {"alice", "bob"}


def test_a_cookie_whose_name_is_none_of_ours_is_not_answered(
    fuzzed: Flask, tenant: Tenant
) -> None:
    for name in ("\r\nX-Mk: zq9", "\r", "\0", "\x7f", "字", "<zq9", "x" * 3000):
        cookie = as_bytes(
            f"session_a0_tx.{name}=x; session_a0_tx.y=x; session_auth0_tx{name}=x.x; "
            f"session_auth0_tx0={name}.x; session_auth0.{name}=x"
        )
        for path in (b"/login", b"/logout", b"/callback?state=x"):
            answer = send(fuzzed, Sent(path, headers=(("HTTP_COOKIE", cookie),)), HOST)

            check_headers(answer, tenant)
            assert not any(name in written for written in answer.all("set-cookie"))


def jars_for(app: Flask, draft: Any) -> tuple[Jars, str]:
    """Sign in whoever's cookies are to be sent; return them, and a login's state."""
    jars, state = Jars(), ""
    for whose in {whose for whose, *_ in draft.cookies}:
        sub = f"auth0|{whose}-{next(numbers)}-"
        if whose == "under way":
            began = send(app, Sent(b"/login", query=b"return_to=/profile"), HOST)
            (state,) = parse_qs(urlsplit(began.all("location")[0]).query)["state"]
            name, _, value = began.all("set-cookie")[0].partition(";")[0].partition("=")
            jars[whose] = sub, {name: value}
        else:
            noise = random.Random(sub)  # noqa: S311 - the same every time
            bio = noise.randbytes(2000 if draft.long else 10).hex()
            with httpx.Client(transport=httpx.WSGITransport(app)) as client:
                auth.login_as(client, sub=sub, name=MARK, picture=EVIL + MARK, bio=bio)
                jars[whose] = sub, dict(client.cookies)
    return jars, state


def finished(app: Flask, draft: Any, jars: Jars, state: str) -> Sent:
    rules = list(app.url_map.iter_rules())
    rule = rules[draft.rule % len(rules)]
    named = rule.rule.replace("<path:filename>", "style.css")
    assert "<" not in named, "a route with a parameter that is not filled in"
    path, query, method = named.encode() + draft.ending, draft.query, draft.method
    if method == "of the route":
        method = "POST" if "POST" in (rule.methods or ()) else "GET"
    if draft.returns and state:
        refused = b"error=access_denied&error_description=" + draft.refused
        path, method = b"/callback", "GET"
        query = f"state={state}&".encode() + (refused if draft.refused else query)
    pairs = [
        (others if at else first)(*pair)
        for whose, first, others in draft.cookies
        for at, pair in enumerate(jars[whose][1].items())
    ]
    cookie = ("HTTP_COOKIE", as_bytes("; ".join(pairs)))
    return Sent(path, method, query, (*draft.headers, cookie), draft.body)


def check_headers(answer: Answer, tenant: Tenant) -> None:
    """See that no answer is a bug or an outage, and what it says is no header."""
    assert answer.code < 500
    for name, value in [("Status", answer.status), *answer.headers]:
        assert not {"\r", "\n", "\0"} & {*name, *value}, name
        assert name != "X-Mk"
        assert "<zq9" not in value, name
    check_locations(answer, tenant)
    written = [cookie.split(";") for cookie in answer.all("set-cookie")]
    assert sum(len(pair) for pair, *_ in written) <= TOTAL_BYTES
    for pair, *attributes in written:
        assert len(pair) + 200 < 4096
        assert {" HttpOnly", " Path=/", " SameSite=Lax"} <= {*attributes}


def check_locations(answer: Answer, tenant: Tenant) -> None:
    """See that it leads to a page of ours, or to the tenant with our addresses."""
    ours = auth.auth0.settings
    for location in answer.all("location"):
        parts = urlsplit(location)
        if not parts.netloc:
            assert location.startswith("/")
            assert not location.startswith(("//", "/\\"))
            continue
        origin = f"{parts.scheme}://{parts.netloc}"
        assert origin in {ours.origin, tenant.origin, f"https://{tenant.domain}"}
        query = parse_qs(parts.query)
        assert query.get("redirect_uri", [ours.redirect_uri]) == [ours.redirect_uri]
        assert query.get("returnTo", [f"{ours.origin}/"]) == [f"{ours.origin}/"]


def check_who_is_shown(answer: Answer, jars: Jars) -> list[str]:
    """See that it is one at most, whose cookies came along."""
    named = re.findall(r"auth0\|(alice|bob)-(\d+)-", answer.text)
    shown = {f"auth0|{whose}-{number}-": whose for whose, number in named}
    assert len(shown) <= 1
    assert shown.keys() <= {sub for sub, _ in jars.values()}
    return list(shown.values())


def check_body(answer: Answer) -> None:
    """See that nothing sent, or claimed, breaks out of where it is shown."""
    assert "Traceback" not in answer.text
    kind = dict(answer.headers).get("Content-Type", "")
    if "json" in kind and answer.body:
        json.loads(answer.text)
    elif kind.startswith("text/html"):
        for broken in ("<zq9", '"zq9', "'zq9", "&zq9"):
            assert broken not in answer.text
    else:
        assert "zq9" not in answer.text
