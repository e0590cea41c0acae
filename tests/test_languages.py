"""The pages in English, French, Japanese and Simplified Chinese."""

from __future__ import annotations

import io
import json
import re
from html import unescape
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo, write_mo
from flask import Flask, render_template
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.test import TestResponse

import auth
from app import create_app
from auth0_flask import StoreUnavailable
from auth0_flask.errors import _TEXTS, CheckFailed, ClocksDiffer, login_error
from auth0_flask.guards import NotAllowed
from auth0_flask.routes import CrossSite
from auth0_flask.stores import SessionTooLarge
from auth0_flask.tenant import Fault, Tenant
from shop import copy_of_auth, load
from translations.update import OF_FLASK, catalogs, texts

TAGS = ("en", "fr", "ja", "zh-Hans")
CATALOGS = [pytest.param(path, c, id=str(c.locale)) for path, c in catalogs()]
HTML = {"Accept": "text/html"}
HEAVY = {"user": {"groups": ["many"] * 400}}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def asked_of_auth0(start: TestResponse) -> dict[str, list[str]]:
    """Return what a login asks Auth0 for."""
    return parse_qs(urlsplit(start.headers["Location"]).query)


def language_of(page: TestResponse) -> str:
    """Return what a page says it is written in."""
    found = re.search(r'<html lang="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


def links_of(page: TestResponse) -> dict[str, str]:
    """Return where the links of a page lead, by their words."""
    links = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>([^<]+)</a>', page.text)
    return {unescape(words): unescape(url) for url, words in links}


@pytest.mark.parametrize(("path", "catalog"), CATALOGS)
def test_every_text_is_translated_and_what_the_app_reads_is_what_was_written(
    path: Path, catalog: Catalog
) -> None:
    found = {str(message.id): message for message in catalog if message.id}
    assert set(found) == texts(), "python -m translations.update"
    for message in found.values():
        assert message.string, message.id
        assert not message.fuzzy, message.id
        assert not list(message.check(catalog)), message.id

    write_mo(written := io.BytesIO(), catalog)
    written.seek(0)
    with path.with_suffix(".mo").open("rb") as file:
        kept = {m.id: m.string for m in read_mo(file) if m.id}
    assert kept == {m.id: m.string for m in read_mo(written) if m.id}


def test_there_is_a_catalog_for_every_language_but_english(client: FlaskClient) -> None:
    offered = re.findall(r'hreflang="([^"]*)"', client.get("/").text)
    names = {str(catalog.locale).replace("_", "-") for _, catalog in catalogs()}

    assert tuple(offered) == TAGS
    assert names == {*TAGS} - {"en"}


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", "fr"),
        ("fr-CA, en;q=0.9", "fr"),
        ("ja", "ja"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("zh-Hans-SG", "zh-Hans"),
        ("en;q=0.5, JA;q=0.6", "ja"),
        ("ja;q=0, fr;q=0.1", "fr"),
        ("de, pt-BR", "en"),
        ("*", "en"),
        ("", "en"),
        ("fr_FR.UTF-8; drop table, ;;;=,", "en"),
    ],
)
def test_a_browser_gets_the_first_language_that_it_asks_for_and_there_is(
    client: FlaskClient, accepted: str, language: str
) -> None:
    page = client.get("/", headers={"Accept-Language": accepted})

    assert language_of(page) == language
    assert "Accept-Language" in page.vary
    assert page.headers["Cache-Control"] == "no-store"


def test_a_language_that_was_chosen_wins_and_stays_from_page_to_page(
    client: FlaskClient,
) -> None:
    japanese = {"Accept-Language": "ja"}
    home = client.get("/", headers=japanese)
    chosen = client.get(links_of(home)["Français"], headers=japanese)

    assert language_of(chosen) == "fr"
    assert "Accept-Language" not in chosen.vary
    asked = asked_of_auth0(client.get(links_of(chosen)["Créer un compte"]))
    assert asked["ui_locales"] == ["fr-FR"]
    assert asked["screen_hint"] == ["signup"]
    auth.login_as(client, name="Zoé")
    signed_in = client.get("/?lang=fr")
    profile = client.get(links_of(signed_in)["Voir votre profil"])
    assert language_of(profile) == "fr"
    switched = client.get(links_of(profile)["简体中文"])
    assert switched.request.path == "/profile"
    assert language_of(switched) == "zh-Hans"


NEW_PAGE = """{% extends "base.html" %}{% block title %}{{ _("News") }}{% endblock %}
{% block main %}<h1>{{ _("News") }}</h1>{% endblock %}"""


def test_a_new_page_takes_a_template_and_a_route() -> None:
    """It works in English, and its language links lead to it, whatever was asked."""
    app = create_app()
    loaders = [DictLoader({"news.html": NEW_PAGE}), app.jinja_loader]
    app.jinja_loader = ChoiceLoader(list(filter(None, loaders)))
    app.add_url_rule("/<path:of>", "news", lambda of: render_template("news.html"))
    client = app.test_client()

    for path in ("/the news/of é", "/%5Cx.example", "/a?page=2&page=3&_scheme=x&q=%26"):
        page = client.get(path)
        links = links_of(page)
        assert links["Sign in"] == "/login"
        french = client.get(links["Français"])
        for shown in (page, french):
            assert "<h1>News</h1>" in shown.text
        assert language_of(french) == "fr"
        assert french.request.path == page.request.path
        assert [*french.request.args.items(multi=True)] == [
            *page.request.args.items(multi=True),
            ("lang", "fr"),
        ]
        assert links_of(french)["English"] == links["English"]
    assert "secret" not in client.get("/a?logout_token=secret&token=secret").text


def test_the_languages_of_a_page_that_cannot_be_asked_for_again_lead_home(
    client: FlaskClient,
) -> None:
    gets = ("//x.example/nowhere", "/callback?code=x&state=y")
    asked = [("GET", path) for path in gets]
    for method, path in (*asked, ("POST", "/profile"), ("POST", "/logout/everywhere")):
        page = client.open(path, method=method, headers=HTML)
        assert page.status_code >= 400
        assert links_of(page)["Français"] == "/?lang=fr", path


UNKNOWN = ["", "de", "xx", "../fr", "FR", "fr'\"><b>", "%00"]


@pytest.mark.parametrize(
    ("asked", "language"),
    [("zh_Hans", "zh-Hans"), ("zh-Hans", "zh-Hans"), *((u, "en") for u in UNKNOWN)],
)
def test_a_language_is_called_by_either_spelling_and_an_unknown_one_is_none_chosen(
    client: FlaskClient, asked: str, language: str
) -> None:
    page = client.get("/", query_string={"lang": asked})

    assert page.status_code == 200
    assert language_of(page) == language
    assert ("/login" in links_of(page).values()) == (language == "en")


@pytest.mark.parametrize("lang", ["fr", "ja", "zh-Hans"])
@pytest.mark.parametrize(
    "path", ["/", "/profile", "/nowhere", "/callback?code=x&state=y", "/callback"]
)
def test_nothing_on_a_page_stays_english(app: Flask, path: str, lang: str) -> None:
    client = app.test_client()
    if path == "/profile":
        auth.login_as(client, email="zoe@example.com", admin=False, groups=[])
    page = client.get(path, headers={**HTML, "Accept-Language": lang})
    shown = unescape(re.sub(r"<[^>]*>|\s+", " ", page.text))

    assert language_of(page) == lang
    for text in texts() - {"no"}:  # which is a word of other languages
        assert not re.search(rf"(?<!\w){re.escape(text)}(?!\w)", shown), text


def test_a_language_that_was_chosen_outlives_a_login_and_its_failure(
    client: FlaskClient, tenant: Tenant
) -> None:
    home = client.get("/?lang=fr", headers=HTML)
    start = client.get(links_of(home)["Se connecter"], headers=HTML)
    refusal = {"error": "access_denied", "state": asked_of_auth0(start)["state"]}
    denied = client.get("/callback", query_string=refusal, headers=HTML)

    assert denied.status_code == 403
    assert language_of(denied) == "fr"
    assert "Auth0 vous a refusé l’accès" in denied.text
    again = client.get(links_of(denied)["Réessayer"], headers=HTML)
    assert asked_of_auth0(again)["ui_locales"] == ["fr-FR"]
    assert "/?lang=fr" in links_of(denied).values()

    away = client.get("/profile?lang=ja", headers=HTML).headers["Location"]
    for path, asked in {away: "ja", "/login?lang=fr&ui_locales=de": "de"}.items():
        assert asked_of_auth0(client.get(path))["ui_locales"] == [asked]
    tenant.fail("discovery", Fault.status(503))
    auth.auth0.verifier.forget()
    down = client.get(away, headers=HTML)

    assert down.status_code == 502
    assert language_of(down) == "ja"
    again_at = parse_qs(urlsplit(links_of(down)["もう一度試す"]).query)
    assert again_at["return_to"] == ["/profile?lang=ja"]


def test_answers_for_programs_stay_english_and_vary_by_nothing_else(
    client: FlaskClient,
) -> None:
    french = {"Accept-Language": "fr"}
    program = {**french, "Accept": "application/json"}
    failed = client.get("/callback?code=x&state=y&lang=fr", headers=program)
    assert json.loads(failed.text)["detail"].startswith("This sign-in is unknown here")
    auth.login_as(client)
    answers = [
        client.get("/api/me", headers=program),
        client.get("/nowhere", headers=program),
        client.get("/healthz", headers=french),
        client.get("/logout", headers=french),
        client.get("/profile", headers=french),  # signed out by now, so to login
    ]

    assert [answer.status_code for answer in answers] == [200, 404, 200, 302, 302]
    assert not any("Accept-Language" in answer.vary for answer in answers)


def errors_of_the_app() -> list[HTTPException]:
    """Return one of each error that there is a page for."""
    of_logins = [CheckFailed(code) for code in _TEXTS]
    clocks = [login_error(ClocksDiffer(seconds)) for seconds in (90, -3600)]
    of_flask = [default_exceptions[code]() for code in OF_FLASK]
    ours = [auth.signed_out(), NotAllowed(), CrossSite(), SessionTooLarge(HEAVY, 9)]
    down = StoreUnavailable("revocations_unavailable", OSError())
    return [*of_logins, *filter(None, clocks), *of_flask, *ours, down]


@pytest.mark.parametrize("lang", ["fr", "ja", "zh-Hans"])
def test_no_error_page_has_a_word_of_english(lang: str) -> None:
    """Whatever is raised, through the app itself: not only what the catalogs know."""
    app, shown = create_app(), ""
    with app.test_request_context():
        errors = errors_of_the_app()

    @app.get("/raise/<int:number>")
    def fail(number: int) -> str:
        raise errors[number]

    for number, error in enumerate(errors):
        page = app.test_client().get(f"/raise/{number}?lang={lang}", headers=HTML)
        assert page.status_code == (error.code or 500)
        main = page.text.partition("<main")[2].partition("</main>")[0]
        words = unescape(re.sub(r"<code>.*?</code>|<[^>]*>", " ", main))
        assert str(error.description) not in words
        foreign = re.findall(r"\b(?:the|is|this|that|you|your|not|to|of)\b", words)
        assert foreign == [], (error, words)
        shown += page.text
    assert re.search(r"\b90\b", shown)  # by how much the clocks differ
    assert "<code>claim groups</code>" in shown  # what does not fit into a session
    assert "%(" not in shown


SHAPES = {
    "en": r"[A-Z][a-z]{2} \d{1,2}, \d{4}, \d{1,2}:\d\d\s[AP]M UTC",
    "fr": r"\d{1,2} [a-zéû]+\.? \d{4} à \d\d:\d\d UTC",
    "ja": r"\d{4}/\d\d/\d\d \d{1,2}:\d\d UTC",
    "zh-Hans": r"\d{4}年\d{1,2}月\d{1,2}日 \d\d:\d\d UTC",
}


@pytest.mark.parametrize("lang", SHAPES)
def test_times_are_written_as_the_language_writes_them(
    client: FlaskClient, lang: str
) -> None:
    auth.login_as(client, sub=f"auth0|{lang}")

    page = client.get("/profile", query_string={"lang": lang})

    times = re.findall(r'<time datetime="[^"]+\+00:00">([^<]*)</time>', page.text)
    assert len(times) == 7  # of the session, of it among the devices, in its claims
    assert [time for time in times if not re.fullmatch(SHAPES[lang], time)] == []


@pytest.mark.parametrize(
    ("claim", "shown"),
    [
        (1_700_000_000, '<time datetime="2023-11-14T22:13:20+00:00">Nov 14, 2023'),
        ("2023-11-14T22:13:20.5Z", '<time datetime="2023-11-14T22:13:20.500000+00:00"'),
        ("yesterday", "yesterday"),
        (1e300, "1e+300"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ([7], "7"),
        (None, '<span class="quiet">none</span>'),
    ],
)
def test_a_claim_that_is_a_time_is_shown_as_one_and_an_odd_one_as_it_is(
    client: FlaskClient, claim: object, shown: str
) -> None:
    auth.login_as(client, updated_at=claim)

    page = client.get("/profile")

    of_claim = page.text.partition("<code>updated_at</code>")[2]
    assert of_claim.partition('<dd dir="auto">')[2].startswith(shown)


def test_what_comes_from_outside_and_an_apps_own_errors_are_text_as_they_are() -> None:
    name = "<script>1</script> 100 % %(name)s {{ 7 * 7 }}"
    app = create_app()

    @app.get("/own")
    def own() -> str:
        raise auth.LoginRefused(name)

    client = app.test_client()
    auth.login_as(client, name=name, organization=name)

    for path, lang in product(("/", "/profile", "/own"), TAGS):
        page = client.get(path, query_string={"lang": lang}, headers=HTML)
        assert "<script" not in page.text
        assert name in unescape(page.text)


def test_where_nobody_notes_who_signed_out_there_is_no_button_for_all_devices(
    tenant: Tenant,
) -> None:
    alone = {**tenant.environ(), "AUTH0_REVOCATIONS_PATH": "none"}
    client = load("app", own := copy_of_auth(alone)).create_app().test_client()
    own.login_as(client)

    page = client.get("/profile").text

    assert "Sign out of this app only" in page
    assert "<button" not in page
